package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// journal is what a test wants to know of an agent's journal.
type journal struct {
	State   string
	Seq     int64
	Error   string
	Alarm   string
	Attempt *struct {
		Phase, Path, Reason, Outcome string
		Unconfirmed                  bool
	}
}

// agentJournal reads the agent's journal from outside of the host, which may hang or be off.
func (h *Host) agentJournal() (j journal, err error) {
	file := filepath.Join(fmt.Sprintf("/proc/%d/root", h.m.space.outer), h.m.rootDir(), "nix/var/narwharf/journal.json")
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &j)
	}
	return j, err
}

// await looks at the agent's journal all the time until it says one of some states of the release
// that is promoted; it returns what it says then.
func (h *Host) await(limit time.Duration, seq int64, states ...string) (journal, error) {
	var last journal
	var err error
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		var j journal
		if j, err = h.agentJournal(); err != nil {
			continue
		}
		if last = j; j.Seq == seq && slices.Contains(states, j.State) {
			return j, nil
		}
	}
	return last, errors.Join(fmt.Errorf("%s: not %s of seq %d within %v: its agent says %+v", h.Name(), strings.Join(states, " or "), seq, limit, last), err)
}

// settled are the states in which an agent has come to an end.
var settled = []string{"ok", "reverted", "armed", "testing", "test_over", "failed", "rejected", "drifted", "dry_run_done"}

// send promotes and does not wait. It returns the seq.
func (fw *follower) send(args ...string) int64 {
	fw.T.Helper()
	out := fw.narwharf("promote", append([]string{"web"}, args...)...)
	if out.Code != 0 {
		fw.T.Fatalf("%v", out)
	}
	return fw.seq()
}

// seq is that of the channel's last release.
func (fw *follower) seq() int64 {
	fw.T.Helper()
	return fw.seqOf("web")
}

func (fw *follower) seqOf(channel string) int64 {
	fw.T.Helper()
	var c struct{ Seq int64 }
	out := fw.CI().Narwharf("channel", "show", channel, "--json")
	if err := json.Unmarshal([]byte(out.Stdout), &c); err != nil || c.Seq == 0 {
		fw.T.Fatalf("%v: %v", err, out)
	}
	return c.Seq
}

// truthful waits until a host has come to an end with a release, and checks that what its agent and
// the server say is what is: `ok` runs and boots the release's system, `reverted` what was there
// before, `armed` runs the one and boots the other. It returns the state.
func (fw *follower) truthful(h *Host, seq int64, old, path string) (string, error) {
	j, err := h.await(90*time.Second, seq, settled...)
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, tail(h.Journal("narwharf.service"), 30))
	}
	var r hostReport
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		// It may go on from one to the next: armed after a reboot is on probation.
		if j, err = h.agentJournal(); err != nil {
			return "", err
		}
		if r = fw.reported()[h.Name()]; r.Status.State == j.State && r.Status.Seq == seq && slices.Contains(settled, j.State) {
			break
		}
		if time.Now().After(end) {
			return j.State, fmt.Errorf("%s is %s, and the server says %+v", h.Name(), j.State, r)
		}
	}
	st := h.State()
	want := map[string][2]string{"ok": {path, path}, "reverted": {old, old}, "armed": {old, path}, "testing": {path, old}, "test_over": {old, old}}[j.State]
	if st.Current != want[0] || st.Profile != want[1] || st.BootEntry != want[1] || r.Status.Current != want[0] {
		return j.State, fmt.Errorf("%s says %s (%s), the server %+v; it was %s and should be %s; in truth %+v", h.Name(), j.State, j.Error, r, old, path, st)
	}
	if version := h.Must("cat", st.Current+"/nixos-version"); st.Hello != version {
		return j.State, fmt.Errorf("%s says %s and runs version %s; its hello.service is of %q", h.Name(), j.State, version, st.Hello)
	}
	return j.State, nil
}
