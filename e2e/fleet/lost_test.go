package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestLost takes the server's memory away while hosts are in the field: they know more than it does,
// and nothing that they run may come of that. h2 has a root of tmpfs.
func TestLost(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	fw := newFollower(t, 2, forgetful("h2"))
	var old string
	fw.story(t, "5.7: database wiped mid-way", func(s *Story, fw *follower) {
		first := fw.system("first")
		fw.promote(0, first)
		path := fw.system("mid-way", slowly(4, SlowActivation))
		seq := fw.send(path)
		if _, err := fw.Host("h1").await(time.Minute, seq, "activating"); err != nil {
			s.Fatal(err)
		}
		server := fw.Server()
		server.Kill()
		server.Must("rm", "/srv/narwharf/narwharf.db")
		begin := time.Now()
		rebuilt := server.Narwharf("rebuild", "--config", configFile)
		if rebuilt.Code != 0 {
			s.Fatalf("%v", rebuilt)
		}
		server.Start()
		s.Took("rebuild and start", time.Since(begin))
		if now := fw.seq(); now != seq {
			s.Fatalf("the channel is at seq %d, was at %d\n%v", now, seq, rebuilt)
		}
		fw.each(func(h *Host) error {
			state, err := fw.truthful(h, seq, first, path)
			if err == nil && state != "ok" {
				err = fmt.Errorf("%s is %s", h.Name(), state)
			}
			return err
		})
		old = fw.system("after-the-wipe")
		fw.promote(0, old)
		fw.run(old, "after-the-wipe", "ok")
		if now := fw.seq(); now != seq+1 {
			s.Errorf("the next release is seq %d, want %d", now, seq+1)
		}
		history := fw.CI().Narwharf("channel", "history", "web").Stdout
		for _, p := range []string{first, path, old} {
			if !strings.Contains(history, p) {
				s.Errorf("the history does not have %s:\n%s", p, history)
			}
		}
	})
	fw.story(t, "5.7: restored from an old backup", func(s *Story, fw *follower) {
		server := fw.Server()
		backup := fw.seq()
		server.Stop()
		server.Sh("cp -a /srv/narwharf /srv/backup")
		server.Start()
		for _, version := range []string{"lost-1", "lost-2"} {
			old = fw.system(version)
			fw.promote(0, old)
		}
		seen := fw.seq()
		server.Stop()
		server.Sh("mv /srv/narwharf /srv/crashed; mv /srv/backup /srv/narwharf")
		server.Start()
		if now := fw.seq(); now != backup {
			s.Fatalf("the backup is at seq %d, was at %d", now, backup)
		}
		stale := func() error {
			for name, r := range fw.reported() {
				if !strings.Contains(r.Status.Error, "stale") || r.Status.Current != old || r.Converged {
					return fmt.Errorf("%s: %+v", name, r)
				}
			}
			return nil
		}
		Eventually(s, time.Minute, "hosts and server say that the server is stale", stale)
		fw.stay(old, "lost-2")
		// What they know outlives a boot.
		fw.reboot(fw.names...)
		Eventually(s, time.Minute, "they say so after a boot", stale)
		fw.stay(old, "lost-2")
		if events := fw.events(); !strings.Contains(events, "channel.behind") {
			s.Errorf("no alarm in the events:\n%s", events)
		}
		// A seq that hosts have seen with other words is none that they take.
		below := fw.system("below")
		fw.send(below)
		twice := fw.system("twice")
		fw.send(twice)
		if now := fw.seq(); now != seen {
			s.Fatalf("seq %d, want %d", now, seen)
		}
		Eventually(s, time.Minute, "hosts refuse a seq that they know", func() error {
			for name, r := range fw.reported() {
				if r.Status.State != "rejected" || r.Status.Current != old {
					return fmt.Errorf("%s: %+v", name, r)
				}
			}
			return nil
		})
		fw.stay(old, "lost-2")
		// The way out that docs/channels.md names.
		begin := time.Now()
		old = fw.system("above")
		fw.promote(0, old, "--seq", fmt.Sprint(seen+3))
		s.Took("the way out", time.Since(begin))
		fw.run(old, "above", "ok")
	})
	fw.story(t, "5.7: old database, newer files", func(s *Story, fw *follower) {
		server := fw.Server()
		server.Stop()
		server.Sh("cp /srv/narwharf/narwharf.db /srv/old.db")
		server.Start()
		old = fw.system("newer")
		fw.promote(0, old)
		seq := fw.seq()
		server.Kill()
		server.Sh("mv /srv/old.db /srv/narwharf/narwharf.db")
		if out := server.Narwharf("rebuild", "--config", configFile); out.Code != 0 {
			s.Fatalf("%v", out)
		}
		server.Start()
		if now := fw.seq(); now != seq {
			s.Errorf("the channel is at seq %d, was at %d", now, seq)
		}
		// What they reported is lost, and nothing has changed since: they say it again.
		Eventually(s, 2*time.Minute, "the hosts report again", func() error {
			reported := fw.reported()
			for _, name := range fw.names {
				if r := reported[name]; !r.Converged || r.Status.Seq != seq {
					return fmt.Errorf("%s: %+v", name, r)
				}
			}
			return nil
		})
		fw.run(old, "newer", "ok")
		old = fw.system("and-on")
		fw.promote(0, old)
		fw.run(old, "and-on", "ok")
	})
}

// stay checks that every host runs and boots a system, whatever it says.
func (fw *follower) stay(system, version string) {
	fw.T.Helper()
	for _, h := range fw.Hosts() {
		if st := h.State(); st.Current != system || st.Profile != system || st.BootEntry != system || st.Hello != version {
			fw.T.Errorf("%s should go on with version %s: %+v", h.Name(), version, st)
		}
	}
}

// events is the audit log.
func (fw *follower) events() string {
	fw.T.Helper()
	return fw.CI().Sh(`curl -fsS -H "Authorization: Bearer $(cat /root/token)" "http://cache/api/v1/events?since=0"`)
}
