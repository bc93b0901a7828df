package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"narwharf/cache/state"
	"narwharf/cache/state/admin"
	"narwharf/cache/state/bolt"
	"narwharf/cmd/narwharf/server"
	"narwharf/cmd/narwharf/server/storage"
	"narwharf/hooks/serverconfig"
)

// source is the state that is moved. That of a server by itself is asked of it while it runs.
type source struct {
	cfg     *serverconfig.Config
	version string
	log     *slog.Logger
	st      state.Movable // nil: a server has it
}

func openSource(ctx context.Context, cfg *serverconfig.Config, version string, log *slog.Logger) (*source, error) {
	s := &source{cfg: cfg, version: version, log: log}
	if !cfg.Storage.Shared() {
		if conn, err := admin.Dial(cfg.DataDir); err == nil {
			return s, conn.Close()
		}
	}
	st, err := storage.Movable(ctx, cfg, "", true, log)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is nothing to move: %w", err)
	}
	if err != nil {
		return nil, err
	}
	s.st = st
	return s, nil
}

func (s *source) close() error {
	if s.st == nil {
		return nil
	}
	return s.st.Close()
}

func (s *source) String() string {
	if s.st != nil {
		return s.st.String()
	}
	return storage.StateFile(s.cfg)
}

// job runs a job in the server that has the state.
func (s *source) job(ctx context.Context, name string, args any, out io.Writer) error {
	exit, err := server.RunJob(ctx, s.cfg, s.version, name, args, out, s.log)
	if err == nil && exit != 0 {
		err = fmt.Errorf("%s: the server ended it with %d", name, exit)
	}
	return err
}

// freeze has the state take no writes, nil: take them again.
func (s *source) freeze(ctx context.Context, f *state.Freeze) error {
	if s.st != nil {
		return s.st.Freeze(ctx, f)
	}
	return s.job(ctx, "freeze", f, io.Discard)
}

// read is the state as it is at a moment, or, where it is open here, as it is.
func (s *source) read(ctx context.Context) (st state.Movable, done func() error, err error) {
	if s.st != nil {
		return s.st, func() error { return nil }, nil
	}
	var name strings.Builder
	if err := s.job(ctx, "snapshot", struct{}{}, &name); err != nil {
		return nil, nil, err
	}
	file := strings.TrimSpace(name.String())
	if st, err = bolt.Open(file, bolt.Options{}); err != nil {
		return nil, nil, errors.Join(err, os.Remove(file))
	}
	return st, func() error { return errors.Join(st.Close(), os.Remove(file)) }, nil
}
