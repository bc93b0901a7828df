package upstream

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"narwharf/cache/state"
	"narwharf/narinfo"
)

// Tending is what Run needs of the rest.
type Tending struct {
	// Held tells whether a path is an upload.
	Held func(hash string) (bool, error)
	// Keep makes an upload of a path that Packed and Source give.
	Keep func(ctx context.Context, p *Path) error
	// Needs are the paths that channels need, with the channels.
	Needs func() (map[narinfo.Path][]string, error)
	// Lost is told which paths a channel needs and no upstream has any more.
	Lost func(ctx context.Context, channel string, paths []narinfo.Path) error
	// Referred tells whether an upload refers to a path.
	Referred func(hash string) (bool, error)
	// Grace is how long a record that nothing needs is kept after its last use.
	Grace time.Duration
}

const (
	tendEvery  = time.Hour
	checkEvery = 24 * time.Hour
	firstRetry = 10 * time.Second
	maxFetches = 2 // at once, beside those of hosts
)

// Run fetches what promoted releases need, looks daily whether what is not fetched is there still, and
// forgets records that nobody needs, until ctx ends.
func (us *Upstreams) Run(ctx context.Context, t Tending) {
	if us == nil {
		return
	}
	us.greet(ctx)
	retry := firstRetry
	for {
		failed, err := us.tend(ctx, &t)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			us.log.Error("look after what leans on upstreams", "error", err)
		}
		wait := tendEvery
		if failed > 0 {
			wait, retry = retry, min(2*retry, tendEvery)
		} else {
			retry = firstRetry
		}
		select {
		case <-ctx.Done():
			return
		case <-us.wake:
		case <-time.After(wait):
		}
	}
}

// greet looks whether the upstreams are for our store directory, and learns their ids.
func (us *Upstreams) greet(ctx context.Context) {
	for _, u := range us.all {
		ctx, cancel := context.WithTimeout(ctx, 5*lookupTime)
		err := u.try(ctx, false, func() error { return u.greet(ctx) })
		cancel()
		if err != nil && ctx.Err() == nil {
			us.log.Warn("an upstream does not answer", "upstream", u, "error", err)
		}
	}
}

func (u *Upstream) greet(ctx context.Context) error {
	resp, err := u.get(ctx, u.URL.JoinPath("nix-cache-info"), request{})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	for line := range strings.Lines(string(text)) {
		if dir, ok := strings.CutPrefix(line, "StoreDir:"); ok && strings.TrimSpace(dir) != u.set.storeDir {
			u.set.log.Error("an upstream is for another store directory: nothing of it counts", "upstream", u, "store_dir", strings.TrimSpace(dir))
		}
	}
	return err
}

// tend goes through all records once. failed is what should be tried again soon.
func (us *Upstreams) tend(ctx context.Context, t *Tending) (failed int, err error) {
	var promoted, old []string
	leaning, lost := int64(0), int64(0)
	err = us.Each(ctx, func(page []Leaning) error {
		for _, l := range page {
			hash := l.Info.Path.Hash()
			if leaning++; !l.Lost.IsZero() {
				lost++
			}
			switch {
			case l.Promoted:
				promoted = append(promoted, hash)
			case t.Grace > 0 && time.Since(l.Used) > t.Grace:
				old = append(old, hash)
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return 0, err
	}
	us.m.leaning.Store(leaning)
	us.m.lost.Store(lost)
	for _, hash := range old {
		_, err := us.Forget(ctx, hash, time.Now().Add(-t.Grace), func(state.Reader) (bool, error) { return t.Referred(hash) })
		if err != nil {
			return 0, err
		}
	}
	if len(promoted) == 0 {
		return 0, nil
	}
	return us.look(ctx, t, promoted)
}

// look fetches, or checks, what releases need.
func (us *Upstreams) look(ctx context.Context, t *Tending, hashes []string) (failed int, err error) {
	needs, err := t.Needs()
	if err != nil {
		return 0, err
	}
	results := make([]error, len(hashes))
	gone := make([]narinfo.Path, len(hashes))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxFetches)
	for i, hash := range hashes {
		g.Go(func() error {
			gone[i], results[i] = us.settle(gctx, t, hash, needs)
			return gctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	lost := make(map[string][]narinfo.Path)
	var told []string
	for i, p := range gone {
		if results[i] != nil {
			failed++
			us.log.Warn("what a release needs of an upstream could not be fetched now", "path", hashes[i], "error", results[i])
		} else if p != "" && len(needs[p]) == 0 {
			failed++ // its release is being promoted
		}
		for _, channel := range needs[p] {
			lost[channel] = append(lost[channel], p)
			told = append(told, hashes[i])
		}
	}
	for channel, paths := range lost {
		err = errors.Join(err, t.Lost(ctx, channel, paths))
	}
	for _, hash := range told {
		if err == nil {
			err = us.amend(ctx, hash, func(r *row, now time.Time) { r.Told = now })
		}
	}
	return failed, err
}

// settle does what is to be done for a path that a release needed. gone is the path if no upstream has it any
// more and no channel was told.
func (us *Upstreams) settle(ctx context.Context, t *Tending, hash string, needs map[narinfo.Path][]string) (gone narinfo.Path, err error) {
	r, err := us.row(ctx, hash)
	if err != nil || r == nil {
		return "", err
	}
	held, err := t.Held(hash)
	if err != nil {
		return "", err
	}
	path := r.name()
	if held || len(needs[path]) == 0 && time.Since(r.Used) > checkEvery {
		return "", us.settled(ctx, hash)
	}
	p := r.path(us)
	switch {
	case p == nil: // lost, or its upstream is not configured any more: it may be somewhere again
		_, err = us.lean(ctx, hash, true)
	case p.From.Keep:
		if err = t.Keep(ctx, p); err == nil {
			return "", us.settled(ctx, hash)
		}
	case time.Since(r.Checked) >= checkEvery:
		err = us.check(ctx, p)
	}
	if err == nil || errors.Is(err, ErrUnavailable) || !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if !r.Told.IsZero() {
		path = ""
	}
	return path, us.lose(ctx, hash)
}

// check looks whether what we lean on is there still.
func (us *Upstreams) check(ctx context.Context, p *Path) error {
	hash := p.Info.Path.Hash()
	now, err := us.lookup(ctx, hash, nil)
	if err != nil {
		return err
	}
	if !same(now.Info, p.Info) { // it is another than we lean on
		return fs.ErrNotExist
	}
	return us.amend(ctx, hash, func(r *row, now time.Time) { r.Checked = now })
}

// amend changes a row that is there.
func (us *Upstreams) amend(ctx context.Context, hash string, fn func(r *row, now time.Time)) error {
	return us.change(ctx, hash, func(r *row, now time.Time) (*row, error) {
		if r != nil {
			fn(r, now)
		}
		return r, nil
	})
}

// settled notes that nothing more is to be done for a path.
func (us *Upstreams) settled(ctx context.Context, hash string) error {
	return us.amend(ctx, hash, func(r *row, _ time.Time) { r.Promoted = false })
}
