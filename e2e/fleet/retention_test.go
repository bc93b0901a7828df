package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A year of CI on real hosts, in small: builds come and go, the cache stays under its size, and nothing
// that a host runs or the channel names is ever missing. why says who keeps what.
func TestAYearOfCI(t *testing.T) {
	const most = 44 << 20
	config := func(toml string) string {
		return toml + fmt.Sprintf("\n[retention]\ngrace = \"4s\"\nlease = \"3s\"\nkeep_releases = 2\nmax_size = %d\ninterval = \"2s\"\n", most)
	}
	fw := followConfigured(t, 2, config, func(toml string) string { return toml }, func(*Fleet, string, *HostOptions) {})
	bulk := func(s *System) { s.Bulk = 3 << 10 }
	fw.story(t, "a year of CI", func(s *Story, fw *follower) {
		var systems []string
		for month := range 6 {
			for build := range 2 { // pull requests, which nobody runs
				fw.system(fmt.Sprintf("pr-%d-%d", month, build), bulk)
			}
			version := fmt.Sprintf("m%d", month)
			system := fw.system(version, bulk)
			systems = append(systems, system)
			fw.promote(0, system)
			fw.run(system, version, "ok")
		}
		Eventually(s, time.Minute, "the cache is under its size", func() error {
			text := strings.TrimSpace(fw.Server().Sh("du -sb /srv/narwharf/cache/nar | cut -f1"))
			var size int64
			if _, err := fmt.Sscan(text, &size); err != nil {
				return fmt.Errorf("%q: %w", text, err)
			}
			if size > most {
				return fmt.Errorf("it has %d bytes, %d at most", size, most)
			}
			s.Note("%d MiB", size>>20)
			return nil
		})
		now := systems[len(systems)-1]
		for words, path := range map[string]string{"channel web keeps it, by its release 6": now, "runs it, or may go back to it": now} {
			if out := fw.CI().Narwharf("why", path); !strings.Contains(out.Stdout, words) {
				s.Errorf("want %q of\n%v", words, out)
			}
		}
		if out := fw.CI().Narwharf("channel", "history", "web"); !strings.Contains(out.Stdout, "(collected)") {
			s.Errorf("nothing was collected:\n%v\n%v", out, fw.CI().Narwharf("gc", "--dry-run"))
		}
		if out := fw.narwharf("rollback", "web", "--to", "1"); out.Code == 0 || !strings.Contains(out.Stderr, "was collected") {
			s.Errorf("a rollback to what was collected: %v", out)
		}
		// What is kept can be gone back to: the hosts fetch and run it.
		if out := fw.narwharf("rollback", "web", "--to", "5", "--wait"); out.Code != 0 {
			s.Errorf("a rollback to the release before: %v", out)
		}
		fw.run(systems[4], "m4", "ok")
		fw.Server().Must("narwharf", "fsck")
	})
}
