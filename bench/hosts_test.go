//go:build linux

package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestHosts takes some hosts through all that is measured, with the real
// program: every answer of it is checked on the way.
func TestHosts(t *testing.T) {
	dir := t.TempDir()
	binary, err := findNarwharf(dir)
	if err != nil {
		t.Fatal(err)
	}
	p := plan{hosts: 20, wakes: 2, paths: 100, starts: 1, arrival: 200 * time.Millisecond, settle: 200 * time.Millisecond, waiting: 200 * time.Millisecond}
	rows, err := hostRows(p, filepath.Join(dir, "hosts"), func(dir string) (*server, error) { return startNarwharf(binary, dir, "") })
	if err != nil {
		t.Fatal(err)
	}
	outs, err := waveRows(p, filepath.Join(dir, "waves"), func(dir string) (*server, error) { return startNarwharf(binary, dir, "") })
	if err != nil {
		t.Fatal(err)
	}
	rows = append(rows, outs...)
	want := []string{"memory for each of 20 hosts", "a release for all of 20", "an entry for each of 20", "each of 20 hosts reports", "after 6 releases and 2 reports", "100 uploaded paths and 20 hosts",
		"everyone of 20 hosts at once by the engine", "memory for each of 20 hosts with the engine", "20 hosts in two waves", "20 hosts of before that wait"}
	if len(rows) != len(want) {
		t.Fatalf("%d rows, want %d", len(rows), len(want))
	}
	for i, r := range rows {
		if !strings.Contains(r.what, want[i]) || r.values[0] == "" {
			t.Errorf("row %d is %q with %q, want one about %q", i, r.what, r.values[0], want[i])
		}
	}
}
