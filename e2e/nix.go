package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"narwharf/e2e/repository"
)

// Suites are the Debian suites whose Nix is tested: NARWHARF_SUITES, else the three of
// nix-clients.sh. The version behind a suite moves; tests that depend on one ask [Nix.AtLeast].
func Suites() []string {
	if s := strings.Fields(os.Getenv("NARWHARF_SUITES")); len(s) > 0 {
		return s
	}
	return []string{"bookworm", "trixie", "forky"}
}

// newest is the last suite: tests that are about the server and need just one client take it.
func newest() string {
	s := Suites()
	return s[len(s)-1]
}

// eachSuite runs a test as a parallel subtest for every suite.
func eachSuite(t *testing.T, test func(t *testing.T, suite string)) {
	t.Helper()
	for _, suite := range Suites() {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			test(t, suite)
		})
	}
}

// nixDir is where nix-clients.sh unpacked.
func nixDir() string {
	if dir := os.Getenv("NARWHARF_NIX_DIR"); dir != "" {
		return dir
	}
	return filepath.Join(repository.Root, ".cache", "nix")
}

// nixVersion is the version behind a suite; the test ends if that client is not there.
func nixVersion(t testing.TB, suite string) string {
	t.Helper()
	stamp, err := os.ReadFile(filepath.Join(nixDir(), suite, "stamp"))
	if err != nil {
		lacking(t, "no Nix of Debian %s below %s; run e2e/nix-clients.sh", suite, nixDir())
	}
	fields := strings.Fields(string(stamp))
	if len(fields) != 3 {
		t.Fatalf("the stamp of suite %s is %q; run REFRESH=1 e2e/nix-clients.sh", suite, stamp)
	}
	return fields[2]
}

// A Nix is one stock client: programs of one suite with a home, configuration, disk cache and
// store of its own. The store's logical folder is /nix/store, it lies below Root.
type Nix struct {
	T       testing.TB
	Suite   string
	Version string
	Root    string        // `--store local?root=Root`
	Logical string        // the store's logical folder, empty: /nix/store
	Timeout time.Duration // of each program, 0: two minutes
	CA      string        // NIX_SSL_CERT_FILE

	dir   string // private
	homes int
	conf  []string
}

// NewNix makes a client with an empty store. Each setting is a line of nix.conf.
func NewNix(t testing.TB, suite string, settings ...string) *Nix {
	t.Helper()
	n := &Nix{T: t, Suite: suite, Version: nixVersion(t, suite), dir: scratch(t)}
	n.Root = filepath.Join(n.dir, "root")
	n.Forget()
	n.Set(
		"build-users-group =",
		"sandbox = false",
		"experimental-features = nix-command flakes ca-derivations",
		"substituters =",
		"builders =",
		"connect-timeout = 15",
		"stalled-download-timeout = 60", // a hang is a failure, and the default is five minutes
	)
	n.Set(settings...)
	return n
}

// In makes the client use the store below root, and returns it.
func (n *Nix) In(root string) *Nix {
	n.Root = root
	return n
}

// Set adds lines to nix.conf.
func (n *Nix) Set(settings ...string) {
	n.T.Helper()
	n.conf = append(n.conf, settings...)
	n.write(filepath.Join("conf", "nix.conf"), strings.Join(n.conf, "\n")+"\n")
}

// Netrc gives the client a password for the test's hosts.
func (n *Nix) Netrc(password string) *Nix {
	n.T.Helper()
	n.Set("netrc-file = " + n.write("netrc", fmt.Sprintf("machine 127.0.0.1\nlogin e2e\npassword %s\n", password)))
	return n
}

// Trust makes the client substitute from a cache with signatures checked against keys.
func (n *Nix) Trust(url string, keys ...Key) *Nix {
	n.T.Helper()
	var public []string
	for _, k := range keys {
		public = append(public, k.Public())
	}
	n.Set("substituters = "+url, "require-sigs = true", "trusted-public-keys = "+strings.Join(public, " "))
	return n
}

// Forget gives the client a new home: with it goes what it remembers of caches.
func (n *Nix) Forget() *Nix {
	n.homes++
	return n
}

func (n *Nix) write(name, text string) string {
	n.T.Helper()
	file := filepath.Join(n.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		n.T.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		n.T.Fatal(err)
	}
	return file
}

func (n *Nix) env() []string {
	in := func(name string) string { return filepath.Join(n.dir, name) }
	home := in(fmt.Sprintf("home-%d", n.homes))
	env := []string{
		"PATH=" + os.Getenv("PATH"),
		"LC_ALL=C.UTF-8",
		"HOME=" + home,
		"XDG_CACHE_HOME=" + filepath.Join(home, "cache"),
		"XDG_CONFIG_HOME=" + filepath.Join(home, "config"),
		"XDG_DATA_HOME=" + filepath.Join(home, "data"),
		"XDG_STATE_HOME=" + filepath.Join(home, "state"),
		"NIX_CONF_DIR=" + in("conf"),
		"NIX_USER_CONF_FILES=/dev/null",
		// A store of the client's own; what is not below its root (the next two) is private as well.
		"NIX_REMOTE=local?root=" + n.Root,
		"NIX_STATE_DIR=" + in("state"),
		"NIX_LOG_DIR=" + in("log"),
		"TMPDIR=" + os.TempDir(),
	}
	if n.CA != "" {
		env = append(env, "NIX_SSL_CERT_FILE="+n.CA)
	}
	if n.Logical != "" {
		env = append(env, "NIX_STORE_DIR="+n.Logical)
	}
	return env
}

// Run runs a program of the client (`nix`, `nix-store`, …) to its end.
func (n *Nix) Run(program string, args ...string) Output {
	n.T.Helper()
	return n.run(program, args...)
}

func (n *Nix) run(name string, args ...string) Output {
	n.T.Helper()
	argv := append([]string{filepath.Join(nixDir(), n.Suite, "bin", name)}, args...)
	return run(n.T, program{argv: argv, env: n.env(), dir: n.dir, timeout: n.Timeout})
}

// Must runs a program that has to end well, and returns what it wrote.
func (n *Nix) Must(program string, args ...string) Output {
	n.T.Helper()
	out := n.run(program, args...)
	if out.Code != 0 {
		n.T.Fatalf("Nix %s failed\n%v", n.Version, out)
	}
	return out
}

// Shell runs a line as a person would type it, with the client's programs first in PATH.
func (n *Nix) Shell(line string) Output {
	n.T.Helper()
	env := append(n.env(), "PATH="+filepath.Join(nixDir(), n.Suite, "bin")+":"+os.Getenv("PATH"))
	out := run(n.T, program{argv: []string{"sh", "-c", line}, env: env, dir: n.dir, timeout: n.Timeout})
	if out.Code != 0 {
		n.T.Fatalf("Nix %s: %v", n.Version, out)
	}
	return out
}

// Fails runs a program that has to end with an error (not by a signal, not by our time-out) whose
// text holds each of words.
func (n *Nix) Fails(words []string, program string, args ...string) Output {
	n.T.Helper()
	out := n.run(program, args...)
	if out.Code <= 0 {
		n.T.Fatalf("Nix %s should have failed with an error\n%v", n.Version, out)
	}
	for _, w := range words {
		if !strings.Contains(out.Stderr, w) {
			n.T.Errorf("Nix %s does not show %q\n%v", n.Version, w, out)
		}
	}
	return out
}

// Push copies paths with all they need to a cache; query is the store URL's query ("?compression=zstd").
func (n *Nix) Push(url, query string, paths ...string) Output {
	n.T.Helper()
	return n.Must("nix", append([]string{"copy", "--to", url + query}, paths...)...)
}

// Pull copies paths from a cache into the client's store without asking for signatures.
func (n *Nix) Pull(url string, paths ...string) Output {
	n.T.Helper()
	return n.Must("nix", append([]string{"copy", "--no-check-sigs", "--from", url}, paths...)...)
}

// Verify lets the client compare everything in its store with its database.
func (n *Nix) Verify() {
	n.T.Helper()
	n.Must("nix-store", "--verify", "--check-contents")
}

// Has reports whether a path is valid in the client's store.
func (n *Nix) Has(path string) bool {
	n.T.Helper()
	return n.run("nix-store", "--check-validity", path).Code == 0
}

// Real is where a store path lies on disk.
func (n *Nix) Real(path string) string { return filepath.Join(n.Root, path) }

// AtLeast compares the client's version.
func (n *Nix) AtLeast(major, minor int) bool {
	var a, b int
	if _, err := fmt.Sscanf(n.Version, "%d.%d", &a, &b); err != nil {
		n.T.Fatalf("Nix version %q: %v", n.Version, err)
	}
	return a > major || a == major && b >= minor
}
