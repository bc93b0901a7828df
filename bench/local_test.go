//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLocal takes a small store through all that is measured, with real Nix,
// nginx and the real program, which is also its own peer.
func TestLocal(t *testing.T) {
	t.Setenv("NARWHARF_NIX_DIR", realNix(t))
	dir := t.TempDir()
	binary, err := findNarwharf(dir)
	if err != nil {
		t.Fatal(err)
	}
	n, err := findNginx()
	if err != nil {
		lacking(t, err.Error())
	}
	c, err := makeClosure(filepath.Join(dir, "closure"), 10<<20, 20)
	if err != nil {
		t.Fatal(err)
	}
	st, err := makeStore(filepath.Join(dir, "store"), c, 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	again, err := makeStore(filepath.Join(dir, "store"), nil, 0)
	if err != nil || len(again.paths) != len(st.paths) || again.big.NarHash != st.big.NarHash || again.many.Path != st.many.Path {
		t.Fatalf("taken as it is, it is another store (%v)", err)
	}
	start := func(dir, root string) (*server, error) { return startNarwharf(binary, dir, root) }
	other, err := start(filepath.Join(dir, "peer"), st.root)
	if err != nil {
		t.Fatal(err)
	}
	defer other.stop()
	p := plan{localRounds: 1, sample: 20 * time.Millisecond, crowds: 1, peers: []peer{{"itself", other.addr, ""}}}
	if _, err := layOutPeer(other, st); err != nil { // its NARs have a length once they are packed
		t.Fatal(err)
	}
	p.colds = 0 // they would take the whole machine's files out of memory
	rows, err := localRows(p, st, dir, start, n)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"narinfo, 16 connections, req/s", "1 connection, GB/s", "16 connections, GB/s", "one large file, hot", "20000 small files, hot",
		"of Nix 2", "first byte of the NAR", "against itself (not nginx)", "16 connections, against itself", "50 clients at once",
		"goes down, as it is", "packed for the first time"} {
		found := false
		for _, r := range rows {
			found = found || strings.Contains(r.what, want) && r.values[0] != ""
		}
		if !found {
			t.Errorf("no row about %q", want)
		}
	}
	for _, r := range rows {
		if strings.Contains(r.what, "50 clients") && !strings.Contains(r.remark, "1 encode;") {
			t.Errorf("%s: %s", r.what, r.remark)
		}
	}
}

func layOutPeer(s *server, st *nixStore) (ok bool, err error) {
	conn, err := dial(s.addr, "")
	if err != nil {
		return false, err
	}
	defer conn.close()
	for _, i := range st.paths {
		if _, err := conn.save(packedURL(i), os.DevNull, false); err != nil {
			return false, err
		}
	}
	return true, nil
}

// realNix is the folder of the clients.
func realNix(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("NARWHARF_NIX_DIR")
	if dir == "" {
		dir = filepath.Join("..", ".cache", "nix")
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "bin", "nix-store-[0-9]*")); len(found) == 0 {
		lacking(t, "no Nix in "+dir+"; run make nix-clients")
	}
	return dir
}

// lacking ends the test because this machine lacks something; CI must not.
func lacking(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("NARWHARF_CI") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}
