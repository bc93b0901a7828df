package bolt

import (
	"os"
	"path/filepath"
	"testing"

	"narwharf/cache/state"
	"narwharf/cache/state/statetest"
)

// open opens a state in memory, where there is such a folder.
func open(t *testing.T) (state.Store, func() state.Store) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "narwharf-test-")
	if err != nil {
		dir = t.TempDir()
	}
	var s *Store
	open := func() state.Store {
		var err error
		if s, err = Open(filepath.Join(dir, "db"), Options{NoSync: true}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	t.Cleanup(func() { _ = s.Close(); _ = os.RemoveAll(dir) })
	return open(), func() state.Store {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return open()
	}
}

func TestState(t *testing.T) { statetest.Run(t, open) }
