package narwharf_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var metricName = regexp.MustCompile(`\b(?:narwharf|nixos)_\w+`)

// namesIn are the metrics that a file names; those of a histogram without their last word.
func namesIn(t *testing.T, file string) (names []string) {
	t.Helper()
	for _, name := range metricName.FindAllString(readFile(t, file), -1) {
		name, _ = strings.CutSuffix(name, "_bucket")
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// The rules and the dashboard name metrics that there are (docs/metrics.md, which other tests hold
// against running servers and agents), and their links lead to headings.
func TestMonitoring(t *testing.T) {
	server, agent, _ := strings.Cut(readFile(t, "docs/metrics.md"), "\n## The agent\n")
	for file, rows := range map[string]string{"narwharf.rules.yml": server, "grafana.json": server, "narwharf-agent.rules.yml": agent} {
		names := namesIn(t, "docs/monitoring/"+file)
		if len(names) < 5 {
			t.Errorf("%s names %q", file, names)
		}
		for _, name := range names {
			if !strings.Contains(rows, "\n| `"+name+"` |") {
				t.Errorf("%s names %s, which docs/metrics.md does not have there", file, name)
			}
		}
	}
	for _, file := range []string{"narwharf.rules.yml", "narwharf-agent.rules.yml"} {
		rules := readFile(t, "docs/monitoring/"+file)
		links := regexp.MustCompile(`runbook: '([^#']+)#?([^']*)'`).FindAllStringSubmatch(rules, -1)
		if alerts := strings.Count(rules, "- alert: "); len(links) != alerts {
			t.Errorf("%s has %d alerts and %d links", file, alerts, len(links))
		}
		for _, m := range links {
			if strings.Contains(m[2], "$labels.kind") { // each kind of alarm
				continue
			}
			if m[2] != "" && !slices.Contains(anchors(t, m[1]), m[2]) {
				t.Errorf("%s: %s has no heading #%s", file, m[1], m[2])
			}
			readFile(t, m[1])
		}
	}
	var board struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal([]byte(readFile(t, "docs/monitoring/grafana.json")), &board); err != nil || len(board.Panels) < 10 {
		t.Errorf("%d panels, %v", len(board.Panels), err)
	}
}

// anchors are those of a document's headings, as forges make them.
func anchors(t *testing.T, file string) (list []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(readFile(t, file), -1) {
		text := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		list = append(list, strings.ReplaceAll(text, " ", "-"))
	}
	return list
}

// Each kind of alarm leads to its entry by what the rules make of it, and stands in the table of how
// alarms end; kinds that the rules call urgent are kinds.
func TestAlarmsHaveEntries(t *testing.T) {
	var kinds []string
	for _, m := range regexp.MustCompile("(?m)^## `([a-z.]+)`").FindAllStringSubmatch(readFile(t, "docs/runbook.md"), -1) {
		kinds = append(kinds, m[1])
		if !strings.Contains(readFile(t, "docs/notify.md"), "`"+m[1]+"`") {
			t.Errorf("docs/notify.md does not say how %s ends", m[1])
		}
		if !slices.Contains(anchors(t, "docs/runbook.md"), strings.ReplaceAll(m[1], ".", "")) {
			t.Errorf("docs/runbook.md has no anchor for %s", m[1])
		}
	}
	rules := readFile(t, "docs/monitoring/narwharf.rules.yml")
	urgent := regexp.MustCompile(`kind[!=]~"([^"]+)"`).FindAllStringSubmatch(rules, -1)
	if len(urgent) != 2 || urgent[0][1] != urgent[1][1] {
		t.Fatalf("the urgent kinds are %q", urgent)
	}
	for kind := range strings.SplitSeq(urgent[0][1], "|") {
		if !slices.Contains(kinds, kind) {
			t.Errorf("%s is urgent, and no alarm", kind)
		}
	}
}

// Each alert is tested, and promtool finds the rules good, where it is installed.
func TestAlertsAreTested(t *testing.T) {
	tests := readFile(t, "docs/monitoring/rules_test.yml") + readFile(t, "docs/monitoring/rules_days_test.yml")
	for _, file := range []string{"narwharf.rules.yml", "narwharf-agent.rules.yml"} {
		for _, m := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(readFile(t, "docs/monitoring/"+file), -1) {
			if strings.Count(tests, "alertname: "+m[1]+"\n")+strings.Count(tests, "alertname: "+m[1]+",") != 2 {
				t.Errorf("%s is not tested before and after it fires", m[1])
			}
		}
	}
	if testing.Short() {
		t.Skip("slow: promtool runs without -short")
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("NARWHARF_CI") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	for _, args := range [][]string{
		{"check", "rules", "--lint=all", "narwharf.rules.yml", "narwharf-agent.rules.yml"},
		{"test", "rules", "rules_test.yml", "rules_days_test.yml"},
	} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = "docs/monitoring"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
