package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// A fate is what becomes of a host that is sent a system which goes wrong.
type fate struct {
	name   string
	system func(*System)
	want   string
	before func(h *Host)
	during func(h *Host, seq int64) error // before the host can report its end
	after  func(fw *follower, h *Host, seq int64, old, path string) error
}

func slowly(seconds int, m ...Misbehaviour) func(*System) {
	return func(s *System) { s.Misbehave, s.Seconds = m, seconds }
}

// fates come three at a time, in one release: each for a host with its root on a disk, and for one
// whose root is tmpfs.
var fates = []fate{
	{name: "hangs", system: misbehave(Hang), want: "reverted", after: says("time limit")},
	{name: "switch dies", system: misbehave(Dies), want: "reverted"},
	{name: "kills the agent", system: misbehave(KillAgent), want: "ok"},

	{name: "unit fails later", system: slowly(1, FailsLater), want: "reverted", after: says("later.service")},
	{name: "unit is slow", system: slowly(2, Slow), want: "ok"},
	{name: "exit 100", system: misbehave(InitInterface), want: "armed", after: rebootInto("ok")},

	{name: "boot partition full", system: misbehave(BootFull), want: "reverted"},
	{name: "exit 4 by an old failed unit", system: misbehave(), want: "ok",
		before: func(h *Host) {
			h.WriteFile("/etc/systemd/system/ancient.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n", 0o644)
			h.Sh("ln -sf ../ancient.service /etc/systemd/system/multi-user.target.wants/; systemctl daemon-reload; systemctl start ancient.service || true")
		},
		after: func(_ *follower, h *Host, _ int64, _, _ string) error {
			if failed := h.State().Failed; !slices.Equal(failed, []string{"ancient.service"}) {
				return fmt.Errorf("%s: the failed units are %v", h.Name(), failed)
			}
			h.Sh("rm /etc/systemd/system/ancient.service /etc/systemd/system/multi-user.target.wants/ancient.service; systemctl daemon-reload; systemctl reset-failed")
			return nil
		}},
	{name: "server out of reach, gateway there", system: misbehave(NetworkRoute), want: "ok",
		during: func(h *Host, seq int64) error {
			j, err := h.await(time.Minute, seq, settled...)
			if err == nil && (j.State != "ok" || !j.Attempt.Unconfirmed) {
				err = fmt.Errorf("%s: without the server %+v %+v", h.Name(), j, j.Attempt)
			}
			h.Must("/usr/local/lib/fleet/network", "up") // what a person does about the switch in between
			return err
		},
		after: func(fw *follower, h *Host, _ int64, _, _ string) error {
			if r := fw.reported()[h.Name()]; !r.Status.Unconfirmed {
				return fmt.Errorf("the server is not told that nobody confirmed %s: %+v", h.Name(), r)
			}
			return nil
		}},

	{name: "inhibited", system: func(s *System) { s.Inhibitors = map[string]string{"dbus": "broker"} }, want: "armed", after: rebootInto("ok")},
	{name: "another kernel", system: func(s *System) { s.Kernel = "6.2" }, want: "armed", after: rebootInto("ok")},
	{name: "another kernel that fails", system: func(s *System) { s.Kernel, s.Misbehave = "6.2", []Misbehaviour{UnitFails} }, want: "armed", after: rebootInto("reverted")},
}

// says expects words in the reason.
func says(words string) func(*follower, *Host, int64, string, string) error {
	return func(fw *follower, h *Host, _ int64, _, _ string) error {
		if r := fw.reported()[h.Name()]; !strings.Contains(r.Status.Error, words) {
			return fmt.Errorf("the server says of %s %q, and nothing of %q", h.Name(), r.Status.Error, words)
		}
		return nil
	}
}

// rebootInto boots an armed host.
func rebootInto(want string) func(*follower, *Host, int64, string, string) error {
	return func(fw *follower, h *Host, seq int64, old, path string) error {
		h.Reboot()
		Eventually(h.T, time.Minute, h.Name()+" notices its boot", func() error {
			if j, err := h.agentJournal(); err != nil || j.State == "armed" {
				return fmt.Errorf("%+v %w", j, err)
			}
			return nil
		})
		state, err := fw.truthful(h, seq, old, path)
		if err == nil && state != want {
			err = fmt.Errorf("%s: armed, booted, and %s, want %s\n%s", h.Name(), state, want, tail(h.Journal("narwharf.service"), 30))
		}
		return err
	}
}

// TestFaults sends hosts systems that go wrong, every pair of them its own.
func TestFaults(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	fw := newFollowerOf(t, 6, func(toml string) string {
		return strings.Replace(toml, `minimum = "1s"`, `minimum = "4s"`, 1) + "\n[activation]\ntimeout = \"6s\"\n"
	}, forgetful("h4", "h5", "h6"))
	old := fw.system("first")
	fw.promote(0, old)
	for n := 0; n < len(fates); n += 3 {
		batch := fates[n : n+3]
		names := batch[0].name + "; " + batch[1].name + "; " + batch[2].name
		fw.story(t, "15: "+names, func(s *Story, fw *follower) {
			var paths, entries []string
			for i, fate := range batch {
				path := fw.system(strings.Map(letters, fate.name), fate.system)
				paths = append(paths, path)
				for _, name := range []string{fw.names[i], fw.names[i+3]} {
					entries = append(entries, name+"="+path)
					if fate.before != nil {
						fate.before(fw.Host(name))
					}
				}
			}
			seq := fw.send(entries...)
			fw.each(func(h *Host) error {
				i := slices.Index(fw.names, h.Name()) % 3
				if batch[i].during != nil {
					if err := batch[i].during(h, seq); err != nil {
						return err
					}
				}
				state, err := fw.truthful(h, seq, old, paths[i])
				if err == nil && state != batch[i].want {
					err = fmt.Errorf("%s, which %s, is %s, want %s: %+v\n%s", h.Name(), batch[i].name, state, batch[i].want, fw.reported()[h.Name()], tail(h.Journal("narwharf.service"), 40))
				}
				if err == nil && batch[i].after != nil {
					err = batch[i].after(fw, h, seq, old, paths[i])
				}
				return err
			})
			version := fmt.Sprintf("well-%d", n)
			next := fw.system(version)
			fw.promote(0, next)
			fw.each(func(h *Host) error { // a host that cannot go back to the old inhibitors or kernel without a boot
				if j, err := h.agentJournal(); err != nil || j.State != "armed" {
					return err
				}
				return rebootInto("ok")(fw, h, seq+1, "", next)
			})
			old = next
			fw.run(old, version, "ok")
		})
	}
	fw.story(t, "15: a boot entry that was not written", func(s *Story, fw *follower) {
		path := fw.system("boot-silent", misbehave(BootSilent))
		seq := fw.send("h1="+path, "h2="+old, "h3="+old, "h4="+path, "h5="+old, "h6="+old)
		fw.eachOf([]string{"h1", "h4"}, func(h *Host) error {
			j, err := h.await(time.Minute, seq, settled...)
			if err != nil {
				return err
			}
			s.Note("%s says %s", h.Name(), j.State)
			h.Reboot()
			if st := h.State(); st.Current != old {
				return fmt.Errorf("%s: %+v", h.Name(), st)
			}
			Eventually(s, time.Minute, h.Name()+" says that it runs something else", func() error {
				if r := fw.reported()[h.Name()]; r.Converged || r.Status.Current != old || r.Status.State == "ok" {
					return fmt.Errorf("%+v", r)
				}
				return nil
			})
			s.Note("after the boot %s", fw.reported()[h.Name()].Status.State)
			return nil
		})
	})
}
