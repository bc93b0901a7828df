package machine

import (
	"testing"

	"narwharf/nixos/desired"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/signing"
)

// activation.auto says what auto means here, and nothing of other actions.
func TestAuto(t *testing.T) {
	for _, c := range []struct{ rule, entry, want signing.Action }{
		{"", signing.Auto, signing.Auto},
		{signing.Auto, signing.Auto, signing.Auto},
		{signing.Switch, signing.Auto, signing.Switch},
		{signing.Boot, signing.Auto, signing.Boot},
		{signing.Boot, signing.Test, signing.Test},
		{signing.Switch, signing.Boot, signing.Boot},
		{signing.Switch, signing.DryActivate, signing.DryActivate},
	} {
		m := &Machine{Rules: Rules{Auto: c.rule}}
		f := effect.Facts{Random: "0123456789abcdef0123456789abcdef", Current: "/nix/store/old", Profile: "/nix/store/old"}
		turn := &turn{rules: &m.Rules, j: new(journal.Journal), f: f}
		turn.begin(desired.Verdict{Seq: 1, Entry: &signing.Entry{StorePath: "/nix/store/new", Action: c.entry}, Digest: "sha256:00"})
		if got := turn.j.Attempt.Action; got != c.want {
			t.Errorf("%s where auto is %q: %s, want %s", c.entry, c.rule, got, c.want)
		}
	}
}
