//go:build linux

package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A nixClient is one version of stock Nix with a home of its own. It works on
// the store below root and never on the machine's.
type nixClient struct {
	version string
	dir     string // of its programs, named nix-VERSION and so on
	home    string
	root    string // its store is below
	env     []string
}

// findNix finds the clients that .ci/nix-clients brings, oldest first.
func findNix(home, root string) ([]*nixClient, error) {
	dir := cmp.Or(os.Getenv("NARWHARF_NIX_DIR"), filepath.Join(".cache", "nix"))
	dir, err := filepath.Abs(filepath.Join(dir, "bin"))
	if err != nil {
		return nil, err
	}
	var found []*nixClient
	names, _ := filepath.Glob(filepath.Join(dir, "nix-store-[0-9]*")) // the pattern is well-formed
	for _, name := range names {
		n := &nixClient{version: strings.TrimPrefix(filepath.Base(name), "nix-store-"), dir: dir}
		found = append(found, n.at(home, root))
	}
	if len(found) == 0 {
		return nil, errors.New("no Nix in " + dir + ", and the rows of a local store need one: run make nix-clients, or name the other sections with -only")
	}
	slices.SortFunc(found, func(a, b *nixClient) int { return slices.Compare(a.numbers(), b.numbers()) })
	return found, os.MkdirAll(home, 0o755)
}

// at is the same program with another home, and another store below root.
func (n *nixClient) at(home, root string) *nixClient {
	return &nixClient{version: n.version, dir: n.dir, home: home, root: root, env: []string{
		"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "HOME=" + home, "XDG_CACHE_HOME=" + filepath.Join(home, "cache-"+n.version),
		"NIX_REMOTE=local?root=" + root, "NIX_CONF_DIR=" + home, "NIX_USER_CONF_FILES=/dev/null",
		"NIX_STATE_DIR=" + filepath.Join(home, "state"), "NIX_LOG_DIR=" + filepath.Join(home, "log"),
		"NIX_CONFIG=experimental-features = nix-command\nsubstituters =\nbuild-users-group =",
	}}
}

// store is the URL of its store.
func (n *nixClient) store() string { return "local?root=" + n.root }

// numbers are those of the version, in which 2.34 comes after 2.8.
func (n *nixClient) numbers() (out []int) {
	for part := range strings.SplitSeq(n.version, ".") {
		v, _ := strconv.Atoi(part) // what is no number comes first
		out = append(out, v)
	}
	return out
}

func (n *nixClient) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(n.dir, program+"-"+n.version), args...)
	cmd.Env = n.env
	return cmd
}

func (n *nixClient) run(program string, args ...string) error {
	if out, err := n.command(program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s of Nix %s: %w\n%s", program, n.version, err, out[max(0, len(out)-4000):])
	}
	return nil
}

// dump is `nix-store --dump path | cat > /dev/null`: how long it took, with
// the start of both programs, and the CPU time of nix-store.
func (n *nixClient) dump(path string) (wall, cpu time.Duration, err error) {
	cmd, cat := n.command("nix-store", "--dump", path), exec.Command("cat")
	var said bytes.Buffer
	cmd.Stderr = &said
	if cat.Stdin, err = cmd.StdoutPipe(); err != nil { // an *os.File: cat reads the pipe itself
		return 0, 0, err
	}
	began := time.Now()
	if err := errors.Join(cat.Start(), cmd.Start()); err != nil {
		return 0, 0, err
	}
	err = errors.Join(cat.Wait(), cmd.Wait())
	if err != nil {
		return 0, 0, fmt.Errorf("nix-store --dump %s with Nix %s: %w\n%s", path, n.version, err, &said)
	}
	return time.Since(began), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}
