package nixos

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestRunbookHasTheAlarms: each event that the server raises as an alarm has an
// entry in docs/runbook.md, and each entry its event.
func TestRunbookHasTheAlarms(t *testing.T) {
	var kinds []string
	look := func(name string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		// The literal of an event ends before the next one begins.
		for _, event := range strings.Split(string(text), "api.Event{")[1:] {
			kind := regexp.MustCompile(`^\s*Kind:\s*"([a-z.]+)"`).FindStringSubmatch(event)
			event, _, _ = strings.Cut(event, "\n\n")
			if !regexp.MustCompile(`\bAlarm:`).MatchString(event) {
				continue
			}
			if len(kind) > 1 && kind[1] == "rollout." { // what the engine says of them
				kinds = append(kinds, "rollout.halted", "rollout.quarantined")
				continue
			}
			if kind != nil {
				kinds = append(kinds, kind[1])
				continue
			}
			named := regexp.MustCompile(`(?m)^\s+\w+\s+= "([a-z]+\.[a-z]+)"`).FindAllStringSubmatch(string(text), -1) // its constants
			if named == nil {
				t.Fatalf("%s: an alarm without a kind that can be read: %.80s", name, event)
			}
			for _, kind := range named {
				kinds = append(kinds, kind[1])
			}
		}
		for _, m := range regexp.MustCompile(`Alarms\.Of\("([a-z.]+)"\)`).FindAllStringSubmatch(string(text), -1) {
			kinds = append(kinds, m[1])
		}
		return nil
	}
	for _, dir := range []string{"../hooks", "../cmd"} {
		if err := filepath.WalkDir(dir, look); err != nil {
			t.Fatal(err)
		}
	}
	var entries []string
	for _, m := range regexp.MustCompile("(?m)^## `([a-z.]+)`").FindAllStringSubmatch(document(t, "runbook.md"), -1) {
		entries = append(entries, m[1])
	}
	slices.Sort(kinds)
	kinds = slices.Compact(kinds)
	if slices.Sort(entries); !slices.Equal(kinds, entries) {
		t.Errorf("the alarms are\n%q\nand in docs/runbook.md\n%q", kinds, entries)
	}
	for _, entry := range strings.Split(document(t, "runbook.md"), "\n## ")[1:] {
		for _, part := range []string{"**What it says.**", "**What it means.**", "**What to do.**"} {
			if strings.HasPrefix(entry, "`") && !strings.Contains(entry, part) {
				t.Errorf("%.30s lacks %s", entry, part)
			}
		}
	}
}

// TestAgentAlarmsInRunbook: the agent's own alarms are in the runbook, by the
// words that people see.
func TestAgentAlarmsInRunbook(t *testing.T) {
	runbook := document(t, "runbook.md")
	text, err := os.ReadFile("desired/judge.go")
	if err != nil {
		t.Fatal(err)
	}
	alarms := regexp.MustCompile(`\balarm\("([^"]+)"`).FindAllStringSubmatch(string(text), -1)
	if len(alarms) != 5 {
		t.Errorf("%d alarms", len(alarms))
	}
	for _, m := range alarms {
		pattern := regexp.MustCompile(`%[dsq]`).ReplaceAllString(strings.TrimSuffix(m[1], "%s"), "N")
		if !strings.Contains(strings.Join(strings.Fields(runbook), " "), pattern) {
			t.Errorf("docs/runbook.md lacks %q", pattern)
		}
	}
	fmt.Fprintln(t.Output(), len(alarms), "alarms of the agent")
}
