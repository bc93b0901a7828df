package nixos_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"narwharf/hooks/api"
	"narwharf/nixos/machine"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// testdata/before is what version 1 of the agent wrote and said, before there
// were reboots, hooks and directives: its journal in probation, the answer of
// its server, and its reports. It is frozen: hosts in the field keep theirs.

func before(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "before", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// subset says what of the fields of want is not in got, "" if all is.
func subset(at string, want, got any) string {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return at
		}
		for k, v := range w {
			if why := subset(at+"."+k, v, g[k]); why != "" {
				return why
			}
		}
		return ""
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return at
		}
		for i := range w {
			if why := subset(fmt.Sprintf("%s[%d]", at, i), w[i], g[i]); why != "" {
				return why
			}
		}
		return ""
	}
	if fmt.Sprint(want) != fmt.Sprint(got) {
		return fmt.Sprintf("%s: %v is %v", at, want, got)
	}
	return ""
}

func decoded(t *testing.T, text []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// tables are objects whose fields are data, and have one type.
var tables = []string{"durations_ms", "seen", "denied", "failing"}

// strange adds a field that nobody knows to every object.
func strange(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			strange(v[k])
			if t, ok := v[k].(map[string]any); ok && slices.Contains(tables, k) {
				delete(t, "of_a_later_version")
			}
		}
		v["of_a_later_version"] = map[string]any{"x": []any{1}}
	case []any:
		for i := range v {
			strange(v[i])
		}
	}
	return v
}

// keeps reads and writes a value of a type, and sees to it that nothing was
// lost, with and without fields of a later version.
func keeps[T any](t *testing.T, text []byte) *T {
	t.Helper()
	var plain *T
	for _, later := range []bool{false, true} {
		in := text
		if later {
			var err error
			if in, err = json.Marshal(strange(decoded(t, text))); err != nil {
				t.Fatal(err)
			}
		}
		v := new(T)
		if err := json.Unmarshal(in, v); err != nil {
			t.Fatalf("later fields %v: %v", later, err)
		}
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if why := subset("", decoded(t, text), decoded(t, out)); why != "" {
			t.Fatalf("later fields %v: lost %s", later, why)
		}
		plain = v
	}
	return plain
}

// TestReportsOfBefore: a server of now reads what an agent of before says, and
// one of before would read what is said now: the fields are there, with the
// same meaning.
func TestReportsOfBefore(t *testing.T) {
	n := 0
	for line := range bytes.Lines(before(t, "statuses.jsonl")) {
		s := keeps[api.Status](t, line)
		if why := sim.Nonsense(s); why != "" {
			t.Errorf("%s: %s", line, why)
		}
		n++
	}
	if n < 8 {
		t.Errorf("only %d reports", n)
	}
}

// ruled are the tests' rules with the key of before.
func ruled(t *testing.T, w *sim.World) machine.Rules {
	t.Helper()
	key, err := signing.ParsePublicKey(string(bytes.TrimSpace(before(t, "key.txt"))))
	if err != nil {
		t.Fatal(err)
	}
	r := w.Keys.Rules()
	r.Trust.Keys = append(r.Trust.Keys, key)
	return r
}

// TestAnswerOfBefore: an agent of now follows a server of before.
func TestAnswerOfBefore(t *testing.T) {
	w := world(t, sim.System{})
	w.Wants = keeps[api.Desired](t, before(t, "desired.json"))
	endsBy(t, w, ruled(t, w), api.OK, pathB)
	w = world(t, sim.System{Reboot: []string{"kernel"}})
	w.Wants = keeps[api.Desired](t, before(t, "desired.json"))
	endsBy(t, w, ruled(t, w), api.Armed, pathA) // it permits no reboot
}

// TestJournalOfBefore: an agent of now takes up what one of before had under
// way; nothing of it is done twice.
func TestJournalOfBefore(t *testing.T) {
	for _, later := range []bool{false, true} {
		for _, bad := range []bool{false, true} {
			w := world(t, sim.System{CheckFails: bad})
			w.Journal = before(t, "journal.json")
			if later { // and what a later one added without a new version
				text, err := json.Marshal(strange(decoded(t, w.Journal)))
				if err != nil {
					t.Fatal(err)
				}
				w.Journal = text
			}
			w.Wants = keeps[api.Desired](t, before(t, "desired.json"))
			w.HumanSwitch(pathB, false) // which was not a person, but that agent
			w.Roots["target"], w.Roots["previous"] = pathB, pathA
			state, current := api.OK, pathB
			runs := 1 // boot
			if bad {
				state, current = api.Reverted, pathA
			}
			w.Wants.Seq = 2
			j := endsBy(t, w, ruled(t, w), state, current)
			if w.Started() != runs || j.Attempt.Seq != 2 {
				t.Errorf("bad %v: %d runs, %+v", bad, w.Started(), j.Attempt)
			}
		}
	}
}
