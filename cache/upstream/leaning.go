package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"narwharf/cache/state"
	"narwharf/narinfo"
)

// bucket holds a row for each path that an uploader was told to be here.
const bucket = "cache/leaning"

// row is what we lean on.
type row struct {
	From     string    `json:"from"` // URL of the upstream
	Since    time.Time `json:"since"`
	Used     time.Time `json:"used"`              // when an uploader, a reference or a promote asked last
	Checked  time.Time `json:"checked,omitzero"`  // when it was last seen there by the daily check
	Lost     time.Time `json:"lost,omitzero"`     // when it was found that no upstream has it any more
	Told     time.Time `json:"told,omitzero"`     // when a channel was told of that
	Promoted bool      `json:"promoted,omitzero"` // a release needs it, and it is to be fetched or checked
	Info     string    `json:"info"`              // the narinfo, as the upstream says it
}

// path is what the row leans on; nil if there is none, or not any more.
func (r *row) path(us *Upstreams) *Path {
	if r == nil || !r.Lost.IsZero() {
		return nil
	}
	i := slices.IndexFunc(us.all, func(u *Upstream) bool { return u.String() == r.From })
	if i < 0 {
		return nil
	}
	info, err := narinfo.Parse([]byte(r.Info))
	if err != nil {
		return nil
	}
	return &Path{Info: info, From: us.all[i], said: time.Now()}
}

// name is the path that the row is about.
func (r *row) name() narinfo.Path {
	info, err := narinfo.Parse([]byte(r.Info))
	if err != nil {
		return ""
	}
	return info.Path
}

func (us *Upstreams) row(ctx context.Context, hash string) (r *row, err error) {
	err = us.state.View(ctx, func(tx state.Reader) (err error) {
		r, err = state.GetJSON[row](tx, bucket, hash)
		return err
	})
	return r, err
}

// Lock is the lock of the state that whoever changes a record holds.
func Lock(hash string) string { return "leaning:" + hash }

// change makes something else of a row, nil being none, or leaves it.
func (us *Upstreams) change(ctx context.Context, hash string, fn func(r *row, now time.Time) (*row, error)) error {
	return us.state.Update(ctx, []string{Lock(hash)}, func(tx state.Tx) error {
		old, err := state.GetJSON[row](tx, bucket, hash)
		if err != nil {
			return err
		}
		now, err := tx.Now()
		if err != nil {
			return err
		}
		var next *row
		if old != nil {
			same := *old
			next = &same
		}
		next, err = fn(next, now.UTC())
		switch {
		case err != nil || next == nil:
			return err
		case old != nil && *old == *next:
			return nil
		}
		return state.PutJSON(tx, bucket, hash, next)
	})
}

// useEvery is how old the note of a use may become before it is written anew.
const useEvery = 6 * time.Hour

// Lean is Find for whoever may believe for a month that the path is here: the answer is durable.
func (us *Upstreams) Lean(ctx context.Context, hash string) (*Path, error) {
	return us.lean(ctx, hash, false)
}

func (us *Upstreams) lean(ctx context.Context, hash string, promoted bool) (*Path, error) {
	p, err := us.Find(ctx, hash)
	if err != nil {
		return nil, err
	}
	if r, err := us.row(ctx, hash); err != nil {
		return nil, err
	} else if leans := r.path(us); leans != nil && same(leans.Info, p.Info) && time.Since(r.Used) < useEvery && (r.Promoted || !promoted) {
		return p, nil
	}
	err = us.change(ctx, hash, func(r *row, now time.Time) (*row, error) {
		leans := r.path(us)
		if leans != nil && !same(leans.Info, p.Info) {
			p = leans // another was first
		}
		if leans == nil {
			promoted = promoted || r != nil && r.Promoted
			r = &row{Since: now}
			us.log.Info("leans on an upstream", "path", p.Info.Path, "upstream", p.From)
		}
		r.From, r.Info, r.Used = p.From.String(), string(p.Info.Append(nil)), now
		r.Promoted = r.Promoted || promoted
		return r, nil
	})
	return p, err
}

// Promote notes that a release needs those of paths that an upstream has, and returns the others. What it
// needs is then fetched in the background, or checked daily.
func (us *Upstreams) Promote(ctx context.Context, paths []narinfo.Path) (others []narinfo.Path, err error) {
	if us == nil {
		return paths, nil
	}
	not := make([]bool, len(paths))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i, path := range paths {
		g.Go(func() error {
			p, err := us.lean(gctx, path.Hash(), true)
			not[i] = errors.Is(err, fs.ErrNotExist) || err == nil && p.Info.Path != path
			if not[i] {
				err = nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, path := range paths {
		if not[i] {
			others = append(others, path)
		}
	}
	select {
	case us.wake <- struct{}{}:
	default:
	}
	return others, nil
}

// lose notes that no upstream has a path any more.
func (us *Upstreams) lose(ctx context.Context, hash string) error {
	us.known.Remove(hash)
	return us.change(ctx, hash, func(r *row, now time.Time) (*row, error) {
		if r == nil || !r.Lost.IsZero() {
			return nil, nil
		}
		us.log.Error("a path that we lean on is at no upstream any more: upload it, with nix copy --refresh", "path", hash, "upstream", r.From)
		r.Lost = now
		return r, nil
	})
}

// Leaning is a record, for those who say what is kept and why.
type Leaning struct {
	Info     *narinfo.Info
	From     string // URL of the upstream
	Since    time.Time
	Used     time.Time
	Lost     time.Time // zero while an upstream has it
	Promoted bool      // a release needed it, and it is not an upload yet
}

// Each calls fn with all records, in order of hash parts, in pages. A path of them may be an upload by now,
// which counts then. A nil Upstreams has none.
func (us *Upstreams) Each(ctx context.Context, fn func(page []Leaning) error) error {
	if us == nil {
		return nil
	}
	return us.state.Scan(ctx, bucket, state.Range{}, func(entries []state.Entry) error {
		page := make([]Leaning, 0, len(entries))
		for _, e := range entries {
			l, err := decode(e)
			if err != nil {
				return err
			}
			page = append(page, *l)
		}
		return fn(page)
	})
}

func decode(e state.Entry) (*Leaning, error) {
	var r row
	err := json.Unmarshal(e.Value, &r)
	var info *narinfo.Info
	if err == nil {
		info, err = narinfo.Parse([]byte(r.Info))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: record of %s: %w", bucket, e.Key, err)
	}
	return &Leaning{Info: info, From: r.From, Since: r.Since, Used: r.Used, Lost: r.Lost, Promoted: r.Promoted}, nil
}

// Leaning returns the record of a path by its hash part, nil if there is none.
func (us *Upstreams) Leaning(ctx context.Context, hash string) (l *Leaning, err error) {
	if us == nil {
		return nil, nil
	}
	err = us.state.View(ctx, func(tx state.Reader) error {
		v, err := tx.Get(bucket, hash)
		if err != nil || v == nil {
			return err
		}
		l, err = decode(state.Entry{Key: hash, Value: v})
		return err
	})
	return l, err
}

// Forget deletes a record if nobody has used it since a time and keep, which looks in the same
// transaction, does not want it.
func (us *Upstreams) Forget(ctx context.Context, hash string, before time.Time, keep func(tx state.Reader) (bool, error)) (gone bool, err error) {
	err = us.state.Update(ctx, []string{Lock(hash)}, func(tx state.Tx) error {
		gone = false
		r, err := state.GetJSON[row](tx, bucket, hash)
		if err != nil || r == nil || !r.Used.Before(before) {
			return err
		}
		kept, err := keep(tx)
		if err != nil || kept {
			return err
		}
		gone = true
		return tx.Delete(bucket, hash)
	})
	if gone && err == nil {
		us.known.Remove(hash)
	}
	return gone && err == nil, err
}
