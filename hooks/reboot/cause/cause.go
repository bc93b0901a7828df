// Package cause is what of a NixOS system takes a reboot to be in effect: one rule for the agent,
// which decides by it, and for the server, which tells beforehand.
//
// A system that has reboot-triggers lists by itself what needs a reboot; otherwise it is what
// system.autoUpgrade looks at (nixpkgs, nixos/modules/tasks/auto-upgrade.nix), and kernel-params.
package cause

import (
	"encoding/json"
	"slices"
)

// Triggers is the file of a system that lists what needs a reboot: a JSON object whose values may
// be anything.
const Triggers = "reboot-triggers"

// Links are links of a system of which it counts where they lead, and Texts files of which the
// content does.
var (
	Links = []string{"kernel", "initrd", "kernel-modules"}
	Texts = []string{"kernel-params", "init-interface-version"}
)

// Names are all of them.
var Names = slices.Concat([]string{Triggers}, Links, Texts)

// Facts are what there is of a system by these names.
type Facts map[string]string

// Between lists what a boot of b would change against one of a, sorted.
func Between(a, b Facts) (diff []string) {
	x, okX := a.triggers()
	y, okY := b.triggers()
	if okX && okY {
		for k := range x {
			if y[k] != x[k] {
				diff = append(diff, k)
			}
		}
		for k := range y {
			if _, both := x[k]; !both {
				diff = append(diff, k)
			}
		}
		slices.Sort(diff)
		return diff
	}
	for _, name := range slices.Concat(Links, Texts) {
		if a[name] != b[name] {
			diff = append(diff, name)
		}
	}
	slices.Sort(diff)
	return diff
}

// triggers are what a system lists by itself, if it does.
func (f Facts) triggers() (map[string]string, bool) {
	text, ok := f[Triggers]
	if !ok {
		return nil, false
	}
	var raw map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &raw) != nil {
		return map[string]string{"content": text}, true
	}
	m := make(map[string]string, len(raw))
	for k, v := range raw {
		m[k] = string(v)
	}
	return m, true
}
