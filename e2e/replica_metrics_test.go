package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What the servers that share a database say of themselves: each metric that is documented, while all is well, when
// one is killed, and while the database is away.
func TestReplicaMetrics(t *testing.T) {
	t.Parallel()
	r := newReplicas(t, 2, nil)
	a, b := r.all[0], r.all[1]
	document, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(document), "\n## Several servers\n")
	section, _, _ = strings.Cut(section, "\n## ")
	names := regexp.MustCompile("(?m)^\\| `(narwharf_\\w+)`").FindAllStringSubmatch(section, -1)
	if len(names) < 8 {
		t.Fatalf("the document has %q", names)
	}
	soon(t, 30*time.Second, func() string {
		text := a.Metrics()
		for _, m := range names {
			if !strings.Contains(text, "\n"+m[1]) {
				return "there is no " + m[1]
			}
		}
		for _, line := range []string{`narwharf_replicas{state="there"} 2`, `narwharf_replicas{state="silent"} 0`, "narwharf_replica_versions 1", "narwharf_replica_differs 0", "narwharf_state_away_seconds 0"} {
			if !strings.Contains(text, "\n"+line+"\n") {
				return "there is no " + line
			}
		}
		return ""
	})
	b.metricsToken = a.metricsToken // they have one state
	// Each kind of work is done by one of them.
	does := regexp.MustCompile(`(?m)^narwharf_replica_does\{work="([^"]+)"\} 1$`)
	soon(t, 30*time.Second, func() string {
		at := make(map[string]int)
		for _, s := range []*Server{a, b} {
			for _, m := range does.FindAllStringSubmatch(s.Metrics(), -1) {
				at[m[1]]++
			}
		}
		for _, work := range []string{"scrub", "check", "sweep"} {
			if at[work] != 1 {
				return fmt.Sprintf("%d servers do %s: %v", at[work], work, at)
			}
		}
		return ""
	})
	a.Kill()
	soon(t, time.Minute, func() string {
		text := b.Metrics()
		for _, line := range []string{`narwharf_replicas{state="there"} 1`, `narwharf_replicas{state="silent"} 1`, `narwharf_replica_does{work="scrub"} 1`} {
			if !strings.Contains(text, "\n"+line+"\n") {
				return "there is no " + line
			}
		}
		return ""
	})
	token := b.Token("watcher", "metrics")
	watcher := NewUploader(t, b.URL(), token)
	watcher.Get("/metrics") // it is known
	r.db.Down(true)
	away := regexp.MustCompile(`(?m)^narwharf_state_away_seconds [1-9]`)
	soon(t, 30*time.Second, func() string {
		if reply := watcher.Get("/metrics"); !away.MatchString(reply.Body) {
			return "nothing is said of the database that is away"
		}
		return ""
	})
	if err := r.db.Up(); err != nil {
		t.Fatal(err)
	}
	soon(t, 30*time.Second, func() string {
		if reply := watcher.Get("/metrics"); !strings.Contains(reply.Body, "\nnarwharf_state_away_seconds 0\n") {
			return "it is said to be away still"
		}
		return ""
	})
}
