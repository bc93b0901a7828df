//go:build linux

package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseStat(t *testing.T) {
	const text = "4711 (a ) (b) S 17 4711 4711 0 -1 4194560 1 0 0 0 250 50 9 9 20 0 1 0 1 1 1\n"
	got, err := parseStat(text)
	if want := (stat{pid: 4711, parent: 17, cpu: 3 * time.Second}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "1 x", "1 (x", "1 (x) S 1 2 3", strings.Replace(text, "250", "x", 1)} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q was taken for a status", bad)
		}
	}
}

func TestStatusKiB(t *testing.T) {
	const text = "Name:\tx\nVmHWM:\t   31744 kB\nVmRSS:\t    1024 kB\n"
	if got, err := statusKiB(text, "VmRSS"); err != nil || got != 1<<20 {
		t.Errorf("%d, %v; want 1 MiB", got, err)
	}
	if _, err := statusKiB(text, "VmSwap"); err == nil {
		t.Error("found a line that is not there")
	}
}

func TestStartReportsWhatWasSaid(t *testing.T) {
	addr, err := freeAddr()
	if err != nil {
		t.Fatal(err)
	}
	_, err = start("broken", addr, t.TempDir(), exec.Command("sh", "-c", "echo my config is bad >&2; exit 1"))
	if err == nil || !strings.Contains(err.Error(), "my config is bad") {
		t.Errorf("error %v, want what the program said", err)
	}
}

// The measuring instruments, on a process that is known: this one.
func TestOwnProcess(t *testing.T) {
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	s := &server{name: "test", cmd: &exec.Cmd{Process: self}}
	before, err := s.cpu()
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < 300*time.Millisecond; {
		_ = strings.Repeat("x", 1000)
	}
	after, err := s.cpu()
	if err != nil {
		t.Fatal(err)
	}
	if used := after - before; used < 50*time.Millisecond || used > 2*time.Second {
		t.Errorf("CPU time %s after 300 ms of work", used)
	}

	if err := s.forgetPeak(); err != nil {
		t.Fatal(err)
	}
	idle, _, err := s.memory()
	if err != nil {
		t.Fatal(err)
	}
	// Not from Go's heap, which may still have pages of other tests.
	block, err := unix.Mmap(-1, 0, 64<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(block) })
	for i := 0; i < len(block); i += 4096 {
		block[i] = 1
	}
	_, peak, err := s.memory()
	if err != nil {
		t.Fatal(err)
	}
	// The heap of earlier tests may shrink meanwhile.
	if grown := peak - idle; grown < 32<<20 || grown > 200<<20 {
		t.Errorf("peak grew by %s for a block of 64 MiB", mib(grown))
	}
}
