package fleet

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestOperate is what operators and people on hosts do: reboots one at a time and within windows,
// pauses, holds, directives, a hand on the host itself. What is done on a host is done on h1 and on h2,
// whose root is tmpfs.
func TestOperate(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	fw := newFollowerOf(t, 3, func(toml string) string {
		return toml + `
[test]
deadline = "4s"

[poll]
wait = "10s"

[hooks]
pre_switch = ["/bin/sh", "-c", "test ! -e /run/hangs || exec sleep 600; test ! -e /run/not-now && date +%s%N >> /run/drained"]
post_switch = ["/bin/sh", "-c", "date +%s%N >> /run/undrained"]
timeout = "5s"
`
	}, forgetful("h2"))
	both := []string{"h1", "h2"}
	old := fw.system("first")
	fw.promote(0, old)
	policy := func(fw *follower, text string) {
		fw.T.Helper()
		fw.CI().Sh(`printf %s "$1" | narwharf channel policy web --file -`, text)
	}
	waits := func(fw *follower, kind string, names ...string) {
		fw.T.Helper()
		Eventually(fw.T, time.Minute, strings.Join(names, " ")+" wait: "+kind, func() error {
			reported := fw.reported()
			for _, name := range names {
				if r := reported[name]; r.Waiting.Kind != kind || r.Status.Current == "" {
					return fmt.Errorf("%s: %+v", name, r)
				}
			}
			return nil
		})
	}
	becomes := func(fw *follower, state string, names ...string) {
		fw.T.Helper()
		Eventually(fw.T, time.Minute, strings.Join(names, " ")+" "+state, func() error {
			reported := fw.reported()
			for _, name := range names {
				if r := reported[name]; r.Status.State != state {
					return fmt.Errorf("%s: %+v", name, r)
				}
			}
			return nil
		})
	}

	fw.story(t, "8: a kernel, outside of the window; then one host at a time", func(s *Story, fw *follower) {
		day := strings.ToLower(time.Now().UTC().AddDate(0, 0, 3).Weekday().String()[:3])
		policy(fw, fmt.Sprintf(`{"windows": [{"days": [%q], "from": "03:00", "to": "04:00"}], "reboot_slots": 1}`, day))
		path := fw.system("kernel", func(s *System) { s.Kernel = "6.2" })
		before := map[string]State{}
		for _, h := range fw.Hosts() {
			before[h.Name()] = h.State()
		}
		seq := fw.send(path, "--action", "reboot")
		waits(fw, "window", fw.names...)
		fw.stay(old, "first")
		watch := fw.watchReboots(seq)
		begin := time.Now()
		policy(fw, `{"windows": [], "reboot_slots": 1}`)
		Eventually(s, 3*time.Minute, "every host booted it", func() error {
			for _, h := range fw.Hosts() {
				if j, err := h.agentJournal(); err != nil || j.State != "ok" || j.Seq != seq {
					return fmt.Errorf("%s: %+v %w", h.Name(), j, err)
				}
			}
			return nil
		})
		s.Took("window open to last confirmed", time.Since(begin))
		if most := watch(); most != 1 {
			s.Errorf("%d hosts were away at a time, want one", most)
		}
		for _, h := range fw.Hosts() {
			h.AwaitBoot(2)
			if st := h.State(); st.BootID == before[h.Name()].BootID || st.Booted != path || h.Boots() != 2 {
				s.Errorf("%s: %d boots, %+v", h.Name(), h.Boots(), st)
			}
		}
		fw.run(path, "kernel", "ok")
		old = path
	})
	fw.story(t, "paused on the host, held by an operator", func(s *Story, fw *follower) {
		for _, name := range both {
			fw.Host(name).Must("narwharf", "agent", "pause", "--reason", "a disk is replaced", "--until", "4h")
		}
		fw.CI().Must("narwharf", "host", "hold", "h3", "--reason", "a backup runs")
		path := fw.system("after-the-pause", func(s *System) { s.Kernel = "6.2" })
		seq := fw.send(path)
		waits(fw, "paused", both...)
		waits(fw, "hold", "h3")
		if r := fw.reported(); !strings.Contains(r["h1"].Waiting.Detail, "a disk is replaced") || !strings.Contains(r["h3"].Waiting.Detail, "a backup runs") {
			s.Errorf("the reasons: %+v", r)
		}
		// Who boots a paused host still has it paused.
		fw.reboot(both...)
		waits(fw, "paused", both...)
		if r := fw.reported(); !strings.Contains(r["h2"].Waiting.Detail, "a disk is replaced") {
			s.Errorf("the reason after a boot: %+v", r)
		}
		fw.Host("h1").Must("narwharf", "agent", "resume")
		becomes(fw, "ok", "h1")
		fw.CI().Must("narwharf", "host", "hold", "h2", "--reason", "another backup runs")
		fw.Host("h2").Must("narwharf", "agent", "resume")
		waits(fw, "hold", "h2", "h3")
		fw.CI().Must("narwharf", "host", "unhold", "h2")
		fw.CI().Must("narwharf", "host", "unhold", "h3")
		fw.each(func(h *Host) error {
			state, err := fw.truthful(h, seq, old, path)
			if err == nil && state != "ok" {
				err = fmt.Errorf("%s is %s", h.Name(), state)
			}
			return err
		})
		old = path
	})
	fw.story(t, "a person's nixos-rebuild is shown, kept, and over with the next release", func(s *Story, fw *follower) {
		theirs := fw.system("by-hand", func(s *System) { s.Kernel = "6.2" })
		fw.EachOf(both, func(h *Host) error {
			h.Must("nix-store", "--realise", theirs)
			h.SetProfile(theirs)
			if out := h.Switch(theirs, "switch"); out.Code != 0 {
				return fmt.Errorf("%v", out)
			}
			return nil
		})
		becomes(fw, "drifted", both...)
		time.Sleep(3 * time.Second)
		for _, name := range both {
			if st := fw.Host(name).State(); st.Current != theirs || st.BootEntry != theirs {
				s.Errorf("the agent of %s took it away: %+v", name, st)
			}
		}
		old = fw.system("next", func(s *System) { s.Kernel = "6.2" })
		fw.promote(0, old)
		fw.run(old, "next", "ok")
	})
	fw.story(t, "7: a test with a deadline; dry-activate", func(s *Story, fw *follower) {
		path := fw.system("tried", func(s *System) { s.Kernel = "6.2" })
		seq := fw.send(path, "--action", "test")
		for _, h := range fw.Hosts() {
			if _, err := h.await(time.Minute, seq, "testing"); err != nil {
				s.Error(err)
			}
		}
		becomes(fw, "test_over", fw.names...)
		fw.stay(old, "next")
		fw.send(path, "--action", "dry-activate")
		becomes(fw, "dry_run_done", fw.names...)
		fw.stay(old, "next")
	})
	fw.story(t, "hosts that cannot be drained wait: a hook fails, a hook hangs; they are run in pairs", func(s *Story, fw *follower) {
		why := map[string][2]string{"h1": {"/run/not-now", "exit status 1"}, "h2": {"/run/hangs", "took too long"}}
		for _, name := range both {
			fw.Host(name).Sh("touch " + why[name][0] + "; rm -f /run/drained /run/undrained")
		}
		path := fw.system("drained", func(s *System) { s.Kernel = "6.2" })
		seq := fw.send(path)
		becomes(fw, "ok", "h3")
		fw.EachOf(both, func(h *Host) error {
			Eventually(s, time.Minute, h.Name()+" says why it does not begin", func() error {
				r := fw.reported()[h.Name()]
				if text := r.Waiting.Detail + r.Status.Error; r.Status.State != "waiting" || !strings.Contains(text, "pre_switch") || !strings.Contains(text, why[h.Name()][1]) {
					return fmt.Errorf("%+v", r)
				}
				return nil
			})
			if st := h.State(); st.Current != old {
				s.Errorf("%+v", st)
			}
			h.Must("rm", why[h.Name()][0])
			if state, err := fw.truthful(h, seq, old, path); err != nil || state != "ok" {
				return fmt.Errorf("%s: %w", state, err)
			}
			Eventually(s, 10*time.Second, "drained once, and let go after it", func() error {
				drained, undrained := strings.Fields(h.ReadFile("/run/drained")), strings.Fields(h.ReadFile("/run/undrained"))
				if len(drained) != 1 || len(undrained) < 1 || undrained[len(undrained)-1] < drained[0] {
					return fmt.Errorf("drained at %v, undrained at %v", drained, undrained)
				}
				return nil
			})
			return nil
		})
		old = path
	})
	fw.story(t, "revert and retry, host by host", func(s *Story, fw *follower) {
		path := fw.system("directed", func(s *System) { s.Kernel = "6.2" })
		fw.promote(0, path)
		for _, name := range both {
			fw.CI().Must("narwharf", "host", "revert", name)
		}
		becomes(fw, "reverted", both...)
		fw.run(old, "drained", "reverted", both...)
		fw.run(path, "directed", "ok", "h3")
		for _, name := range both {
			fw.CI().Must("narwharf", "host", "retry", name)
		}
		becomes(fw, "ok", both...)
		fw.run(path, "directed", "ok")
	})
}

// watchReboots counts, from now until the function it returns is called, how many hosts are away at a
// time at most: between the end of one boot and the end of the probation that follows.
func (fw *follower) watchReboots(seq int64) func() int {
	fw.T.Helper()
	boots := map[string]int{}
	for _, h := range fw.Hosts() {
		boots[h.Name()] = h.Boots()
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	most := 0
	wg.Go(func() {
		for {
			away := 0
			for _, h := range fw.Hosts() {
				j, err := h.agentJournal()
				if h.Boots() > boots[h.Name()] && (err != nil || j.Seq != seq || !slices.Contains([]string{"ok", "reverted"}, j.State)) {
					away++
				}
			}
			most = max(most, away)
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	return func() int {
		close(stop)
		wg.Wait()
		return most
	}
}
