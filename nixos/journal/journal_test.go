package journal

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"narwharf/hooks/api"
)

// TestDelivered: what the agent of the last delivery wrote is read, and written
// byte for byte as that one wrote it. So it reads what this one writes.
func TestDelivered(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		j, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := string(j.Text()); got != string(text) {
			t.Errorf("%s is written as\n%s, and was\n%s", name, got, text)
		}
		if got := string(j.Clone().Text()); got != string(text) {
			t.Errorf("the copy of %s is written as\n%s, and was\n%s", name, got, text)
		}
	}
}

// TestDeliveredHasEveryField: testdata/every-field.json has each field of a
// journal and an attempt, and nothing else.
func TestDeliveredHasEveryField(t *testing.T) {
	text, err := os.ReadFile("testdata/every-field.json")
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	var j Journal
	if err := d.Decode(&j); err != nil {
		t.Fatal(err)
	}
	var empty func(v reflect.Value, name string)
	empty = func(v reflect.Value, name string) {
		if v.IsZero() {
			t.Errorf("%s is in no journal of testdata", name)
		}
		if v.Kind() == reflect.Struct {
			for i := range v.NumField() {
				empty(v.Field(i), name+"."+v.Type().Field(i).Name)
			}
		}
	}
	empty(reflect.ValueOf(j), "Journal")
	empty(reflect.ValueOf(*j.Attempt), "Attempt")
}

// TestClone: a copy shares nothing that can be changed in it. What a step
// replaces as a whole is shared.
func TestClone(t *testing.T) {
	text, err := os.ReadFile("testdata/every-field.json")
	if err != nil {
		t.Fatal(err)
	}
	j, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	replaced := []string{"Keys", "Pointer", "Desired", "WaitingFor", "SwitchExit"}
	var shares func(a, b reflect.Value, name string)
	shares = func(a, b reflect.Value, name string) {
		switch a.Kind() {
		case reflect.Struct:
			for i := range a.NumField() {
				shares(a.Field(i), b.Field(i), a.Type().Field(i).Name)
			}
		case reflect.Map, reflect.Slice, reflect.Pointer:
			if a.Pointer() == b.Pointer() && !slices.Contains(replaced, name) {
				t.Errorf("%s is shared", name)
			}
		}
	}
	c := j.Clone()
	shares(reflect.ValueOf(*j), reflect.ValueOf(*c), "Journal")
	shares(reflect.ValueOf(*j.Attempt), reflect.ValueOf(*c.Attempt), "Attempt")
}

// TestHear: what an answer had and the next one had not was let go, until it comes again.
func TestHear(t *testing.T) {
	var j Journal
	for i, step := range []struct{ grant, want string }{{"", ""}, {"a", ""}, {"a", ""}, {"", "a"}, {"", "a"}, {"b", "a"}, {"a", "b"}, {"b", "a"}, {"", "b"}, {"b", ""}, {"-", ""}} {
		var d *api.Desired
		if step.grant != "-" {
			d = new(api.Desired)
		}
		if d != nil && step.grant != "" {
			d.Grant = &api.Grant{ID: step.grant}
		}
		if j.Hear(d, "", 0, ""); j.LetGo != step.want {
			t.Errorf("after answer %d it let go of %q, not %q", i+1, j.LetGo, step.want)
		}
	}
}
