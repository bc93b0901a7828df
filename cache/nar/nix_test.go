package nar

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// missing skips the test for want of what, which in CI must be there.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("NARWHARF_CI") == "1" {
		t.Fatalf("%s is missing, and NARWHARF_CI=1 wants every test run", what)
	}
	t.Skipf("skipped: %s is missing", what)
}

// nix runs real Nix with a store, state and home of its own.
type nix struct {
	dir string // of the wrappers
	env []string
}

// realNix finds the clients under $NARWHARF_NIX_DIR (bin/nix-2.34, bin/nix-store-2.34, …).
func realNix(t *testing.T) *nix {
	t.Helper()
	dir := os.Getenv("NARWHARF_NIX_DIR")
	if _, err := os.Stat(filepath.Join(dir, "bin", "nix-store-2.34")); dir == "" || err != nil {
		missing(t, "real Nix (a directory of clients in NARWHARF_NIX_DIR)")
	}
	tmp := t.TempDir()
	n := &nix{dir: dir, env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + tmp, "XDG_CACHE_HOME=" + tmp + "/cache",
		"NIX_CONFIG=build-users-group =\nsandbox = false\nsubstituters =\nexperimental-features = nix-command ca-derivations\n"}}
	for _, v := range []string{"STORE", "STATE", "LOG", "CONF", "LOCALSTATE", "DATA"} {
		n.env = append(n.env, "NIX_"+v+"_DIR="+tmp+"/"+strings.ToLower(v))
	}
	return n
}

func (n *nix) run(program string, stdin io.Reader, args ...string) ([]byte, error) {
	cmd := exec.Command(filepath.Join(n.dir, "bin", program), args...)
	var out, errs bytes.Buffer
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = n.env, stdin, &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, errs.Bytes())
	}
	return out.Bytes(), nil
}

// Check and nix-store --restore agree on what is a NAR, over good ones with one thing changed.
// (Nix does not look at what follows, so nothing is added at the end.)
func TestCheckAgreesWithNix(t *testing.T) {
	nix := realNix(t)
	random := rand.New(rand.NewPCG(1, 2))
	rounds := 150
	if testing.Short() {
		rounds = 20
	}
	var good, bad int
	for i := 0; i < rounds; i++ {
		b := mutate(random, trees().Example(i%37))
		size, ours := Check(bytes.NewReader(b))
		if ours != nil && strings.Contains(ours.Error(), "the input goes on") {
			continue
		}
		dst := filepath.Join(t.TempDir(), "dst")
		_, theirs := nix.run("nix-store-2.34", bytes.NewReader(b), "--restore", dst)
		if (ours == nil) != (theirs == nil) {
			t.Errorf("round %d: ours %v, theirs %v\n%q", i, ours, theirs, b[:min(len(b), 4000)])
		}
		if ours != nil {
			bad++
			continue
		}
		good++
		if again, err := nix.run("nix-store-2.34", nil, "--dump", dst); err != nil || !bytes.Equal(again, b) || size != int64(len(b)) {
			t.Errorf("round %d: what nix-store --restore makes differs (%v)", i, err)
		}
	}
	t.Logf("%d NARs good to both, %d bad", good, bad)
	if good == 0 || bad == 0 {
		t.Error("all of one kind: nothing was compared")
	}
}

func TestNixRefusesTheMalformed(t *testing.T) {
	nix := realNix(t)
	for _, tt := range malformeds() {
		b := spell(tt.parts...)
		_, err := nix.run("nix-store-2.34", bytes.NewReader(b), "--restore", filepath.Join(t.TempDir(), "dst"))
		if (err == nil) != tt.nixTakes {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	for depth, want := range map[int]bool{MaxDepth - 1: true, MaxDepth: false} {
		b := spell(nestedDirs(depth)...)
		_, err := nix.run("nix-store-2.34", bytes.NewReader(b), "--restore", filepath.Join(t.TempDir(), "dst"))
		if (err == nil) != want {
			t.Errorf("%d directories deep: %v", depth, err)
		}
	}
}

// The listing is the one that nix copy uploads.
func TestListingEqualsNix(t *testing.T) {
	nix := realNix(t)
	files := zoo()
	for i := 0; i < len(files); i++ { // JSON cannot hold these, and Nix dies of them
		if f := files[i]; strings.Contains(f.Path+f.Target, "\xff") {
			files = append(files[:i], files[i+1:]...)
			i--
		}
	}
	root := filepath.Join(t.TempDir(), "zoo")
	b := write(t, files...)
	if _, err := nix.run("nix-store-2.34", bytes.NewReader(b), "--restore", root); err != nil {
		t.Fatal(err)
	}
	list, err := List(bytes.NewReader(b), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := list.AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"2.8", "2.26", "2.34"} {
		// in a store of its own: the databases of newer versions cannot be read by older ones
		nix := *nix
		nix.env = append(slices.Clip(nix.env), "NIX_STATE_DIR="+t.TempDir())
		path, err := nix.run("nix-store-"+version, nil, "--add", root)
		if err != nil {
			t.Fatal(err)
		}
		cache := t.TempDir()
		if _, err := nix.run("nix-"+version, nil, "copy", "--to", "file://"+cache+"?write-nar-listing=1&compression=none", strings.TrimSpace(string(path))); err != nil {
			t.Fatal(err)
		}
		found, err := filepath.Glob(cache + "/*.ls")
		if err != nil || len(found) != 1 {
			t.Fatalf("nix-%s wrote %v (%v)", version, found, err)
		}
		theirs, err := os.ReadFile(found[0])
		if err != nil {
			t.Fatal(err)
		}
		var a, b any
		if err := json.Unmarshal(ours, &a); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(theirs, &b); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(a, b) {
			t.Errorf("nix-%s has another listing", version)
		}
		if version != "2.8" && !bytes.Equal(ours, theirs) {
			t.Errorf("nix-%s has the listing in other bytes", version)
		}
		parsed, err := ParseListing(theirs)
		if err != nil || !reflect.DeepEqual(parsed, list) {
			t.Errorf("the listing of nix-%s is not what List says (%v)", version, err)
		}
	}
}
