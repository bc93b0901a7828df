package storage

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/blob"
	"narwharf/cache/blob/diskcache"
	"narwharf/cache/blob/s3"
	"narwharf/cache/blob/s3/location"
	"narwharf/hooks/serverconfig"
)

// openBucket opens content files in a bucket, behind a disk cache in data_dir.
func openBucket(cfg *serverconfig.Config, log *slog.Logger, metrics prometheus.Registerer) (*s3.Store, error) {
	o, own := &cfg.Storage, filepath.Join(cfg.DataDir, "cache")
	if _, err := os.Stat(filepath.Join(own, "nix-cache-info")); err == nil {
		return nil, fmt.Errorf("storage.content is a bucket, and %s has the files of a server by itself, which would not be read: bring them there with narwharf migrate, then move the folder away", own)
	}
	s, err := newBucket(o.Bucket(), o.CredentialsFile, filepath.Join(cfg.DataDir, "disk-cache"), int64(o.CacheSize), o.Redirect, log, metrics)
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

func newBucket(where *location.Location, credentials, dir string, size int64, redirect bool, log *slog.Logger, metrics prometheus.Registerer) (*s3.Store, error) {
	keys, err := s3.Keys(credentials)
	if err != nil {
		return nil, err
	}
	near, err := diskcache.Open(diskcache.Options{Dir: dir, Limit: size, Log: log, Metrics: metrics})
	if err != nil {
		return nil, err
	}
	return s3.New(s3.Options{Where: where, Credentials: keys, Cache: near, Redirect: redirect, Log: log, Metrics: metrics})
}

// Bucket opens a bucket for a command that reads or writes it beside a server, and keeps nothing on the
// disk. done ends it.
func Bucket(where *location.Location, credentials string, log *slog.Logger) (files *s3.Store, done func(), err error) {
	dir, err := os.MkdirTemp("", "narwharf-")
	if err != nil {
		return nil, nil, err
	}
	done = func() { _ = os.RemoveAll(dir) }
	if files, err = newBucket(where, credentials, dir, 0, false, log, nil); err == nil {
		done = func() { files.Close(); _ = os.RemoveAll(dir) }
		err = files.Check()
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return files, done, nil
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
