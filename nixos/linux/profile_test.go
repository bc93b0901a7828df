package linux

import "testing"

func TestGeneration(t *testing.T) {
	for link, want := range map[string]int64{"system-42-link": 42, "system-0-link": 0, "system-042-link": 0, "system-x-link": 0, "other-1-link": 0, "system-1": 0, "../x": 0} {
		if got := generation("/nix/var/nix/profiles/system", link); got != want {
			t.Errorf("%s: %d", link, got)
		}
	}
}
