package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"narwharf/cache/state/durable"
	"narwharf/nixos/effect"
	"narwharf/nixos/linux/command"
)

// generation is the number in "system-42-link", 0 if it is no such name.
func generation(profile, link string) int64 {
	s, ok := strings.CutPrefix(link, filepath.Base(profile)+"-")
	if !ok {
		return 0
	}
	if s, ok = strings.CutSuffix(s, "-link"); !ok {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 || strconv.FormatInt(n, 10) != s {
		return 0
	}
	return n
}

// A profile is the system profile, by the name of its link.
type profile struct{ name string }

func (p profile) dir() string { return filepath.Dir(p.name) }

// facts reads the profile and its generations.
func (p profile) facts(f *effect.Facts) error {
	dir := p.dir()
	link, err := os.Readlink(p.name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	f.ProfileLink = filepath.Base(link)
	f.Generation = generation(p.name, f.ProfileLink)
	if f.Generation == 0 || (filepath.Dir(link) != "." && filepath.Dir(link) != dir) {
		return fmt.Errorf("%s is a link to %s, and not to one of its generations", p.name, link)
	}
	if f.Profile, err = os.Readlink(filepath.Join(dir, f.ProfileLink)); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		n := generation(p.name, e.Name())
		if n <= f.CurrentGen || f.Current == "" {
			continue
		}
		if path, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && path == f.Current {
			f.CurrentGen = n
		}
	}
	return nil
}

// SetProfile implements nixos.Boot.
func (p profile) SetProfile(ctx context.Context, path string) error {
	var f effect.Facts
	if err := p.facts(&f); err != nil {
		return err
	}
	if f.Profile == path {
		return nil
	}
	if err := os.MkdirAll(p.dir(), 0o755); err != nil {
		return err
	}
	if _, _, err := command.Run(ctx, 4096, nil, "nix-env", "--profile", p.name, "--set", path); err != nil {
		return err
	}
	return durable.SyncDir(p.dir())
}

// ResetProfile implements nixos.Boot. It does what `nix-env --switch-generation`
// and --delete-generations do, and needs no Nix.
func (p profile) ResetProfile(_ context.Context, link, bad string) error {
	dir := p.dir()
	if generation(p.name, link) == 0 {
		return fmt.Errorf("%q is no generation of %s", link, p.name)
	}
	if _, err := os.Readlink(filepath.Join(dir, link)); err != nil {
		return fmt.Errorf("the generation is gone: %w", err)
	}
	tmp := filepath.Join(dir, ".narwharf-"+filepath.Base(p.name))
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(link, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, p.name); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if generation(p.name, e.Name()) <= generation(p.name, link) {
			continue
		}
		if path, err := os.Readlink(name); err == nil && path == bad {
			if err := os.Remove(name); err != nil {
				return err
			}
		}
	}
	return durable.SyncDir(dir)
}
