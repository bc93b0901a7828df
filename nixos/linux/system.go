package linux

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"narwharf/cache/state/durable"
	"narwharf/hooks/api"
	"narwharf/hooks/reboot/cause"
	"narwharf/nixos"
	"narwharf/nixos/config"
	"narwharf/nixos/effect"
	"narwharf/nixos/linux/sys"
)

// A system implements nixos.System.
type system struct {
	config  *config.Config
	systems systems
	profile profile
}

func (s *system) Facts(context.Context) (effect.Facts, error) {
	c := s.config
	boot, err := sys.BootID()
	if err != nil {
		return effect.Facts{}, err
	}
	awake := sys.Monotonic()
	f := effect.Facts{BootID: boot, Now: sys.BootClock(), Wall: time.Now()}
	f.Slept = max(f.Now-awake.Milliseconds(), 0)
	if f.Current, err = s.systems.current(); err != nil {
		return f, err
	}
	if f.Booted, err = s.systems.booted(); err != nil {
		return f, err
	}
	if err := s.profile.facts(&f, s.systems); err != nil {
		return f, err
	}
	if st, err := os.Lstat(filepath.Join(c.RunDir, "current-system")); err == nil {
		f.CurrentAge = max(int64(f.Wall.Sub(st.ModTime())/time.Second), 0)
	}
	if f.Booted != "" && f.Current != "" && f.Booted != f.Current {
		f.NeedReboot = s.systems.differences(f.Booted, f.Current)
	}
	if f.Pause, err = ReadPause(c.StateDir, f.Wall); err != nil {
		return f, err
	}
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return f, err
	}
	f.Random = hex.EncodeToString(random[:])
	return f, nil
}

func (s *system) Specialisations(path string) map[string]string {
	return s.systems.specialisations(path)
}

func (s *system) Sleep(ctx context.Context, d time.Duration) error { return sys.Sleep(ctx, d) }

// look is what people change on a host, cheaply.
func (s *system) look() string {
	c := s.config
	text := ""
	for _, name := range []string{filepath.Join(c.RunDir, "current-system"), c.Profile} {
		to, err := os.Readlink(name)
		text += fmt.Sprintln(to, err)
	}
	if st, err := os.Stat(pauseFile(c.StateDir)); err == nil {
		text += fmt.Sprintln(st.Size(), st.ModTime().UnixNano())
	}
	return text
}

func pauseFile(stateDir string) string { return filepath.Join(stateDir, "pause.json") }

// ReadPause is what a person on the host has said, nil if nothing that still
// holds.
func ReadPause(stateDir string, now time.Time) (*api.Hold, error) {
	text, err := os.ReadFile(pauseFile(stateDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p := new(api.Hold)
	if err := json.Unmarshal(text, p); err != nil {
		return &api.Hold{Reason: "pause.json cannot be read: " + err.Error(), By: "?"}, nil
	}
	if p.Until != nil && !now.Before(*p.Until) {
		return nil, nil
	}
	return p, nil
}

// WritePause pauses the host, or with nil lets it go on.
func WritePause(stateDir string, p *api.Hold) error {
	if p == nil {
		err := os.Remove(pauseFile(stateDir))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return durable.WriteFile(pauseFile(stateDir), append(text, '\n'), 0o644)
}

// systems are the NixOS systems in the store. One of them runs, one was booted.
type systems struct {
	root     string // in front of storeDir, for a store that is mounted elsewhere
	storeDir string
	runDir   string // has the links current-system and booted-system
}

// specialisations are links below specialisation/ in a system, each to another one.
func (s systems) specialisations(path string) map[string]string {
	entries, _ := os.ReadDir(s.real(filepath.Join(path, "specialisation"))) // most have none
	found := make(map[string]string)
	for _, e := range entries {
		if to, err := s.link(s.real(filepath.Join(path, "specialisation", e.Name()))); err == nil && to != "" {
			found[e.Name()] = to
		}
	}
	return found
}

// real is where the files of a store path are.
func (s systems) real(path string) string { return s.root + path }

func (s systems) current() (string, error) { return s.link(filepath.Join(s.runDir, "current-system")) }

func (s systems) booted() (string, error) { return s.link(filepath.Join(s.runDir, "booted-system")) }

// link is the store path that a link leads to, by way of others perhaps. It need not be
// there. "" is that there is no link, as in a container or an installer.
func (s systems) link(name string) (string, error) {
	for hop := range 8 {
		to, err := os.Readlink(name)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return "", nil
		case hop > 0 && errors.Is(err, syscall.EINVAL): // no link: it ends here
			return name, nil
		case err != nil:
			return "", err
		case strings.HasPrefix(to, s.storeDir+"/"):
			return to, nil
		case !filepath.IsAbs(to):
			to = filepath.Join(filepath.Dir(name), to)
		}
		name = to
	}
	return "", fmt.Errorf("%s: a link that leads through too many others", name)
}

// Reasons compares path with the booted system, which says what
// needs a reboot, and with the running one, which says what forbids a switch.
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
func (s systems) differences(a, b string) []string { return cause.Between(s.facts(a), s.facts(b)) }

// facts are what of a system takes a reboot.
func (s systems) facts(path string) cause.Facts {
	f := make(cause.Facts)
	if text, err := os.ReadFile(s.real(filepath.Join(path, cause.Triggers))); err == nil {
		f[cause.Triggers] = string(text)
	}
	for _, name := range cause.Links {
		f[name] = s.linkTarget(filepath.Join(path, name))
	}
	for _, name := range cause.Texts {
		f[name] = s.text(filepath.Join(path, name))
	}
	return f
}

// unit is all that a system says of a unit of systemd's: its file, its template's, and the
// drop-ins of both; those of all units of its type, and of all whose names begin as its does
// up to a dash (systemd.unit(5)).
func (s systems) unit(path, name string) string {
	dir := filepath.Join(path, "etc", "systemd", "system")
	ext := filepath.Ext(name)
	names := []string{name, strings.TrimPrefix(ext, ".")}
	if base, _, ok := strings.Cut(name, "@"); ok {
		names = append(names, base+"@"+ext)
	}
	for i, r := range strings.TrimSuffix(name, ext) {
		if r == '-' && i+1+len(ext) < len(name) {
			names = append(names, name[:i+1]+ext)
		}
	}
	text := ""
	for _, name := range names {
		text += s.text(filepath.Join(dir, name)) + "\x00"
		drops, err := os.ReadDir(s.real(filepath.Join(dir, name+".d")))
		if err != nil {
			continue // most have none
		}
		for _, d := range drops {
			text += d.Name() + "\x00" + s.text(filepath.Join(dir, name+".d", d.Name())) + "\x00"
		}
	}
	return text
}

// inhibitors are the switch-inhibitors that both systems have, with different
// values (nixpkgs, switch-to-configuration-ng).
func (s systems) inhibitors(a, b string) []string {
	x, _ := s.stringMap(filepath.Join(a, "switch-inhibitors"))
	y, _ := s.stringMap(filepath.Join(b, "switch-inhibitors"))
	var diff []string
	for _, k := range slices.Sorted(maps.Keys(y)) {
		if old, ok := x[k]; ok && old != y[k] {
			diff = append(diff, "switch-inhibitors: "+k)
		}
	}
	return diff
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
	text, _ := os.ReadFile(s.real(name)) // of what is not there there is none
	return string(text)
}
