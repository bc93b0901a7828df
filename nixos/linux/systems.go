package linux

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"narwharf/nixos"
)

// systems are the NixOS systems in the store. One of them runs, one was booted.
type systems struct {
	root     string // in front of storeDir, for a store that is mounted elsewhere
	storeDir string
	runDir   string // has the links current-system and booted-system
}

// real is where the files of a store path are.
func (s systems) real(path string) string { return s.root + path }

func (s systems) current() (string, error) { return s.link(filepath.Join(s.runDir, "current-system")) }

func (s systems) booted() (string, error) { return s.link(filepath.Join(s.runDir, "booted-system")) }

// link reads a link to a system. "" is that there is none, as in a container or an
// installer.
func (s systems) link(name string) (string, error) {
	path, err := os.Readlink(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case !strings.HasPrefix(path, s.storeDir+"/"):
		if path, err = filepath.EvalSymlinks(name); err != nil {
			return "", err
		}
	}
	return path, nil
}

// Reasons implements nixos.Boot. It compares path with the booted system, which says what
// needs a reboot, and with the running one, which says what forbids a switch.
//
// A system that has reboot-triggers lists by itself what needs a reboot;
// otherwise it is what system.autoUpgrade looks at (nixpkgs,
// nixos/modules/tasks/auto-upgrade.nix), and kernel-params.
//
// Every system with a file switch-inhibitors has the action check, too (nixpkgs, pull
// request 473282). An older script refuses the word.
func (s systems) Reasons(_ context.Context, path string) (r nixos.Reasons, err error) {
	for _, name := range []string{"nixos-version", "bin/switch-to-configuration"} {
		if _, err := os.Stat(s.real(filepath.Join(path, name))); err != nil {
			return r, fmt.Errorf("%s is not a NixOS system: %w", path, err)
		}
	}
	booted, err := s.booted()
	if err != nil {
		return r, err
	}
	current, err := s.current()
	if err != nil {
		return r, err
	}
	if booted != "" && booted != path {
		r.Reboot = s.differences(booted, path)
	}
	if current != "" && current != path {
		r.Inhibited = s.inhibitors(current, path)
	}
	_, missing := os.Stat(s.real(filepath.Join(path, "switch-inhibitors")))
	r.CanCheck = missing == nil
	return r, nil
}

// differences lists what a boot of b would change against one of a.
func (s systems) differences(a, b string) []string {
	x, okX := s.stringMap(filepath.Join(a, "reboot-triggers"))
	y, okY := s.stringMap(filepath.Join(b, "reboot-triggers"))
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
		if s.linkTarget(filepath.Join(a, name)) != s.linkTarget(filepath.Join(b, name)) {
			diff = append(diff, name)
		}
	}
	for _, name := range []string{"kernel-params", "init-interface-version"} {
		if s.text(filepath.Join(a, name)) != s.text(filepath.Join(b, name)) {
			diff = append(diff, name)
		}
	}
	slices.Sort(diff)
	return diff
}

// inhibitors are the switch-inhibitors that both systems have, with different
// values (nixpkgs, switch-to-configuration-ng).
func (s systems) inhibitors(a, b string) []string {
	x, _ := s.stringMap(filepath.Join(a, "switch-inhibitors"))
	y, _ := s.stringMap(filepath.Join(b, "switch-inhibitors"))
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
func (s systems) stringMap(name string) (map[string]string, bool) {
	text, err := os.ReadFile(s.real(name))
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
func (s systems) linkTarget(name string) string {
	if t, err := os.Readlink(s.real(name)); err == nil && filepath.IsAbs(t) {
		return t
	}
	switch st, err := os.Stat(s.real(name)); {
	case errors.Is(err, os.ErrNotExist):
		return ""
	case err == nil && st.Mode().IsRegular():
		return s.text(name)
	}
	return name
}

func (s systems) text(name string) string {
	text, err := os.ReadFile(s.real(name))
	if err != nil {
		return ""
	}
	return string(text)
}
