package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/state"
	"narwharf/cache/state/bolt"
	"narwharf/cache/state/postgres"
	"narwharf/hooks/serverconfig"
)

// Place is where the content files of a server lie. A state that is frozen says by it which servers may write.
func Place(cfg *serverconfig.Config) string {
	if at := cfg.Storage.Bucket(); at != nil {
		return at.String()
	}
	if cfg.Storage.Content != "" {
		return cfg.Storage.Content
	}
	return filepath.Join(cfg.DataDir, "cache")
}

// StateFile is where the state of a server by itself is.
func StateFile(cfg *serverconfig.Config) string { return filepath.Join(cfg.DataDir, "narwharf.db") }

// Movable opens a state to be copied, for a Store with a place of its own. Of a server by itself it is not there
// while that runs: state.ErrInUse, wrapped. One that shall be read and is not there is fs.ErrNotExist.
func Movable(ctx context.Context, cfg *serverconfig.Config, place string, read bool, log *slog.Logger) (state.Movable, error) {
	if cfg.Storage.Shared() {
		st, err := openDatabase(ctx, cfg, place, log)
		if err != nil {
			return nil, err
		}
		return st, nil
	}
	file := StateFile(cfg)
	if _, err := os.Stat(file); read && errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return openFile(file, place)
}

func openFile(file, place string) (state.Movable, error) {
	st, err := bolt.Open(file, bolt.Options{Place: place})
	if err != nil {
		return nil, inUse(file, err)
	}
	return st, nil
}

func openDatabase(ctx context.Context, cfg *serverconfig.Config, place string, log *slog.Logger) (*postgres.Store, error) {
	s := &cfg.Storage
	st, err := postgres.Open(ctx, postgres.Options{URL: s.State, Listen: s.StateListen, Password: s.Password, Stale: time.Duration(s.Stale), Place: place, Log: log})
	if err != nil {
		return nil, fmt.Errorf("storage.state: %w", err)
	}
	return st, nil
}

// MovableContent opens content files to be copied, beside a server that has them. done ends it.
func MovableContent(cfg *serverconfig.Config, log *slog.Logger) (files blob.Store, done func(), err error) {
	if at := cfg.Storage.Bucket(); at != nil {
		bucket, done, err := Bucket(at, cfg.Storage.CredentialsFile, log)
		if err != nil {
			return nil, nil, err
		}
		return bucket, done, nil
	}
	root := Place(cfg)
	temp := filepath.Join(root, ".migrate") // Nix and List pass over it
	files, err = blob.NewFS(root, temp)
	if err != nil {
		return nil, nil, err
	}
	return files, func() { _ = os.RemoveAll(temp) }, nil
}

// PairFile is the file by which content files know their state: see Pair.
const PairFile = idFile

// IsPair tells whether a key of the state is its half of that.
func IsPair(bucket, key string) bool { return bucket == idBucket && key == idKey }
