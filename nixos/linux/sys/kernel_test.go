package sys

import (
	"os"
	"strings"
	"testing"
)

// The kernel's list of mounts has the same file systems by their names.
func TestInMemory(t *testing.T) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{}
	for line := range strings.Lines(string(mounts)) {
		if words := strings.Fields(line); len(words) > 2 {
			kinds[words[1]] = words[2]
		}
	}
	seen := 0
	for _, dir := range []string{"/", "/proc", "/dev", "/dev/shm", "/run"} {
		if kind, ok := kinds[dir]; ok {
			seen++
			if got := InMemory(dir); got != (strings.HasSuffix(kind, "tmpfs") || kind == "ramfs") {
				t.Errorf("%s is %s, and in memory: %v", dir, kind, got)
			}
		}
	}
	if seen == 0 || InMemory("/nowhere") {
		t.Errorf("of %d mounts none is known", len(kinds))
	}
}
