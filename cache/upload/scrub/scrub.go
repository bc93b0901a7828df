// Package scrub reads all that was uploaded once in an interval, in the background, and
// finds what a disk has spoilt before somebody needs it.
//
// A path's turn comes by its hash part: hash parts are spread evenly, so the reading is,
// too, and nobody has to count. Who was off catches up at a bounded rate. Files are read
// from the disk and not from memory, and leave nothing there.
//
// How far it is stands in the state, bucket cache/scrub, so that a server that starts
// goes on. Nothing is taken away that cannot be had from elsewhere: that is for a person
// with narwharf fsck --repair.
package scrub

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"narwharf/cache/index"
	"narwharf/cache/state"
	"narwharf/cache/upload"
	"narwharf/narinfo"
)

// Options of a Scrubber.
type Options struct {
	Uploads *upload.Store
	// Next returns the first record behind a hash part (index.Table.After).
	Next  func(hash string) (string, *index.Record, error)
	State state.Store
	// Interval is the time in which everything is read once.
	Interval time.Duration
	// Rate is how many bytes are read in a second at most; 0 is 32 MiB.
	Rate int64
	// Mend gets a NAR file anew (fsck.Mend), if it can.
	Mend func(ctx context.Context, hash, name string) (mended bool, err error)
	// Alarm tells people.
	Alarm func(ctx context.Context, f Finding) error
	Log   *slog.Logger
}

// Finding is a NAR file that is not what it was.
type Finding struct {
	Path   narinfo.Path // that names it
	File   string       // "nar/…"
	Text   string       // what is wrong
	Mended bool
}

// Scrubber reads. Its numbers can be asked at any time.
type Scrubber struct {
	Options
	read, damaged atomic.Int64
	rounds        atomic.Int64 // when the last round ended, in Unix seconds; 0: none did
}

// New makes a Scrubber.
func New(o Options) *Scrubber {
	if o.Rate == 0 {
		o.Rate = 32 << 20
	}
	return &Scrubber{Options: o}
}

// round is what the state keeps.
type round struct {
	Begun time.Time `json:"begun"`
	After string    `json:"after,omitempty"` // the last path that was read
	Ended time.Time `json:"ended,omitzero"`  // the round before
}

const (
	bucket = "cache/scrub"
	key    = "round"
	keep   = time.Minute      // between two times that the round is kept
	retry  = 10 * time.Minute // after an error of the state
)

// Run reads until ctx ends.
func (s *Scrubber) Run(ctx context.Context) {
	if s.Interval <= 0 {
		return
	}
	for ctx.Err() == nil {
		if err := s.round(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("scrub", "error", err, "again_in", retry)
			wait(ctx, retry)
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// round reads what is left of a round, and waits for the next.
func (s *Scrubber) round(ctx context.Context) (err error) {
	r, err := s.load(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.save(r)) }()
	kept := time.Now()
	for {
		hash, record, err := s.Next(r.After)
		if hash == "" {
			if err != nil {
				return err
			}
			break
		}
		wait(ctx, time.Until(r.Begun.Add(due(hash, s.Interval))))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil { // a damaged record is for fsck
			s.Log.Error("scrub", "path", hash, "error", err)
		} else if err := s.path(ctx, record); err != nil {
			return err
		}
		r.After = hash
		if time.Since(kept) > keep {
			if err := s.save(r); err != nil {
				return err
			}
			kept = time.Now()
		}
	}
	wait(ctx, time.Until(r.Begun.Add(s.Interval)))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	now := time.Now()
	s.rounds.Store(now.Unix())
	*r = round{Begun: now, Ended: now}
	return nil
}

// due is when the turn of a path comes in a round.
func due(hash string, interval time.Duration) time.Duration {
	part, step := 0.0, 1.0
	for _, digit := range hash[:8] {
		step /= 32
		part += step * float64(strings.IndexRune("0123456789abcdfghijklmnpqrsvwxyz", digit))
	}
	return time.Duration(part * float64(interval))
}

func (s *Scrubber) load(ctx context.Context) (r *round, err error) {
	err = s.State.View(ctx, func(tx state.Reader) error {
		r, err = state.GetJSON[round](tx, bucket, key)
		return err
	})
	if r == nil || time.Now().Before(r.Begun) {
		r = &round{Begun: time.Now()}
	}
	if !r.Ended.IsZero() {
		s.rounds.Store(r.Ended.Unix())
	}
	return r, err
}

func (s *Scrubber) save(r *round) error {
	return s.State.Update(context.Background(), []string{bucket}, func(tx state.Tx) error { return state.PutJSON(tx, bucket, key, r) })
}

// path reads the files of a path. One that several name is read for the first of them.
func (s *Scrubber) path(ctx context.Context, r *index.Record) error {
	hash := r.Info.Path.Hash()
	for _, name := range r.Files() {
		users, err := s.Uploads.Index.Users(name)
		if err != nil {
			return err
		}
		if len(users) > 0 && users[0] < hash {
			continue
		}
		text, err := s.file(ctx, name)
		if err != nil {
			return err
		}
		if text == "" {
			continue
		}
		if err := s.found(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// found mends what is damaged, if it still is, and tells people.
func (s *Scrubber) found(ctx context.Context, name string) error {
	users, err := s.Uploads.Index.Users(name)
	if err != nil || len(users) == 0 { // deleted meanwhile
		return err
	}
	text, err := s.file(ctx, name)
	if err != nil || text == "" { // replaced meanwhile
		return err
	}
	s.damaged.Add(1)
	s.Log.Error("scrub: a NAR is damaged", "file", name, "what", text)
	for _, user := range users {
		f := Finding{File: name, Text: text}
		r, err := s.Uploads.Index.Get(user)
		if errors.Is(err, index.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		f.Path = r.Info.Path
		if f.Mended, err = s.Mend(ctx, user, name); err != nil && ctx.Err() == nil && !errors.Is(err, fs.ErrNotExist) {
			s.Log.Error("scrub: it cannot be fetched anew", "path", f.Path, "error", err)
		}
		if err := s.Alarm(ctx, f); err != nil {
			return err
		}
	}
	return nil
}
