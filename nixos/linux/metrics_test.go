package linux

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"narwharf/hooks/api"
	"narwharf/nixos/journal"
)

// TestMetricsTable holds what the agent exports against docs/metrics.md: names,
// types, labels.
func TestMetricsTable(t *testing.T) {
	name := filepath.Join(t.TempDir(), "narwharf.prom")
	file := &textfile{name: name, log: slog.New(slog.DiscardHandler)}
	file.observe(&api.Status{State: api.OK, Durations: map[string]int64{"total": 1500}}, &journal.Journal{Alarm: "x"})
	page, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "narwharf_agent_duration_seconds{part=\"total\"} 1.5\n") ||
		!strings.Contains(string(page), "narwharf_agent_state{state=\"ok\"} 1\n") || !strings.Contains(string(page), "narwharf_agent_alarm 1\n") {
		t.Errorf("%s", page)
	}
	kinds, shown := map[string]string{}, map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\w+) (\w+)$`).FindAllStringSubmatch(string(page), -1) {
		kinds[m[1]] = m[2]
	}
	for _, m := range regexp.MustCompile(`(?m)^(\w+)(?:\{(\w+)=.*\})? \S+$`).FindAllStringSubmatch(string(page), -1) {
		shown[m[1]] = fmt.Sprintf("%s [%s]", kinds[m[1]], m[2])
	}
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "\n## The agent\n")
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\| ([^|]*) \\| \\S").FindAllStringSubmatch(section, -1) {
		documented[m[1]] = fmt.Sprintf("%s [%s]", m[2], strings.Trim(m[3], "`– "))
	}
	if !maps.Equal(shown, documented) {
		for _, n := range slices.Sorted(maps.Keys(shown)) {
			t.Logf("exported: %s %s", n, shown[n])
		}
		t.Errorf("docs/metrics.md has %v", documented)
	}
}
