package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const (
	clean   = "[Service]\nRestart=always\nRestartSec=8\nExecStart=/bin/sleep 1\n"
	looping = "[Service]\nRestart=always\nExecStart=/bin/sh -c 'sleep 3; exit 1'\n"
	muted   = "[Service]\nRestart=always\nLogLevelMax=err\nExecStart=/bin/sh -c 'sleep 3; exit 1'\n"
	forced  = "[Service]\nRestart=on-failure\nRestartSec=2\nSuccessExitStatus=3\nRestartForceExitStatus=3\nExecStart=/bin/sh -c 'sleep 1; exit 3'\n"
	java    = "[Service]\nExecStart=/bin/sh -c 'trap \"exit 143\" TERM; sleep 1000 & wait'\n"
	backup  = "[Service]\nType=oneshot\nExecStart=/bin/sh -c '! [ -e /run/no-backup ]'\n"
)

// TestUnits: what systemd's real units do during a probation, and which of it speaks against a
// release. A unit of the host itself has failed before, so every switch ends with 4 at best.
func TestUnits(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	fw := newFollowerOf(t, 2, func(toml string) string {
		toml = strings.Replace(toml, `minimum = "1s"`, `minimum = "4s"`, 1)
		return strings.Replace(toml, `settle = "2s"`, "settle = \"3s\"\nignore_units = [\"flaky-*.service\"]", 1)
	})
	fw.EachOf(fw.names, func(h *Host) error {
		h.WriteFile("/etc/systemd/system/ancient.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n", 0o644)
		h.Sh("ln -s ../ancient.service /etc/systemd/system/multi-user.target.wants/; systemctl daemon-reload; systemctl start ancient.service || true")
		return nil
	})
	with := func(units map[string]string) func(*System) {
		return func(s *System) {
			s.Units = map[string]string{"clean.service": clean, "backup.service": backup}
			for name, text := range units {
				s.Units[name] = text
			}
		}
	}
	errors := func(s *Story, fw *follower, want string) {
		s.Helper()
		for name, r := range fw.reported() {
			if !strings.Contains(r.Status.Error, want) {
				s.Errorf("%s: %q, want %q", name, r.Status.Error, want)
			}
		}
	}
	var good string
	fw.story(t, "clean restarts are well", func(s *Story, fw *follower) {
		good = fw.system("clean", with(nil))
		fw.promote(0, good)
		fw.run(good, "clean", "ok")
		good = fw.system("unchanged", with(map[string]string{"flaky-import.service": "[Service]\nExecStart=/bin/false\n"}))
		fw.promote(0, good) // with clean.service between two runs, and a unit that is ignored
		fw.run(good, "unchanged", "ok")
	})
	fw.story(t, "a crash loop is gone back from", func(s *Story, fw *follower) {
		fw.promote(3, fw.system("loops", with(map[string]string{"loop.service": looping})))
		fw.run(good, "unchanged", "reverted")
		errors(s, fw, "unit loop.service: it fails and is started again")
	})
	fw.story(t, "one that logs no failures", func(s *Story, fw *follower) {
		fw.promote(3, fw.system("muted", with(map[string]string{"muted.service": muted})))
		fw.run(good, "unchanged", "reverted")
		errors(s, fw, "unit muted.service: it fails and is started again")
	})
	fw.story(t, "restarts by force, and units that are taken out", func(s *Story, fw *follower) {
		good = fw.system("forced", with(map[string]string{"forced.service": forced, "java.service": java}))
		fw.promote(0, good)
		fw.run(good, "forced", "ok")
		good = fw.system("unchanged", with(nil))
		fw.promote(0, good)
		fw.run(good, "unchanged", "ok")
	})
	fw.story(t, "a failed activation behind a failed unit", func(s *Story, fw *follower) {
		fw.promote(3, fw.system("not-activated", with(nil), misbehave(ActivationFails)))
		fw.run(good, "unchanged", "reverted")
		errors(s, fw, "its activation script failed")
	})
	fw.story(t, "logind is away on the way back", func(s *Story, fw *follower) {
		begin := time.Now()
		fw.promote(3, fw.system("no-logind", with(nil), slowly(8, LogindAway)))
		s.Took("promote to last reverted", time.Since(begin))
		fw.run(good, "unchanged", "reverted")
		fw.each(func(h *Host) error {
			if out := h.Exec("systemctl", "is-active", "hello.service", "clean.service"); strings.Contains(out.Stdout, "inactive") {
				s.Errorf("a unit stays stopped on %s: %v", h.Name(), out)
			}
			return nil
		})
	})
	fw.story(t, "an unchanged oneshot happens to fail", func(s *Story, fw *follower) {
		good = fw.system("backup-fails", with(nil))
		seq := fw.send(good)
		fw.each(func(h *Host) error {
			if _, err := h.await(time.Minute, seq, "probation"); err != nil {
				return err
			}
			h.Sh("touch /run/no-backup; systemctl start backup.service || true")
			_, err := h.await(time.Minute, seq, "ok")
			return err
		})
		Eventually(s, 10*time.Second, "the server knows", func() error {
			for name, r := range fw.reported() {
				if r.Status.State != "ok" {
					return fmt.Errorf("%s: %+v", name, r)
				}
			}
			return nil
		})
		fw.run(good, "backup-fails", "ok")
	})
}
