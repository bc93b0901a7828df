package nixos

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"narwharf/hooks/window"
)

func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section is what stands under a heading.
func section(t *testing.T, doc, heading string) string {
	t.Helper()
	_, s, ok := strings.Cut(doc, "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("there is no section %s", heading)
	}
	s, _, _ = strings.Cut(s, "\n## ")
	return s
}

func configKeys(of reflect.Type, prefix string) (keys []string) {
	for i := range of.NumField() {
		f := of.Field(i)
		name, ok := f.Tag.Lookup("toml")
		switch {
		case !ok:
		case f.Type.Kind() == reflect.Struct:
			keys = append(keys, configKeys(f.Type, prefix+name+".")...)
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct && f.Type.Elem() != reflect.TypeFor[window.Window]():
			keys = append(keys, "[["+prefix+name+"]]")
		default:
			keys = append(keys, prefix+name)
		}
	}
	return keys
}

// TestConfigurationInDocs: each key has its place in the first column of the
// table, and what stands there is a key.
func TestConfigurationInDocs(t *testing.T) {
	var documented []string
	for line := range strings.Lines(section(t, document(t, "agent.md"), "Configuration")) {
		if first, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " |"); ok && strings.HasPrefix(line, "| `") {
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(first, -1) {
				documented = append(documented, m[1])
			}
		}
	}
	keys := append(configKeys(reflect.TypeFor[Config](), ""), "store_root")
	slices.Sort(keys)
	keys = slices.DeleteFunc(slices.Compact(keys), func(k string) bool { return k == "store_root" }) // of tests alone
	slices.Sort(documented)
	if !slices.Equal(keys, documented) {
		t.Errorf("the keys are\n%q\nand in docs/agent.md\n%q", keys, documented)
	}
}

// TestRunbookHasTheAlarms: each event that the server raises as an alarm has an
// entry in docs/runbook.md, and each entry its event.
func TestRunbookHasTheAlarms(t *testing.T) {
	files, err := filepath.Glob("../hooks/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	var kinds []string
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		// The literal of an event ends before the next one begins.
		for _, event := range strings.Split(string(text), "api.Event{")[1:] {
			kind := regexp.MustCompile(`^\s*Kind:\s*"([a-z.]+)"`).FindStringSubmatch(event)
			event, _, _ = strings.Cut(event, "\n\n")
			if regexp.MustCompile(`\bAlarm:`).MatchString(event) {
				if kind == nil {
					t.Fatalf("%s: an alarm without a kind that can be read: %.80s", name, event)
				}
				kinds = append(kinds, kind[1])
			}
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
	text, err := os.ReadFile("consider.go")
	if err != nil {
		t.Fatal(err)
	}
	alarms := regexp.MustCompile(`m\.reject\(j, head\.Seq, fmt\.Sprintf\("([^"]+)"[^\n]*true\)|j\.Alarm = fmt\.Sprintf\("([^"]+)"`).FindAllStringSubmatch(string(text), -1)
	if len(alarms) != 4 {
		t.Errorf("%d alarms", len(alarms))
	}
	for _, m := range alarms {
		words := m[1] + m[2]
		pattern := regexp.MustCompile(`%[dsq]`).ReplaceAllString(words, "N")
		if !strings.Contains(strings.Join(strings.Fields(runbook), " "), pattern) {
			t.Errorf("docs/runbook.md lacks %q", pattern)
		}
	}
	fmt.Fprintln(t.Output(), len(alarms), "alarms of the agent")
}
