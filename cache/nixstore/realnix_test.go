package nixstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/narinfo"
)

// nixVersions are looked for as nix-<version>, nix-store-<version> and so on in
// the bin directory of $NARWHARF_NIX_DIR.
var nixVersions = []string{"2.8", "2.26", "2.34"}

// nixExpr has what path info can tell: references, a reference to itself, a
// fixed output, and outputs that are addressed by their content.
const nixExpr = `
let
  make = name: args: derivation ({ inherit name; system = builtins.currentSystem; builder = "/bin/sh"; } // args);
  c = make "c" { args = [ "-c" "echo c > $out" ]; };
  self = make "self" { args = [ "-c" "echo ${c} $out > $out" ]; };
  odd = make "odd+_=?.-name" { args = [ "-c" "echo ${self} ${c} > $out" ]; };
  fixed = make "fixed" { args = [ "-c" "echo -n fixed > $out" ]; outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "fixed"; };
  sha1 = make "sha1" { args = [ "-c" "echo -n fixed > $out" ]; outputHashMode = "flat"; outputHashAlgo = "sha1"; outputHash = builtins.hashString "sha1" "fixed"; };
  content = make "content" { args = [ "-c" "echo $out > $out" ]; __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; };
  text = builtins.toFile "text" "${builtins.toFile "other" "other"}";
in [ odd fixed sha1 content (make "text-user" { args = [ "-c" "echo ${text} > $out" ]; }) ]
`

// nix is a real Nix with a store of its own.
type nix struct {
	t        testing.TB
	version  string
	bin, dir string
	storeDir string
	state    string
	socket   string
	config   string // lines for nix.conf
}

func eachNix(t *testing.T, run func(t *testing.T, n *nix)) {
	for _, version := range nixVersions {
		t.Run(version, func(t *testing.T) { run(t, newNix(t, version)) })
	}
}

func newNix(t testing.TB, version string) *nix {
	t.Helper()
	bin := filepath.Join(os.Getenv("NARWHARF_NIX_DIR"), "bin")
	for _, program := range []string{"nix", "nix-store", "nix-build", "nix-daemon", "nix-collect-garbage"} {
		if _, err := os.Stat(filepath.Join(bin, program+"-"+version)); err != nil || bin == "bin" {
			skip(t, "needs Nix "+version+": $NARWHARF_NIX_DIR must name a directory with bin/"+program+"-"+version)
		}
	}
	t.Setenv("NIX_DAEMON_SOCKET_PATH", "")
	dir := shortDir(t)
	n := &nix{t: t, version: version, bin: bin, dir: dir, storeDir: dir + "/store", state: dir + "/var", socket: dir + "/socket"}
	// Nix 2.8 does not build without a build hook to ask first.
	n.write("hook", "#!/bin/sh\necho '# decline-permanently' >&2\nexec cat > /dev/null\n", 0o755)
	return n
}

func (n *nix) write(name, text string, mode os.FileMode) string {
	n.t.Helper()
	file := n.dir + "/" + name
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		n.t.Fatal(err)
	}
	return file
}

func (n *nix) env() []string {
	return append(os.Environ(),
		"HOME="+n.dir, "XDG_CACHE_HOME="+n.dir+"/cache", "NIX_CONF_DIR="+n.dir+"/etc", "NIX_LOG_DIR="+n.dir+"/log",
		"NIX_STORE_DIR="+n.storeDir, "NIX_STATE_DIR="+n.state, "NIX_DAEMON_SOCKET_PATH="+n.socket, "NIX_REMOTE=",
		"NIX_CONFIG=experimental-features = nix-command ca-derivations\nbuild-users-group =\nsubstituters =\nsandbox = false\n"+
			"build-hook = "+n.dir+"/hook\n"+n.config)
}

// run runs a program of Nix and returns what it prints, by lines.
func (n *nix) run(program string, args ...string) []string {
	n.t.Helper()
	cmd := exec.Command(filepath.Join(n.bin, program+"-"+n.version), args...)
	cmd.Env = n.env()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		n.t.Fatalf("%s %s: %v\n%s", program, args, err, stderr.String())
	}
	return strings.Fields(string(out))
}

// build builds nixExpr and signs some of it.
func (n *nix) build() (roots []narinfo.Path) {
	n.t.Helper()
	out := n.run("nix-build", "--no-out-link", n.write("expr.nix", nixExpr, 0o644))
	for _, p := range out {
		roots = append(roots, n.path(p))
	}
	for _, name := range []string{"one-1", "two-1"} {
		n.run("nix-store", "--generate-binary-cache-key", name, n.dir+"/secret", n.dir+"/public")
		n.run("nix", "store", "sign", "--recursive", "--key-file", n.dir+"/secret", out[0])
	}
	return roots
}

// add puts a file with that text into the store.
func (n *nix) add(name, text string) narinfo.Path {
	n.t.Helper()
	return n.path(n.run("nix-store", "--add", n.write(name, text, 0o644))[0])
}

func (n *nix) path(full string) narinfo.Path {
	n.t.Helper()
	p, err := narinfo.ParsePath(n.storeDir, full)
	if err != nil {
		n.t.Fatal(err)
	}
	return p
}

// daemon starts nix-daemon and returns how to stop it.
func (n *nix) daemon() (stop func()) {
	n.t.Helper()
	cmd := exec.Command(filepath.Join(n.bin, "nix-daemon-"+n.version))
	cmd.Env = n.env()
	stderr, err := os.Create(n.dir + "/daemon.log") // no pipe: the daemon's children keep it open
	if err != nil {
		n.t.Fatal(err)
	}
	defer stderr.Close()
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	n.t.Cleanup(stop)
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("unix", n.socket); err == nil {
			_ = c.Close()
			return stop
		}
		if time.Since(start) > 20*time.Second {
			log, _ := os.ReadFile(n.dir + "/daemon.log")
			n.t.Fatalf("nix-daemon %s does not listen: %s", n.version, log)
		}
	}
}

// options are of the store with both ways to it.
func (n *nix) options() Options {
	return Options{StoreDir: n.storeDir, StateDir: n.state, DaemonSocket: n.socket}
}

// daemonOnly are of the store without its database.
func (n *nix) daemonOnly() Options {
	return Options{StoreDir: n.storeDir, StateDir: "/nonexistent/state", DaemonSocket: n.socket}
}

func (n *nix) open(o Options) *Store {
	n.t.Helper()
	s, err := Open(o)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = s.Close() })
	return s
}

// pathInfos is what `nix path-info --json --all` says.
func (n *nix) pathInfos() []*PathInfo {
	n.t.Helper()
	type entry struct {
		Path, NarHash, Deriver, CA string
		NarSize, RegistrationTime  int64
		References, Signatures     []string
		Ultimate                   bool
	}
	text := []byte(strings.Join(n.run("nix", "path-info", "--json", "--all"), " "))
	var entries []entry
	if text[0] == '[' {
		if err := json.Unmarshal(text, &entries); err != nil {
			n.t.Fatal(err)
		}
	} else {
		var byPath map[string]entry
		if err := json.Unmarshal(text, &byPath); err != nil {
			n.t.Fatal(err)
		}
		for p, e := range byPath {
			e.Path = p
			entries = append(entries, e)
		}
	}
	var all []*PathInfo
	for _, e := range entries {
		hash, err := narinfo.ParseHash(e.NarHash)
		if err != nil {
			n.t.Fatal(err)
		}
		i := &PathInfo{
			Info:     &narinfo.Info{StoreDir: n.storeDir, Path: n.path(e.Path), NarHash: hash, NarSize: e.NarSize, CA: e.CA, Sigs: e.Signatures},
			Ultimate: e.Ultimate, Registered: time.Unix(e.RegistrationTime, 0),
		}
		if e.Deriver != "" {
			i.Deriver = n.path(e.Deriver)
		}
		for _, r := range e.References {
			i.References = append(i.References, n.path(r))
		}
		slices.Sort(i.References)
		slices.Sort(i.Sigs)
		if len(i.Sigs) == 0 {
			i.Sigs = nil
		}
		all = append(all, i)
	}
	if len(all) < 10 {
		n.t.Fatalf("Nix %s has %d paths", n.version, len(all))
	}
	return all
}

// requisites is what `nix-store -qR` says.
func (n *nix) requisites(roots ...narinfo.Path) (all []narinfo.Path) {
	n.t.Helper()
	args := []string{"--query", "--requisites"}
	for _, r := range roots {
		args = append(args, r.In(n.storeDir))
	}
	for _, p := range n.run("nix-store", args...) {
		all = append(all, n.path(p))
	}
	slices.Sort(all)
	return all
}

func (n *nix) String() string { return fmt.Sprintf("Nix %s in %s", n.version, n.dir) }
