// Package listing makes the listing of an uploaded path, /<hash>.ls, out of its NAR
// when it is first asked for, and stores it. The NAR was verified, what a client
// sends as a listing cannot be: see docs/design/006-listings-from-verified-bytes.md.
package listing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/nar"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/cache/state/namelock"
	"narwharf/cache/upload"
	"narwharf/narinfo"
)

// Maker makes listings. It is safe for concurrent use.
type Maker struct {
	uploads *upload.Store
	log     *slog.Logger
	turns   chan struct{} // holds one for each listing being made
	locks   namelock.Set
}

// New makes a Maker.
func New(uploads *upload.Store, log *slog.Logger) *Maker {
	return &Maker{uploads: uploads, log: log, turns: make(chan struct{}, runtime.GOMAXPROCS(0))}
}

// Turn waits until few others unpack something: that costs more than asking for it.
// done ends the turn.
func (m *Maker) Turn(ctx context.Context) (done func(), err error) {
	select {
	case m.turns <- struct{}{}:
		return func() { <-m.turns }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Open opens the listing of an uploaded path, and makes it if need be.
func (m *Maker) Open(ctx context.Context, hash string) (*blob.File, error) {
	f, err := m.uploads.Files.Open(hash + ".ls")
	if errors.Is(err, fs.ErrNotExist) {
		return m.make(ctx, hash)
	}
	return f, err
}

// make makes the listing of a path, stores it and returns it.
func (m *Maker) make(ctx context.Context, hash string) (*blob.File, error) {
	name := hash + ".ls"
	// Anybody may ask for the listing of anything, and making one reads a
	// whole NAR: each is made once, whoever else waits, and a few at a time.
	defer m.locks.Lock(name)()
	if f, err := m.uploads.Files.Open(name); err == nil {
		return f, nil
	}
	done, err := m.Turn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	r, err := m.uploads.Index.Get(hash)
	if err != nil {
		return nil, err
	}
	text, err := m.list(r.Info)
	if err != nil {
		return nil, err
	}
	if err := blob.WriteFile(m.uploads.Files, name, text); err != nil {
		m.log.Warn("a listing could not be kept, it will be made again", "file", name, "error", err)
	} else if now, err := m.uploads.Index.Get(hash); err != nil || now.Info.NarHash != r.Info.NarHash {
		// The path was taken out meanwhile, and may have come back as another.
		if err := errors.Join(err, m.uploads.Files.Remove(name)); err != nil {
			return nil, err
		}
	}
	modified := time.Now()
	if st, err := m.uploads.Files.Stat(name); err == nil {
		modified = st.ModTime // the ETag is made of it, and later answers have the file's
	}
	return &blob.File{
		Info:    blob.Info{Name: name, Size: int64(len(text)), ModTime: modified},
		Content: inMemory{bytes.NewReader(text)},
	}, nil
}

type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

// list reads the NAR of a path and returns the listing's text.
func (m *Maker) list(info *narinfo.Info) ([]byte, error) {
	plain, err := narfile.Open(m.uploads.Files, info.URL)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	root, err := nar.List(plain)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", info.URL, errors.New(err.Error()))
	}
	return Text(info.Path, root)
}

// Text is a listing as it is sent. Where a name is none that JSON can hold there is
// no listing; Nix writes none either.
func Text(p narinfo.Path, root *nar.Node) ([]byte, error) {
	text, err := root.AppendJSON(nil)
	if err != nil {
		return nil, refusal.New(refusal.Missing, "%s has no listing: %v", p, err)
	}
	return text, nil
}
