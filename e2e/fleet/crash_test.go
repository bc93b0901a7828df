package fleet

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestCrash ends agents, the server and whole hosts while a release is on its way. Whatever was
// ended finds out when it starts again where it stands, goes on or goes back, and says so. h2 has a
// root of tmpfs; with TestPlaces the power is cut in every state on both kinds of host.
func TestCrash(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	fw := newFollower(t, 3, forgetful("h2"))
	var old string // what all hosts run between two stories
	good := func(fw *follower, version string) {
		fw.T.Helper()
		old = fw.system(version)
		fw.promote(0, old)
		fw.run(old, version, "ok")
	}
	good(fw, "first")

	fw.story(t, "15: agent killed at random moments", func(s *Story, fw *follower) {
		kills := 0
		for _, version := range []string{"k1", "k2-bad", "k3"} {
			want, path := "ok", ""
			if strings.HasSuffix(version, "-bad") {
				want, path = "reverted", fw.system(version, misbehave(UnitFails))
			} else {
				path = fw.system(version, misbehave(SlowActivation), func(s *System) { s.Seconds = 1 })
			}
			seq := fw.send(path)
			kills += fw.killAgents(seq, 6)
			fw.each(func(h *Host) error {
				state, err := fw.truthful(h, seq, old, path)
				if err == nil && state != want {
					err = fmt.Errorf("%s is %s, want %s\n%s", h.Name(), state, want, tail(h.Journal("narwharf.service"), 40))
				}
				return err
			})
			if want == "ok" {
				old = path
			}
		}
		s.Note("%d kills", kills)
	})
	for _, c := range []struct {
		name   string
		make   func(*System)
		at     [3][]string // state of h1, h2, h3 when the power is cut; a later one where it may be over too soon
		become [3][]string
	}{
		{"staging, staged, activating", func(s *System) { s.Misbehave, s.Seconds = []Misbehaviour{SlowActivation}, 3 },
			[3][]string{{"staging"}, {"staged", "draining"}, {"activating"}}, [3][]string{{"ok"}, {"ok", "reverted"}, {"reverted"}}},
		{"draining, draining, committing", func(*System) {},
			[3][]string{{"draining", "activating"}, {"draining", "activating"}, {"committing", "ok"}}, [3][]string{{"ok", "reverted"}, {"ok", "reverted"}, {"ok"}}},
		{"reverting, reverting, staged", func(s *System) { s.Misbehave = []Misbehaviour{Unhealthy} },
			[3][]string{{"reverting", "reverted"}, {"reverting", "reverted"}, {"staged", "draining"}}, [3][]string{{"reverted"}, {"reverted"}, {"reverted"}}},
	} {
		fw.story(t, "15: power cut while "+c.name, func(s *Story, fw *follower) {
			path := fw.system(strings.ReplaceAll(c.name, ", ", "-"), c.make)
			seq, sent := fw.sending(path)
			fw.each(func(h *Host) error {
				i := slices.Index(fw.names, h.Name())
				late := time.Duration(0)
				if i == 1 { // not always in the state's first moment
					late = rand.N(150 * time.Millisecond)
				}
				return fw.cut(h, seq, late, old, path, c.at[i], c.become[i])
			})
			sent()
			good(fw, "after-"+strings.ReplaceAll(c.name, ", ", "-"))
		})
	}
	fw.story(t, "15: server killed between promote and confirm", func(s *Story, fw *follower) {
		path := fw.system("server-killed")
		waiting := fw.CI().Start("narwharf", "promote", "web", path, "--key", fw.CI().SecretKey("deploy-1"), "--wait", "--wait-timeout", "90s")
		next := fw.seq() + 1
		if _, err := fw.Host("h1").await(time.Minute, next, "probation", "activating"); err != nil {
			s.Fatal(err)
		}
		fw.Server().Kill()
		time.Sleep(2 * time.Second)
		begin := time.Now()
		fw.Server().Start()
		fw.each(func(h *Host) error {
			state, err := fw.truthful(h, next, old, path)
			if err == nil && state != "ok" {
				err = fmt.Errorf("%s is %s", h.Name(), state)
			}
			return err
		})
		s.Took("server back to all confirmed", time.Since(begin))
		if out := waiting.Wait(90 * time.Second); out.Code != 0 {
			s.Errorf("who waits with --wait does not hear of it: %v", out)
		}
		old = path
	})
	fw.story(t, "15: server killed right after promote, and again and again", func(s *Story, fw *follower) {
		path := fw.system("server-killed-often")
		seq := fw.send(path)
		for range 4 {
			fw.Server().Kill()
			fw.Server().Start()
			time.Sleep(rand.N(time.Second))
		}
		if now := fw.seq(); now != seq {
			s.Fatalf("the release %d is lost: the channel is at %d", seq, now)
		}
		fw.each(func(h *Host) error {
			state, err := fw.truthful(h, seq, old, path)
			if err == nil && state != "ok" {
				err = fmt.Errorf("%s is %s", h.Name(), state)
			}
			return err
		})
		old = path
	})
}

// each is [Fleet.Each] that tells of every host's error.
func (fw *follower) each(work func(h *Host) error) {
	fw.T.Helper()
	fw.eachOf(fw.names, work)
}

// eachOf is each for some of the hosts.
func (fw *follower) eachOf(names []string, work func(h *Host) error) {
	fw.T.Helper()
	var wg sync.WaitGroup
	for _, name := range names {
		h := fw.Host(name)
		wg.Go(func() {
			if err := work(h); err != nil {
				fw.T.Error(err)
			}
		})
	}
	wg.Wait()
	if fw.T.Failed() {
		fw.T.FailNow()
	}
}

// sending promotes without waiting even for the answer, since the first states of a release may be over
// before that. It returns the seq that the release gets, and what waits for the answer.
func (fw *follower) sending(path string) (seq int64, sent func()) {
	fw.T.Helper()
	seq = fw.seq() + 1
	job := fw.CI().Start("narwharf", "promote", "web", path, "--key", fw.CI().SecretKey("deploy-1"))
	return seq, func() {
		fw.T.Helper()
		if out := job.Wait(time.Minute); out.Code != 0 {
			fw.T.Errorf("%v", out)
		}
	}
}

// cut cuts a host's power so long after it came to one of some states of a release, boots it, and
// checks that it becomes what it may become, and says so.
func (fw *follower) cut(h *Host, seq int64, late time.Duration, old, path string, at, become []string) error {
	fw.T.Helper()
	j, err := h.await(time.Minute, seq, at...)
	if err != nil {
		return err
	}
	time.Sleep(late)
	h.PowerCut()
	if now, err := h.agentJournal(); err == nil && now.Attempt != nil {
		h.T.Logf("%s: cut when %s, left %s (%s)", h.Name(), j.State, now.State, now.Attempt.Phase)
		// A container loses its power process by process: with systemd gone
		// before it, the agent could not begin the switch, and waits.
		if now.State == "waiting" {
			become = append([]string{"ok"}, become...)
		}
	}
	h.Boot()
	state, err := fw.truthful(h, seq, old, path)
	if err == nil && state == "armed" { // the next boot is into it
		h.Reboot()
		// The journal says armed until the agent has started.
		if _, err = h.await(time.Minute, seq, "ok"); err == nil {
			state, err = fw.truthful(h, seq, old, path)
		}
	}
	if err == nil && !slices.Contains(become, state) {
		err = fmt.Errorf("%s: after a power cut while %v it is %s, want %v\n%s", h.Name(), at, state, become, tail(h.Journal("narwharf.service"), 40))
	}
	h.T.Logf("%s: %s", h.Name(), state)
	return err
}

// killAgents kills every host's agent at random moments until it has come to an end with a release,
// at most a number of times each, and returns how often it did.
func (fw *follower) killAgents(seq int64, most int) int {
	fw.T.Helper()
	var mu sync.Mutex
	kills := 0
	fw.each(func(h *Host) error {
		for range most {
			time.Sleep(rand.N(1200 * time.Millisecond))
			if j, err := h.agentJournal(); err == nil && j.Seq == seq && slices.Contains(settled, j.State) {
				return nil
			}
			if h.Exec("systemctl", "kill", "--kill-who=main", "--signal=KILL", "narwharf.service").Code == 0 {
				mu.Lock()
				kills++
				mu.Unlock()
			}
		}
		return nil
	})
	return kills
}
