package signing

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestEntryPath(t *testing.T) {
	for _, dir := range []string{"/nix/store", "/s", "/srv/nix-2.x/store", "/home/me/.local/share/nix/root/nix/store"} {
		e := testEntry(t, "db-1")
		want, err := e.Path()
		if err != nil {
			t.Fatal(err)
		}
		e.StorePath = want.In(dir)
		if got, err := e.Path(); err != nil || got != want || e.StoreDir() != dir {
			t.Errorf("%s: %s in %s, %v", e.StorePath, got, e.StoreDir(), err)
		}
	}
	if dir := (&Entry{StorePath: "x"}).StoreDir(); dir != "" {
		t.Errorf("the store directory of no path is %q", dir)
	}
}

func TestCheckTarget(t *testing.T) {
	for _, name := range []string{"*", "a", "DB-1", "db-1.example.org", "role:web", "0", "a_b"} {
		if err := CheckTarget(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "**", "a*", "-a", ".a", ":a", "_a", "a/b", "a b", "a\n", "ä", "\xff", strings.Repeat("a", 128)} {
		wantError(t, name, CheckTarget(name), "is not a target")
	}
}

func TestCheckChannel(t *testing.T) {
	for _, name := range []string{"a", "prod", "web.eu-1_b", "0"} {
		if err := CheckChannel(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "Prod", "*", ".", "..", "-a", "a/b", "a\n", "ä", strings.Repeat("a", 64)} {
		wantError(t, name, CheckChannel(name), "is not a channel name")
	}
}

func FuzzParseEntry(f *testing.F) {
	for _, tc := range allCases(f) {
		if tc.what == "entry" {
			f.Add(tc.text)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := ParseEntry(raw)
		if err != nil {
			return
		}
		again, err := ParseEntry(mustJSON(t, e))
		if err != nil || *again != *e {
			t.Fatalf("%q was read as %+v and printed as %s (%v)", raw, e, mustJSON(t, e), err)
		}
		var other Entry
		if err := json.Unmarshal(raw, &other); err != nil || other != *e {
			t.Fatalf("%q is %+v, to others %+v (%v)", raw, e, other, err)
		}
		path, err := e.Path()
		if err != nil || path.In(e.StoreDir()) != e.StorePath || strings.ContainsAny(e.StorePath, ";, \n") || !strings.HasPrefix(e.StorePath, "/") {
			t.Fatalf("store path %q: %v", e.StorePath, err)
		}
	})
}
