package fleet

import (
	"strings"
	"testing"
)

// TestDisks asks about hosts that are not like the others: one whose root is forgotten at every boot,
// one whose /nix and /boot are small.
func TestDisks(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	f := New(t, Options{Hosts: 2, Host: func(_ *Fleet, name string, h *HostOptions) {
		switch name {
		case "h1":
			h.TmpfsRoot = true
			h.Files = map[string]string{"etc/narwharf/token": "secret\n"}
		case "h2":
			h.Suite = "bookworm"
			h.StoreSize = 24 << 20
			h.BootSize = 1 << 20
		}
	}})
	Run(t, "root on tmpfs", func(s *Story) {
		f := f.For(s)
		h := f.Host("h1")
		v1 := f.CI().BuildSystem(System{Version: "1"})
		f.CI().Push(v1)
		h.Must("nix-store", "--realise", v1)
		h.SetProfile(v1)
		if out := h.Switch(v1, "switch"); out.Code != 0 {
			s.Fatalf("%v", out)
		}
		h.WriteFile("/var/lib/forgotten", "", 0o644)
		h.WriteFile("/nix/var/kept", "", 0o644)
		if mode := h.Must("stat", "-c", "%a", "/etc/narwharf/token"); mode != "600" {
			s.Errorf("a token has mode %s", mode)
		}
		for _, end := range []func(){h.Reboot, func() { h.PowerCut(); h.Boot() }} {
			end()
			if st := h.State(); st.Current != v1 || st.Booted != v1 || st.Hello != "1" || st.Running != "running" || st.Generation != "system-2-link" {
				s.Errorf("%+v", st)
			}
			if h.Exec("test", "-e", "/var/lib/forgotten").Code == 0 || h.Exec("test", "-e", "/nix/var/kept").Code != 0 || h.ReadFile("/etc/narwharf/token") != "secret\n" {
				s.Error("a reboot forgets all but /nix, /boot and what the harness put there")
			}
		}
	})
	Run(t, "full disks", func(s *Story) {
		f := f.For(s)
		h := f.Host("h2")
		old := h.State().Current
		big := f.CI().BuildSystem(System{Version: "big", Misbehave: []Misbehaviour{BootFull}}) // its kernel has 64 MiB
		f.CI().Push(big)
		if out := h.Realise(big); out.Code == 0 || !strings.Contains(out.Stderr, "No space left") {
			s.Errorf("%v", out)
		}
		small := f.CI().BuildSystem(System{Version: "small"})
		f.CI().Push(small)
		h.Must("nix-store", "--gc")
		h.Must("nix-store", "--realise", small)
		h.SetProfile(small)
		h.Sh("head -c 4M /dev/zero > /boot/junk || true")
		if out := h.Switch(small, "boot"); out.Code != 1 || !strings.Contains(out.Stderr, "No space left") {
			s.Errorf("%v", out)
		}
		h.Must("rm", "/boot/junk")
		if st := h.State(); st.BootEntry != old {
			s.Errorf("%+v", st)
		}
		if out := h.Switch(small, "boot"); out.Code != 0 {
			s.Errorf("%v", out)
		}
		h.Reboot()
		if st := h.State(); st.Current != small || st.Hello != "small" {
			s.Errorf("%+v", st)
		}
	})
}
