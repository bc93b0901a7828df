package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/blob"
	"narwharf/cache/blob/diskcache"
	"narwharf/cache/blob/s3"
	"narwharf/hooks/serverconfig"
)

// openBucket opens content files in a bucket, behind a disk cache in data_dir.
func openBucket(cfg *serverconfig.Config, log *slog.Logger, metrics prometheus.Registerer) (*s3.Store, error) {
	own := filepath.Join(cfg.DataDir, "cache")
	if _, err := os.Stat(filepath.Join(own, "nix-cache-info")); err == nil {
		return nil, fmt.Errorf("storage.content is a bucket, and %s has the files of a server by itself, which would not be read: copy them there with narwharf export or aws s3 sync, then move the folder away", own)
	}
	s, err := newBucket(cfg, filepath.Join(cfg.DataDir, "disk-cache"), int64(cfg.Storage.CacheSize), log, metrics)
	if err != nil {
		return nil, err
	}
	if err = s.Check(); err == nil {
		err = s.Wait(context.Background())
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func newBucket(cfg *serverconfig.Config, dir string, size int64, log *slog.Logger, metrics prometheus.Registerer) (*s3.Store, error) {
	keys, err := s3.Keys(cfg.Storage.CredentialsFile)
	if err != nil {
		return nil, err
	}
	near, err := diskcache.Open(diskcache.Options{Dir: dir, Limit: size, Log: log, Metrics: metrics})
	if err != nil {
		return nil, err
	}
	return s3.New(s3.Options{Where: cfg.Storage.Bucket(), Credentials: keys, Cache: near, Redirect: cfg.Storage.Redirect, Log: log, Metrics: metrics})
}

// ReadBucket opens the bucket for a command that reads it beside a server, and keeps nothing on the disk.
// done ends it.
func ReadBucket(cfg *serverconfig.Config, log *slog.Logger) (files *s3.Store, done func(), err error) {
	dir, err := os.MkdirTemp("", "narwharf-")
	if err != nil {
		return nil, nil, err
	}
	if files, err = newBucket(cfg, dir, 0, log, nil); err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	return files, func() { files.Close(); _ = os.RemoveAll(dir) }, nil
}

// awayFor is how long a bucket may be away before somebody is told.
const awayFor = time.Minute

// Tend sweeps what is left in a bucket, and raises an alarm while it is away, until ctx ends.
func Tend(ctx context.Context, files blob.Store, alarm func(ctx context.Context, text string) error, log *slog.Logger) {
	s, ok := files.(*s3.Store)
	if !ok {
		return
	}
	var swept time.Time
	said := ""
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		text := ""
		if since, why := s.Away(); why != nil && time.Since(since) > awayFor {
			text = "the bucket does not answer: " + why.Error()
		}
		if (text == "") != (said == "") || said == "" && swept.IsZero() {
			if err := alarm(ctx, text); err != nil {
				log.Error("the alarm of the bucket was not noted", "error", err)
			} else {
				said = text
			}
		}
		if time.Since(swept) > 24*time.Hour {
			if err := s.Clean(time.Now()); err != nil {
				log.Warn("what is left of uploads in the bucket is not swept", "error", err)
			}
			swept = time.Now()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
