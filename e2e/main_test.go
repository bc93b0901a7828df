package e2e

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"testing"
)

// TestMain says so if /nix appears on a host that had none, and sees to it that more tests than
// there are processors run at once: most of them wait for a disk or a timer most of the time.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set(strconv.Itoa(4 * runtime.GOMAXPROCS(0)))
	}
	if os.Getenv("GORACE") == "" { // a binary with the race detector sleeps a second before it exits
		_ = os.Setenv("GORACE", "atexit_sleep_ms=10")
	}
	_, before := os.Lstat("/nix")
	code := m.Run()
	if _, after := os.Lstat("/nix"); errors.Is(before, fs.ErrNotExist) && after == nil {
		fmt.Fprintln(os.Stderr, "/nix appeared on this host while the tests ran: if nothing else made it, a test did")
		if inCI() { // there nothing else runs
			code = 1
		}
	}
	os.Exit(code)
}
