package linux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"narwharf/cache/state/durable"
	"narwharf/nixos/effect"
	"narwharf/nixos/linux/sys"
)

// A boot implements nixos.Boot.
type boot struct {
	profile
	systems
	stateDir string
	unit     string // the agent's own, "" if it is no service
	config   string // the agent's file
	kexec    bool   // reboots go past the firmware, where that is possible
	log      *slog.Logger
	patience time.Duration // 0: rebootPatience
}

// rebootPatience is how long a host may take to go down.
const rebootPatience = 10 * time.Minute

// Reboot waits: the agent's end comes with the host's.
func (b *boot) Reboot(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	verb := "reboot"
	if b.kexec && b.viaKexec(asking) {
		verb = "kexec"
	} else if _, _, err := sys.Run(asking, 4096, nil, "systemctl", verb); err != nil {
		return err
	}
	patience := cmp.Or(b.patience, rebootPatience)
	if err := sys.Sleep(ctx, patience); err != nil {
		return err
	}
	return fmt.Errorf("systemctl %s did not end this boot in %s", verb, patience)
}

func (b *boot) Sync(context.Context) error {
	for _, d := range append(sys.BootMounts(), "/boot", "/efi", b.real(b.storeDir), b.stateDir, b.dir()) { // /boot may be of the root
		if _, err := os.Stat(d); err != nil {
			continue
		}
		if err := sys.Sync(d); err != nil {
			return fmt.Errorf("sync %s: %w", d, err)
		}
	}
	return nil
}

func (b *boot) BootRoom(context.Context) error {
	for _, d := range sys.BootMounts() { // the root's room is min_free's business
		if free, err := sys.Free(d); err == nil && free == 0 {
			return fmt.Errorf("a full %s", d)
		}
	}
	return nil
}

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

// facts reads the profile and its generations. A profile that people made something else of
// is not in the way of the next commit, which gives it a generation.
func (p profile) facts(f *effect.Facts, s systems) error {
	dir := p.dir()
	link, err := os.Readlink(p.name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case errors.Is(err, syscall.EINVAL):
		f.ProfileFault = p.name + " is no link"
		return nil
	case err != nil:
		return err
	}
	name := filepath.Base(link)
	n := generation(p.name, name)
	path, err := os.Readlink(filepath.Join(dir, name))
	switch {
	case n == 0 || (filepath.Dir(link) != "." && filepath.Dir(link) != dir):
		f.ProfileFault = fmt.Sprintf("%s is a link to %s, and not to one of its generations", p.name, link)
		f.Profile, _ = s.link(p.name) // links in a circle lead nowhere
	case errors.Is(err, os.ErrNotExist):
		f.ProfileFault = fmt.Sprintf("%s is the generation %s, which is gone", p.name, name)
	case errors.Is(err, syscall.EINVAL):
		f.ProfileFault = fmt.Sprintf("%s is the generation %s, which is no link", p.name, name)
	case err != nil:
		return err
	default:
		f.Profile, f.ProfileLink, f.Generation = path, name, n
	}
	if f.ProfileFault != "" {
		f.ProfileFault += "; the next commit makes one"
	}
	f.CurrentGen = generation(p.name, p.newest(f.Current))
	return nil
}

// newest is the link of a system's newest generation, "" if it has none.
func (p profile) newest(path string) (link string) {
	entries, _ := os.ReadDir(p.dir()) // of what cannot be read there is none
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(p.dir(), e.Name())); err == nil && to == path && generation(p.name, e.Name()) > generation(p.name, link) {
			link = e.Name()
		}
	}
	return link
}

func (p profile) SetProfile(ctx context.Context, path string) error {
	var f effect.Facts
	if err := p.facts(&f, systems{storeDir: filepath.Dir(path)}); err != nil {
		return err
	}
	if f.Profile == path && f.ProfileFault == "" {
		return nil
	}
	if err := os.MkdirAll(p.dir(), 0o755); err != nil {
		return err
	}
	if _, _, err := sys.Run(ctx, 4096, nil, "nix-env", "--profile", p.name, "--set", path); err != nil {
		return err
	}
	return durable.SyncDir(p.dir())
}

// ResetProfile does what `nix-env --switch-generation`
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
