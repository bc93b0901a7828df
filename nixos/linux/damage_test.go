package linux_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// lib is the narinfo that the cache has of a system's library.
func (f *field) lib(name string) *narinfo.Info {
	f.t.Helper()
	i, err := narinfo.Parse(f.files["/"+strings.Split(filepath.Base(sim.Path("lib-"+name)), "-")[0]+".narinfo"])
	if err != nil {
		f.t.Fatal(err)
	}
	return i
}

// TestBytesLostInAPowerCut: a path that Nix has for valid, fetched on a boot
// that ended in the middle of it, whose bytes never came to the disk.
func TestBytesLostInAPowerCut(t *testing.T) {
	parallel(t)
	for _, version := range nixVersions {
		alone(t, version, func(t *testing.T) {
			f := newField(t, version)
			a := f.system("a", "", true)
			f.promote(1, signing.Auto, a, f.lib("a"))
			if err := f.until(func(s api.State, _ string) bool { return s == api.Staging }); err != nil {
				t.Fatal(err)
			}
			f.turnUntilRealise()
			f.plant(a)
			// The power cut: the file is there, and empty; the boot is another.
			lost := filepath.Join(f.dir, "root", f.lib("a").Path.In(sim.StoreDir))
			if err := os.Chmod(lost, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(lost, 0); err != nil {
				t.Fatal(err)
			}
			journal := f.read("state/journal.json")
			boot := f.read("boot-id")
			if !strings.Contains(journal, `"unsynced_boot_id":"`+boot) {
				t.Fatalf("no unsynced paths in %s", journal)
			}
			f.write("state/journal.json", strings.ReplaceAll(journal, boot, "ffffffff-0000-0000-0000-000000000000"), 0o600)
			if j, s := f.once(); j.State != api.OK || s.Current != a.Path.In(sim.StoreDir) || len(j.Suspect) > 0 || len(j.Unsynced) > 0 {
				t.Fatalf("%s (%s), suspect %q", j.State, j.Error, j.Suspect)
			}
			if text, err := os.ReadFile(lost); err != nil || string(text) != "a" {
				t.Errorf("%q, %v", text, err)
			}
		})
	}
}

// turnUntilRealise runs an agent up to the download.
func (f *field) turnUntilRealise() {
	f.t.Helper()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		f.t.Fatal(err)
	}
	f.write("boot-id", strings.TrimSpace(string(boot)), 0o644)
	if strings.Contains(f.read("state/journal.json"), `"unsynced"`) {
		return
	}
	first := true
	if err := f.until(func(api.State, string) bool { defer func() { first = false }(); return first }); err != nil {
		f.t.Fatal(err)
	}
}

// TestRateWithRealNix: no Nix gets more than the rate, and all get all.
func TestRateWithRealNix(t *testing.T) {
	parallel(t)
	for _, version := range nixVersions {
		alone(t, version, func(t *testing.T) {
			f := newField(t, version)
			f.cfg.Download.Rate = 4 << 10
			a := f.system("a", "", true)
			f.promote(1, signing.Auto, a, f.lib("a"))
			began := time.Now()
			j, _ := f.once()
			if j.State != api.OK {
				t.Fatalf("%s: %s", j.State, j.Error)
			}
			least := time.Duration(j.Attempt.Fetched) * time.Second / (4 << 10)
			if took := time.Since(began); j.Attempt.Fetched == 0 || took < least {
				t.Errorf("%d bytes within %v, which should take %v", j.Attempt.Fetched, took, least)
			}
		})
	}
}
