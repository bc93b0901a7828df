package e2e

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"narwharf/e2e/repository"
)

// Closures are the paths of closures.nix, built by one suite's Nix in a store of their own. The
// store is shared by all tests of the suite: they copy from it and never change it.
type Closures struct {
	T     testing.TB
	Suite string
	Root  string // store root, for [Nix.In]
	paths map[string]string
}

// NeedClosures gives the closures of a suite, built at the first call (about ten seconds) and kept
// below .cache/closures for the next run.
func NeedClosures(t testing.TB, suite string) *Closures {
	t.Helper()
	version := nixVersion(t, suite)
	needNamespace(t)
	needTool(t, "openssl", "openssl")
	built, _ := closureBuilds.LoadOrStore(suite, &closureBuild{})
	b := built.(*closureBuild)
	b.once.Do(func() { b.dir, b.err = buildClosures(t, suite, version) })
	if b.err != nil {
		t.Fatalf("build the closures of %s: %v", suite, b.err)
	}
	c := &Closures{T: t, Suite: suite, Root: filepath.Join(b.dir, "root"), paths: map[string]string{}}
	names, err := os.Open(filepath.Join(b.dir, "names"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = names.Close() }()
	for lines := bufio.NewScanner(names); lines.Scan(); {
		name, path, _ := strings.Cut(lines.Text(), "=")
		c.paths[name] = path
	}
	return c
}

// Path is the store path of a name: an attribute of closures.nix ("a", "multi_dev"), its
// derivation ("a_drv"), or one of the added paths ("toFile").
func (c *Closures) Path(name string) string {
	c.T.Helper()
	path, ok := c.paths[name]
	if !ok {
		c.T.Fatalf("no closure %q; see closures.nix", name)
	}
	return path
}

// Paths are the store paths of several names.
func (c *Closures) Paths(names ...string) []string {
	c.T.Helper()
	var paths []string
	for _, name := range names {
		paths = append(paths, c.Path(name))
	}
	return paths
}

// Everything is every path that is not big, no derivation, and whose hash all Nix versions agree on.
func (c *Closures) Everything() []string {
	c.T.Helper()
	return c.Paths("a", "selfref", "wide", "multi", "multi_dev", "multi_doc", "dbg", "dbg_debug", "fod", "caC", "caPlain",
		"caMulti", "caMulti_dev", "zoo", "latin", "singleFile", "singleExe", "singleLink",
		"toFile", "addPath", "add", "addFlat", "addRecursive", "addSha1")
}

type closureBuild struct {
	once sync.Once
	dir  string
	err  error
}

var closureBuilds sync.Map // suite to *closureBuild

// closureSizes are the size of the big paths in MB and the number of small files.
func closureSizes(suite string) (sizeMB, files int) {
	switch {
	case testing.Short():
		return 64, 2000
	case suite != newest(): // they all lie on the disk at once
		return 96, 20000
	}
	return 400, 20000
}

// buildClosures returns the folder with root/ and names. It has the finished name or does not exist;
// a lock keeps two test binaries from building the same one.
func buildClosures(t testing.TB, suite, version string) (string, error) {
	here := filepath.Join(repository.Root, "e2e")
	sum := sha256.New()
	for _, name := range []string{"closures.nix", "make-closures.sh"} {
		text, err := os.ReadFile(filepath.Join(here, name))
		if err != nil {
			return "", err
		}
		sum.Write(text)
	}
	fmt.Fprintln(sum, version)
	base := filepath.Join(repository.Root, ".cache", "closures")
	recipe := filepath.Join(base, suite+"-"+hex.EncodeToString(sum.Sum(nil))[:12])
	sizeMB, files := closureSizes(suite)
	dir := fmt.Sprintf("%s-%d", recipe, sizeMB)
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(base, suite+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer func() { _ = lock.Close() }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := forgetOldClosures(base, suite, recipe); err != nil {
		return "", err
	}
	work := dir + ".new"
	removeStore(work)
	if err := os.MkdirAll(work, 0o755); err != nil {
		return "", err
	}
	out := run(t, program{
		argv: []string{filepath.Join(here, "store-ns.sh"), filepath.Join(work, "root"), filepath.Join(here, "make-closures.sh"),
			filepath.Join(nixDir(), suite, "bin"), filepath.Join(work, "names")},
		env: []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(work, "home"), "LC_ALL=C.UTF-8",
			"NIX_CONF_DIR=" + work, "NIX_USER_CONF_FILES=/dev/null",
			fmt.Sprintf("SIZE_MB=%d", sizeMB), fmt.Sprintf("FILES=%d", files),
		},
		dir: work, timeout: 5 * time.Minute,
	})
	if out.Code != 0 {
		return "", fmt.Errorf("make-closures.sh: %v", out)
	}
	return dir, os.Rename(work, dir)
}

// forgetOldClosures removes what earlier versions of the scripts, or of Nix, built.
func forgetOldClosures(base, suite, recipe string) error {
	all, err := filepath.Glob(filepath.Join(base, suite+"-*"))
	for _, dir := range all {
		if !strings.HasPrefix(dir, recipe) {
			removeStore(dir)
		}
	}
	return err
}
