package signing

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestNewReleaseSorts(t *testing.T) {
	a := testRelease(t, []string{alice}, "a", "B", "role:web", "z")
	b := testRelease(t, []string{alice}, "z", "role:web", "a", "B")
	if !bytes.Equal(mustJSON(t, a), mustJSON(t, b)) || !a.Same(b) {
		t.Error("the order of the entries shows in the release")
	}
	_, entries, err := a.Check()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"B", "a", "role:web", "z"} {
		if entries[i].Target != want {
			t.Errorf("entry %d is for %s, not %s", i, entries[i].Target, want)
		}
		if at, ok := Find(entries, want); !ok || at != i {
			t.Errorf("%s was found at %d, %v", want, at, ok)
		}
	}
	for _, absent := range []string{"", "A", "b", "*", "role:web2", "zz"} {
		if at, ok := Find(entries, absent); ok {
			t.Errorf("%q was found at %d", absent, at)
		}
	}
	everyone := []Entry{testEntry(t, "*")}
	if at, ok := Find(everyone, "anybody"); !ok || at != 0 {
		t.Error("nobody was found in a release for everyone")
	}
	if _, ok := Find(nil, "a"); ok {
		t.Error("found in nothing")
	}
}

func TestNewReleaseRefuses(t *testing.T) {
	entry := func(change func(e *Entry)) Entry {
		e := testEntry(t, "a")
		change(&e)
		return e
	}
	for name, v := range map[string]struct {
		entries []Entry
		says    string
	}{
		"none":           {nil, "0 entries"},
		"too many":       {make([]Entry, MaxTargets+1), "entry of"},
		"twice":          {[]Entry{testEntry(t, "a"), testEntry(t, "a")}, "twice or out of order"},
		"* and another":  {[]Entry{testEntry(t, "a"), testEntry(t, "*")}, "must be the only one"},
		"* twice":        {[]Entry{testEntry(t, "*"), testEntry(t, "*")}, "must be the only one"},
		"no action":      {[]Entry{entry(func(e *Entry) { e.Action = "" })}, "action"},
		"no closure":     {[]Entry{entry(func(e *Entry) { e.Closure = Digest{} })}, "closure is missing"},
		"not UTF-8":      {[]Entry{entry(func(e *Entry) { e.StorePath = "/\xff" + e.StorePath })}, "cannot be a store directory"},
		"bad store path": {[]Entry{entry(func(e *Entry) { e.StorePath = "/nix/store/x" })}, "store_path"},
	} {
		_, err := NewRelease(testHead(), v.entries)
		wantError(t, name, err, v.says)
	}
	_, err := SealRelease(testHead(), make([][]byte, MaxTargets+1))
	wantError(t, "too many leaves", err, "100001 entries")
	_, err = SealRelease(testHead(), [][]byte{[]byte("{}")})
	wantError(t, "bad bytes", err, "target is missing")
	_, err = NewRelease(testHead(), []Entry{testEntry(t, "a")}, keyFrom(t, alice, "älice"))
	wantError(t, "a key that no envelope can name", err, "visible ASCII")
}

// Entries that are taken over keep their bytes, and what we cannot read in them.
func TestSealReleaseKeepsBytes(t *testing.T) {
	old := edit(t, testRelease(t, nil, "a").Entries[0], `{"target"`, ` {"later" : true, "target"`)
	fresh := testRelease(t, nil, "B").Entries[0]
	raw := [][]byte{old, fresh}
	r, err := SealRelease(testHead(), raw)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(r.Entries[1], old) || !bytes.Equal(r.Entries[0], fresh) {
		t.Errorf("entries %q", r.Entries)
	}
	if !bytes.Equal(raw[0], old) {
		t.Error("the caller's slice was sorted")
	}
	if _, _, err := r.Check(); err != nil {
		t.Error(err)
	}
}

func TestSame(t *testing.T) {
	a, b := testRelease(t, []string{alice}, "a"), testRelease(t, []string{bob}, "a")
	if !a.Same(b) || a.Same(testRelease(t, nil, "b")) || a.Same(&Release{}) || (&Release{}).Same(a) || (&Release{}).Same(&Release{}) {
		t.Error("Same is wrong")
	}
}

// hooks and the command line embed a Release in larger objects.
func TestReleaseInOtherJSON(t *testing.T) {
	type outer struct {
		*Release
		Kind string `json:"kind"`
	}
	r := testRelease(t, []string{alice}, "a", "b")
	text := mustJSON(t, outer{r, "nixos"})
	var in outer
	if err := json.Unmarshal(text, &in); err != nil {
		t.Fatal(err)
	}
	if in.Kind != "nixos" || in.Release == nil || !in.Same(r) || len(in.Entries) != 2 {
		t.Errorf("%s was read as %+v", text, in)
	}
	if _, _, err := in.Check(); err != nil {
		t.Error(err)
	}
	if bytes.Contains(text, []byte("merkle")) {
		t.Errorf("the tree is in the JSON: %s", text)
	}
}

func TestLeavesLimit(t *testing.T) {
	text := append(bytes.Repeat([]byte(`"",`), MaxTargets), `""]`...)
	var l Leaves
	wantError(t, "too many", json.Unmarshal(append([]byte("["), text...), &l), "more than 100000")
	if l != nil {
		t.Error("a failed read left something")
	}
}

// genTargets are distinct targets, in any order.
func genTargets(r *rapid.T) []string {
	list := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-zA-Z0-9][a-zA-Z0-9._:-]{0,5}`), 1, 40, rapid.ID[string]).Draw(r, "targets")
	return rapid.Permutation(list).Draw(r, "order")
}

// Each host gets its own entry and no other host's, through JSON and back.
func TestReleaseProperties(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		targets := genTargets(r)
		entries := make([]Entry, len(targets))
		want := make(map[string]Entry)
		for i, name := range targets {
			e := Entry{
				Target: name, StorePath: testPath(fmt.Sprint("system-", i)).In("/nix/store"), Closure: Digest{byte(i + 1)},
				System: "x86_64-linux", Action: rapid.SampledFrom(Actions).Draw(r, "action"),
			}
			entries[i], want[name] = e, e
		}
		made, err := NewRelease(testHead(), entries, testKey(t, alice), testKey(t, carol))
		if err != nil {
			r.Fatal(err)
		}
		release := new(Release)
		if err := json.Unmarshal(mustJSON(t, made), release); err != nil {
			r.Fatal(err)
		}
		_, checked, err := release.Check()
		if err != nil {
			r.Fatal(err)
		}
		if !slices.IsSortedFunc(checked, func(a, b Entry) int { return bytes.Compare([]byte(a.Target), []byte(b.Target)) }) {
			r.Fatal("not sorted")
		}
		other := rapid.SampledFrom(targets).Draw(r, "another host")
		for _, name := range targets {
			i, ok := Find(checked, name)
			if !ok {
				r.Fatalf("%s is not there", name)
			}
			p := new(Pointer)
			if err := json.Unmarshal(mustJSON(t, testPointer(t, release, i)), p); err != nil {
				r.Fatal(err)
			}
			head, entry, err := p.Verify(testTrust(t, name))
			if err != nil || *entry != want[name] || head.Targets.Count != int64(len(targets)) {
				r.Fatalf("%s: %+v, %v", name, entry, err)
			}
			if _, _, err := p.Verify(testTrust(t, other)); err == nil && other != name {
				r.Fatalf("%s took what is for %s", other, name)
			}
			p.Index = rapid.Int64Range(-1, int64(len(targets))).Draw(r, "index")
			if _, _, err := p.Verify(testTrust(t, name)); (err == nil) != (p.Index == int64(i)) {
				r.Fatalf("%s is %d, and with %d: %v", name, i, p.Index, err)
			}
		}
	})
}

func BenchmarkNewRelease(b *testing.B) {
	for _, n := range []int{1, 1000, MaxTargets} {
		entries := manyEntries(b, n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if _, err := NewRelease(testHead(), entries, testKey(b, alice)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReleaseCheck(b *testing.B) {
	for _, n := range []int{1, 1000, MaxTargets} {
		release, err := NewRelease(testHead(), manyEntries(b, n))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if _, _, err := release.Check(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func manyEntries(b *testing.B, n int) []Entry {
	e := testEntry(b, "db-1")
	entries := make([]Entry, n)
	for i, target := range manyTargets(n) {
		entries[i] = e
		entries[i].Target = target
	}
	return entries
}
