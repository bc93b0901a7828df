package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"narwharf/nixos"
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

// profileFacts reads the profile and its generations.
func (h *Host) profileFacts(f *nixos.Facts) error {
	profile := h.Config.Profile
	dir := filepath.Dir(profile)
	link, err := os.Readlink(profile)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	f.ProfileLink = filepath.Base(link)
	f.Generation = generation(profile, f.ProfileLink)
	if f.Generation == 0 || (filepath.Dir(link) != "." && filepath.Dir(link) != dir) {
		return fmt.Errorf("%s is a link to %s, and not to one of its generations", profile, link)
	}
	if f.Profile, err = os.Readlink(filepath.Join(dir, f.ProfileLink)); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		n := generation(profile, e.Name())
		if n <= f.CurrentGen || f.Current == "" {
			continue
		}
		if path, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && path == f.Current {
			f.CurrentGen = n
		}
	}
	return nil
}

// SetProfile implements System.
func (h *Host) SetProfile(ctx context.Context, path string) error {
	var f nixos.Facts
	if err := h.profileFacts(&f); err != nil {
		return err
	}
	if f.Profile == path {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(h.Config.Profile), 0o755); err != nil {
		return err
	}
	if _, _, err := command(ctx, 4096, nil, "nix-env", "--profile", h.Config.Profile, "--set", path); err != nil {
		return err
	}
	return nixos.SyncDir(filepath.Dir(h.Config.Profile))
}

// ResetProfile implements System. It does what `nix-env --switch-generation`
// and --delete-generations do, and needs no Nix.
func (h *Host) ResetProfile(_ context.Context, link, bad string) error {
	profile := h.Config.Profile
	dir := filepath.Dir(profile)
	if generation(profile, link) == 0 {
		return fmt.Errorf("%q is no generation of %s", link, profile)
	}
	if _, err := os.Readlink(filepath.Join(dir, link)); err != nil {
		return fmt.Errorf("the generation is gone: %w", err)
	}
	tmp := filepath.Join(dir, ".narwharf-"+filepath.Base(profile))
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(link, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, profile); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if generation(profile, e.Name()) <= generation(profile, link) {
			continue
		}
		if path, err := os.Readlink(name); err == nil && path == bad {
			if err := os.Remove(name); err != nil {
				return err
			}
		}
	}
	return nixos.SyncDir(dir)
}
