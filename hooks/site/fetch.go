package site

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"narwharf/narinfo"
)

// begin fetches, in the background, those of paths that are not here; what it returns ends that.
func (f *Follower) begin(ctx context.Context, name string, paths []narinfo.Path) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		pause := firstPause
		for begun, before := time.Now(), len(paths); ; {
			left, err := f.lacks(ctx, paths)
			f.note(name, len(left))
			if err == nil && len(left) == 0 {
				f.Log.Info("a site has what a channel needs", "channel", name, "paths", len(paths), "took", time.Since(begun).Round(time.Millisecond).String())
				return
			}
			if err == nil {
				err = f.fetch(ctx, name, left)
			}
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				continue // to look whether all is here
			}
			level := slog.LevelDebug
			if pause == firstPause || len(left) != before { // once for each cut
				level, pause = slog.LevelWarn, firstPause
			}
			before = len(left)
			f.Log.Log(ctx, level, "a path of a channel could not be fetched now", "centre", f.Name, "channel", name, "error", err)
			wait(ctx, pause)
			pause = min(2*pause, lastPause)
		}
	}()
	return func() { cancel(); <-done }
}

// lacks are those of paths that are not here.
func (f *Follower) lacks(ctx context.Context, paths []narinfo.Path) (left []narinfo.Path, err error) {
	for _, p := range paths {
		has, err := f.Cache.Has(ctx, p)
		if err != nil {
			return paths, err
		}
		if !has {
			left = append(left, p)
		}
	}
	return left, nil
}

// fetch tries each of paths once, a few at a time, and returns the first error.
func (f *Follower) fetch(ctx context.Context, name string, paths []narinfo.Path) (failed error) {
	var all sync.WaitGroup
	var mu sync.Mutex
	for _, p := range paths {
		select {
		case f.turns <- struct{}{}:
		case <-ctx.Done():
			all.Wait()
			return ctx.Err()
		}
		all.Go(func() {
			defer func() { <-f.turns }()
			err := f.one(ctx, p)
			mu.Lock()
			defer mu.Unlock()
			if err != nil && failed == nil {
				failed = err
			}
			if err == nil {
				f.came(name)
			}
		})
	}
	all.Wait()
	return failed
}

// one fetches a path, unless another channel has by now.
func (f *Follower) one(ctx context.Context, p narinfo.Path) error {
	if has, err := f.Cache.Has(ctx, p); has || err != nil {
		return err
	}
	return f.Cache.Fetch(ctx, p)
}

func (f *Follower) note(name string, missing int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen[name].missing = missing
}

func (f *Follower) came(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen[name].missing--
}
