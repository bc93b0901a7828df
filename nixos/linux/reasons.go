package linux

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"narwharf/nixos"
)

// Reasons implements System: what of path the running kernel and initrd are
// not, and what forbids to switch to it from the running system.
//
// A system that has reboot-triggers lists by itself what needs a reboot;
// otherwise it is what system.autoUpgrade looks at (nixpkgs,
// nixos/modules/tasks/auto-upgrade.nix), and kernel-params.
//
// The action check is younger than switch-inhibitors nowhere: a system with
// that file has it (nixpkgs, pull request 473282); an older script would take
// the word for a mistake.
func (h *Host) Reasons(_ context.Context, path string) (r nixos.Reasons, err error) {
	for _, name := range []string{"nixos-version", "bin/switch-to-configuration"} {
		if _, err := os.Stat(h.real(filepath.Join(path, name))); err != nil {
			return r, fmt.Errorf("%s is not a NixOS system: %w", path, err)
		}
	}
	booted, err := h.systemLink(filepath.Join(h.Config.RunDir, "booted-system"))
	if err != nil {
		return r, err
	}
	current, err := h.systemLink(filepath.Join(h.Config.RunDir, "current-system"))
	if err != nil {
		return r, err
	}
	if booted != "" && booted != path {
		r.Reboot = h.differences(booted, path)
	}
	if current != "" && current != path {
		r.Inhibited = h.inhibitors(current, path)
	}
	_, missing := os.Stat(h.real(filepath.Join(path, "switch-inhibitors")))
	r.CanCheck = missing == nil
	return r, nil
}

// differences lists what a boot of b would change against one of a.
func (h *Host) differences(a, b string) []string {
	x, okX := h.stringMap(filepath.Join(a, "reboot-triggers"))
	y, okY := h.stringMap(filepath.Join(b, "reboot-triggers"))
	var diff []string
	if okX && okY {
		for k := range merged(x, y) {
			if x[k] != y[k] {
				diff = append(diff, k)
			}
		}
		slices.Sort(diff)
		return diff
	}
	for _, name := range []string{"kernel", "initrd", "kernel-modules"} {
		if h.linkTarget(filepath.Join(a, name)) != h.linkTarget(filepath.Join(b, name)) {
			diff = append(diff, name)
		}
	}
	for _, name := range []string{"kernel-params", "init-interface-version"} {
		if h.text(filepath.Join(a, name)) != h.text(filepath.Join(b, name)) {
			diff = append(diff, name)
		}
	}
	slices.Sort(diff)
	return diff
}

// inhibitors are the switch-inhibitors that both systems have, with different
// values (nixpkgs, switch-to-configuration-ng).
func (h *Host) inhibitors(a, b string) []string {
	x, _ := h.stringMap(filepath.Join(a, "switch-inhibitors"))
	y, _ := h.stringMap(filepath.Join(b, "switch-inhibitors"))
	var diff []string
	for k, v := range y {
		if old, ok := x[k]; ok && old != v {
			diff = append(diff, "switch-inhibitors: "+k)
		}
	}
	slices.Sort(diff)
	return diff
}

func merged(a, b map[string]string) map[string]bool {
	m := make(map[string]bool)
	for k := range a {
		m[k] = true
	}
	for k := range b {
		m[k] = true
	}
	return m
}

// stringMap reads a JSON object whose values may be anything.
func (h *Host) stringMap(name string) (map[string]string, bool) {
	text, err := os.ReadFile(h.real(name))
	if err != nil {
		return nil, false
	}
	var raw map[string]json.RawMessage
	if json.Unmarshal(text, &raw) != nil {
		return map[string]string{"content": string(text)}, true
	}
	m := make(map[string]string, len(raw))
	for k, v := range raw {
		m[k] = string(v)
	}
	return m, true
}

// linkTarget is what a link names, or for a file of the system itself its
// bytes: systems of containers have neither kernel nor initrd, and then both
// are "".
func (h *Host) linkTarget(name string) string {
	if t, err := os.Readlink(h.real(name)); err == nil && filepath.IsAbs(t) {
		return t
	}
	switch st, err := os.Stat(h.real(name)); {
	case errors.Is(err, os.ErrNotExist):
		return ""
	case err == nil && st.Mode().IsRegular():
		return h.text(name)
	}
	return name
}

func (h *Host) text(name string) string {
	text, err := os.ReadFile(h.real(name))
	if err != nil {
		return ""
	}
	return string(text)
}
