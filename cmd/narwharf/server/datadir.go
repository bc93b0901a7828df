package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/bolt"
	"narwharf/cache/state/durable"
	"narwharf/hooks/serverconfig"
	"narwharf/signing/access"
)

const (
	schema       = "1" // the version of data_dir as a whole
	schemaBucket = "narwharf"
	schemaKey    = "schema"
)

// dataDir is an open data_dir, but for the cache in it. One process at a time has it.
type dataDir struct {
	cfg    *serverconfig.Config
	log    *slog.Logger
	state  *bolt.Store
	tokens *access.Tokens
}

// openDataDir opens data_dir, making it if it is empty or absent. It waits a
// little for a process that is just leaving.
func openDataDir(cfg *serverconfig.Config, log *slog.Logger) (*dataDir, error) {
	if err := os.MkdirAll(cfg.DataDir, 0o755); err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	if err := becomeOwner(cfg.DataDir); err != nil {
		return nil, err
	}
	if err := durable.Sweep(cfg.DataDir, time.Hour); err != nil {
		return nil, err
	}
	file := filepath.Join(cfg.DataDir, "narwharf.db")
	st, err := bolt.Open(file, bolt.Options{})
	if errors.Is(err, state.ErrInUse) {
		return nil, fmt.Errorf("%s is %w by another narwharf that does not answer on its admin socket: see who with `fuser %s`", file, state.ErrInUse, file)
	}
	if err != nil {
		return nil, err
	}
	d := &dataDir{cfg: cfg, log: log, state: st}
	var restored int
	if err = checkSchema(st); err == nil {
		d.tokens, restored, err = access.Open(context.Background(), st, filepath.Join(cfg.DataDir, "tokens"))
	}
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	if restored > 0 {
		log.Info("the database lacked tokens, they are back from their file", "tokens", restored)
	}
	return d, nil
}

// checkSchema refuses a state that a newer narwharf wrote.
func checkSchema(st state.Store) error {
	return st.Update(context.Background(), []string{schemaBucket}, func(tx state.Tx) error {
		v, err := tx.Get(schemaBucket, schemaKey)
		switch {
		case err != nil || string(v) == schema:
			return err
		case v == nil:
			return tx.Put(schemaBucket, schemaKey, []byte(schema))
		}
		return fmt.Errorf("%s has version %s and this narwharf knows version %s: use the newer narwharf", st, v, schema)
	})
}

// Close leaves data_dir in order.
func (d *dataDir) Close() error { return d.state.Close() }

// becomeOwner makes a process of root's work as the owner of dir, so that
// `sudo narwharf …` leaves no file that the service cannot read.
func becomeOwner(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	uid, gid := int(owner.Uid), int(owner.Gid)
	if err := syscall.Setgroups([]int{gid}); err != nil {
		return fmt.Errorf("work as the owner of %s: %w", dir, err)
	}
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return fmt.Errorf("work as the owner of %s: %w", dir, err)
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return fmt.Errorf("work as the owner of %s: %w", dir, err)
	}
	return nil
}

// newLogger writes text to stderr, where systemd and people look for it.
func newLogger(cfg *serverconfig.Config, w *os.File) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
		return nil, fmt.Errorf("log.level: %q is none of debug, info, warn, error", cfg.Log.Level)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})), nil
}
