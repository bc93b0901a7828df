package nix

import (
	"strings"
	"testing"

	"narwharf/nixos/config"
)

// TestConnections: a low rate is shared by so few transfers that none of them is
// taken for dead.
func TestConnections(t *testing.T) {
	for rate, want := range map[config.Rate]string{0: "", 1: "1", 64 << 10: "4", 390 << 10: "24", 4 << 20: ""} {
		c := config.Default()
		c.Download.Rate, c.NixOptions = rate, []string{"--option", "http-connections", "7"}
		args := New(c, nil, nil).realiseArgs("00000000000000000000000000000000-x", "target")
		var got []string
		for i, a := range args {
			if a == "http-connections" {
				got = append(got, args[i+1])
			}
		}
		if got[len(got)-1] != "7" { // who says it has it
			t.Errorf("%d: %q", rate, got)
		}
		if text := strings.Join(got[:len(got)-1], " "); text != want {
			t.Errorf("%d: %q, want %q", rate, text, want)
		}
	}
}
