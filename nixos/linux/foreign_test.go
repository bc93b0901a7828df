package linux_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/nixos"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// plant makes a path valid with the bytes that the cache has for it now.
func (f *field) plant(i *narinfo.Info) {
	f.t.Helper()
	host := strings.Split(strings.TrimPrefix(f.server.URL, "http://"), ":")[0]
	f.write("netrc", "machine "+host+"\nlogin x\npassword y\n", 0o600)
	out, err := exec.Command("nix-store", "--realise", i.Path.In(sim.StoreDir), "--option", "substituters", f.server.URL,
		"--option", "require-sigs", "false", "--option", "netrc-file", filepath.Join(f.dir, "netrc")).CombinedOutput()
	if err != nil {
		f.t.Fatalf("%v: %s", err, out)
	}
}

// version is a system a with a text of its own; only the signature differs
// otherwise.
func (f *field) version(text string, signed bool) (a, lib *narinfo.Info) {
	f.t.Helper()
	f.system("a", "", true)
	f.write("build-a/nixos-version", text, 0o644)
	lib = f.add("lib-a", filepath.Join(f.dir, "build-a", "nixos-version"), nil, signed)
	return f.add("nixos-system-a", filepath.Join(f.dir, "build-a"), []narinfo.Path{lib.Path}, signed), lib
}

func TestForeignPaths(t *testing.T) {
	parallel(t)
	for _, version := range nixVersions {
		for _, c := range []struct {
			foreign nixos.Foreign
			signed  bool
			state   api.State
		}{
			{nixos.ForeignSigned, true, api.OK},
			{nixos.ForeignSigned, false, api.Rejected},
			{nixos.ForeignExact, true, api.Rejected},
		} {
			alone(t, fmt.Sprintf("%s/%s/signed=%v", version, c.foreign, c.signed), func(t *testing.T) {
				f := newField(t, version)
				f.cfg.Foreign = c.foreign
				other, otherLib := f.version("other", c.signed)
				f.plant(other)
				a, lib := f.version("release", true)
				f.promote(1, signing.Auto, a, lib)
				j, s := f.once()
				want := []string{a.Path.In(sim.StoreDir), lib.Path.In(sim.StoreDir)}
				slices.Sort(want)
				got := slices.Clone(s.Differs)
				slices.Sort(got)
				if j.State != c.state || !slices.Equal(got, want) {
					t.Fatalf("%s (%s), differs %q", j.State, j.Error, s.Differs)
				}
				if c.state != api.OK {
					if !strings.Contains(j.Error, "nix-store --delete") || f.read("run/current-system") != "" {
						t.Errorf("%q, current %q", j.Error, f.read("run/current-system"))
					}
					// Hands off: they are the ones of before.
					if !f.valid(other) || !f.valid(otherLib) {
						t.Error("what was here before is gone")
					}
				}
			})
		}
	}
}

// TestPoisonedDownload: a cache that shows the agent the right narinfo, and its relay
// another one with a good signature (a stolen content key). Nothing of it becomes
// valid, and the host converges when that is over.
func TestPoisonedDownload(t *testing.T) {
	parallel(t)
	for _, version := range nixVersions {
		alone(t, version, func(t *testing.T) {
			f := newField(t, version)
			evil, evilLib := f.version("evil", true)
			shadow := make(map[string][]byte) // what Nix is shown
			for _, i := range []*narinfo.Info{evil, evilLib} {
				i.URL = "evil/" + i.Path.Hash() + ".nar"
				shadow["/"+i.Path.Hash()+".narinfo"] = i.Append(nil)
				f.put("/"+i.URL, f.files["/nar/"+i.Path.Hash()+".nar"])
			}
			a, lib := f.version("good", true)
			f.promote(1, signing.Auto, a, lib)
			poison := true
			f.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if text, ok := shadow[r.URL.Path]; ok && poison && strings.Contains(r.UserAgent(), "relay") {
					_, _ = w.Write(text)
					return
				}
				f.ServeHTTP(w, r)
			})
			if words := stageFails(t, f); !strings.Contains(words, "other bytes for ") || !strings.Contains(words, " than the promoter signed") {
				t.Fatal(words)
			}
			if f.valid(evil) || f.valid(evilLib) {
				t.Error("poisoned bytes are valid")
			}
			if _, err := os.Lstat(filepath.Join(f.dir, "state/gcroots/target")); err == nil {
				t.Error("a root protects what was deleted")
			}
			poison = false
			if j, s := f.once(); j.State != api.OK || s.Current != a.Path.In(sim.StoreDir) {
				t.Fatalf("%s: %s", j.State, j.Error)
			}
		})
	}
}
