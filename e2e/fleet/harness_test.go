package fleet

import (
	"testing"
	"time"
)

func TestHarness(t *testing.T) {
	begin := time.Now()
	f := New(t, Options{})
	t.Logf("up after %v", time.Since(begin))
	for _, h := range f.Hosts() {
		t.Logf("%s %+v", h.Name(), h.State())
		t.Log(h.Sh("nix-daemon --version; nix-store --version; nix store ping 2>&1; ip -br a; systemctl cat nix-daemon | tail -3"))
	}
}
