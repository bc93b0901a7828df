package linux_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

func TestFieldWithRealNix(t *testing.T) {
	parallel(t)
	for _, version := range nixVersions {
		alone(t, version, func(t *testing.T) {
			f := newField(t, version)
			lib := func(name string) *narinfo.Info {
				i, err := narinfo.Parse(f.files["/"+strings.Split(filepath.Base(sim.Path("lib-"+name)), "-")[0]+".narinfo"])
				if err != nil {
					t.Fatal(err)
				}
				return i
			}
			a := f.system("a", "", true)
			f.promote(1, signing.Auto, a, lib("a"))
			j, s := f.once()
			if j.State != api.OK || s.State != api.OK || s.Current != a.Path.In(sim.StoreDir) || s.Profile != s.Current || s.Confirm == "" || s.CurrentGeneration != 1 {
				t.Fatalf("%s (%s), reported %+v", j.State, j.Error, s)
			}
			if f.read("boot-entry") != s.Current || len(f.logs) != 1 || !strings.Contains(f.logs[0], "a test\n") || !strings.Contains(f.logs[0], "a boot\n") {
				t.Errorf("boots %s, logs %q", f.read("boot-entry"), f.logs)
			}

			b := f.system("b", "", true)
			f.promote(2, signing.Switch, b, lib("b"))
			if j, s = f.once(); j.State != api.OK || s.CurrentGeneration != 2 || s.Previous != a.Path.In(sim.StoreDir) {
				t.Fatalf("%s (%s), reported %+v", j.State, j.Error, s)
			}

			// One that fails: back on b, and everything that may be needed
			// survives the garbage collector.
			c := f.system("c", "exit 2;", true)
			f.promote(3, signing.Auto, c, lib("c"))
			if j, s = f.once(); j.State != api.Reverted || s.Current != b.Path.In(sim.StoreDir) || s.SwitchExit == nil || *s.SwitchExit != 2 || f.read("boot-entry") != s.Current || !strings.Contains(s.Error, "exited with 2 (c test)") {
				t.Fatalf("%s (%s), reported %+v", j.State, j.Error, s)
			}
			if out, err := exec.Command("nix-store", "--gc").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, i := range []*narinfo.Info{a, b, lib("b"), c} {
				if !f.valid(i) {
					t.Errorf("%s is gone", i.Path)
				}
			}

			// Back to an old one; nothing to fetch, nothing to ask.
			f.promote(4, signing.Auto, a, lib("a"))
			if j, s = f.once(); j.State != api.OK || s.Current != a.Path.In(sim.StoreDir) || s.Fetched != 0 {
				t.Fatalf("%s (%s), reported %+v", j.State, j.Error, s)
			}
		})
	}
}

// stageFails runs an agent to its first failed staging.
func stageFails(t *testing.T, f *field) string {
	t.Helper()
	words := ""
	err := f.until(func(state api.State, text string) bool {
		if state == api.StageFailed || state == api.Rejected {
			words = string(state) + ": " + text
			return true
		}
		return state.Final()
	})
	if err != nil || words == "" {
		t.Fatalf("staging did not fail: %v", err)
	}
	return words
}

func TestLiesOfTheCache(t *testing.T) {
	parallel(t)
	for _, version := range nixVersions {
		alone(t, version, func(t *testing.T) {
			f := newField(t, version)
			a := f.system("a", "", false) // nobody signed it
			lib := f.add("lib-a", filepath.Join(f.dir, "build-a", "nixos-version"), nil, true)
			f.promote(1, signing.Auto, a, lib)
			if words := stageFails(t, f); !strings.Contains(words, "signature") && !strings.Contains(words, "not signed") {
				t.Errorf("unsigned: %s", words)
			}
			if f.valid(a) {
				t.Error("an unsigned path is valid")
			}
			// The cache has other bytes than the promoter signed: found out
			// before a byte is fetched.
			good := f.system("a", "", true)
			f.promote(2, signing.Auto, good, lib)
			f.write("build-a/nixos-version", "evil", 0o644)
			evil := f.add("nixos-system-a", filepath.Join(f.dir, "build-a"), []narinfo.Path{lib.Path}, true)
			if words := stageFails(t, f); !strings.Contains(words, "nothing was fetched") {
				t.Errorf("other bytes: %s", words)
			}
			// The cache is cleaned: the host converges.
			f.write("build-a/nixos-version", "a", 0o644)
			f.add("nixos-system-a", filepath.Join(f.dir, "build-a"), []narinfo.Path{lib.Path}, true)
			if j, _ := f.once(); j.State != api.OK || f.valid(evil) != f.valid(good) {
				t.Fatalf("%s: %s", j.State, j.Error)
			}
		})
	}
}
