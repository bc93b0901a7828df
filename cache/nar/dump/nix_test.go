package dump

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
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

// Dump is what nix-store --dump prints, and Nix takes what Dump prints.
func TestDumpEqualsNix(t *testing.T) {
	nix := realNix(t)
	compare := func(name string, files []file) {
		tmp := t.TempDir()
		root, back := tmp+"/root", tmp+"/back"
		plant(t, root, files...)
		got, err := dump(root)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, program := range []string{"nix-store-2.8", "nix-store-2.26", "nix-store-2.34"} {
			want, err := nix.run(program, nil, "--dump", root)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("%s: %s --dump differs", name, program)
			}
		}
		if _, err := nix.run("nix-store-2.34", bytes.NewReader(got), "--restore", back); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		again, err := dump(back)
		if err != nil || !bytes.Equal(again, got) {
			t.Fatalf("%s: what nix-store --restore makes differs (%v)", name, err)
		}
	}
	for name, files := range samples() {
		compare(name, files)
	}
	// rapid.Check would take minutes: each round is four processes
	rounds := 10
	if testing.Short() {
		rounds = 2
	}
	for seed := range rounds {
		compare(fmt.Sprint("random tree ", seed), trees().Example(seed))
	}
}

// So it is for every path of the closures that the tests of e2e work with, at any range.
func TestClosuresEqualNix(t *testing.T) {
	nix := realNix(t)
	random := rand.New(rand.NewPCG(5, 6))
	size, files := "20", "20000"
	if testing.Short() {
		size, files = "10", "2000"
	}
	args := []string{"--no-out-link", "../../../e2e/closures.nix", "--arg", "sizeMB", size, "--arg", "files", files}
	for _, name := range strings.Fields("a selfref wide multi multi.dev multi.doc dbg dbg.debug fod caC caB caMulti caMulti.dev caUser zoo latin singleFile singleExe singleLink many random compressible") {
		args = append(args, "-A", name)
	}
	built, err := nix.run("nix-build-2.34", nil, args...)
	if err != nil {
		t.Fatal(err)
	}
	closure, err := nix.run("nix-store-2.34", nil, append([]string{"-qR"}, strings.Fields(string(built))...)...)
	if err != nil {
		t.Fatal(err)
	}
	paths := strings.Fields(string(closure))
	if len(paths) < 80 {
		t.Fatalf("a closure of %d paths only: %q", len(paths), paths)
	}
	for i, root := range paths {
		program := []string{"nix-store-2.34", "nix-store-2.26", "nix-store-2.8"}[i%3]
		want, err := nix.run(program, nil, "--dump", root)
		if err != nil {
			t.Fatal(err)
		}
		got, err := dump(root)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %s --dump differs (%v)", root, program, err)
		}
		ranges := [][2]int64{{0, int64(len(want))}}
		for range 10 {
			from := random.Int64N(int64(len(want)))
			ranges = append(ranges, [2]int64{from, from + random.Int64N(int64(len(want))-from+1)})
		}
		checkTree(t, root, want, ranges)
	}
}
