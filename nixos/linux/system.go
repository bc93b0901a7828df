package linux

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"narwharf/nixos/config"
	"narwharf/nixos/effect"
	"narwharf/nixos/linux/kernel"
)

// A system implements nixos.System.
type system struct {
	config  *config.Config
	systems systems
	profile profile
}

// Facts implements nixos.System.
func (s *system) Facts(context.Context) (effect.Facts, error) {
	c := s.config
	boot, err := kernel.BootID()
	if err != nil {
		return effect.Facts{}, err
	}
	f := effect.Facts{BootID: boot, Now: kernel.BootClock(), Wall: time.Now()}
	if f.Current, err = s.systems.current(); err != nil {
		return f, err
	}
	if f.Booted, err = s.systems.booted(); err != nil {
		return f, err
	}
	if err := s.profile.facts(&f); err != nil {
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

// Sleep implements nixos.System.
func (s *system) Sleep(ctx context.Context, d time.Duration) error { return sleep(ctx, d) }

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

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
