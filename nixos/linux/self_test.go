package linux

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"narwharf/hooks/api"
)

func TestSelf(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	var all sync.WaitGroup
	drawn := make([]api.Self, 8)
	for i := range drawn {
		all.Go(func() {
			var err error
			if drawn[i], err = Self(dir); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, s := range drawn {
		if s != drawn[0] || !api.ValidInstance(s.Instance) || s.BootID == "" {
			t.Errorf("at once it is %+v and %+v", s, drawn[0])
		}
	}
	if id, err := os.ReadFile("/etc/machine-id"); err == nil && len(id) > 30 && (len(drawn[0].Machine) != 64 || strings.Contains(drawn[0].Machine, strings.TrimSpace(string(id)))) {
		t.Errorf("machine %q", drawn[0].Machine)
	}
	file := filepath.Join(dir, "instance")
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil { // a power cut
		t.Fatal(err)
	}
	if s, err := Self(dir); err != nil || s.Instance == drawn[0].Instance {
		t.Errorf("after an empty file: %+v, %v", s, err)
	}
	if err := os.WriteFile(file, []byte("mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Self(dir); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("what is no instance: %v", err)
	}
}
