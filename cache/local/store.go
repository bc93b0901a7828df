// Package local serves the Nix store of this machine as a second source of the
// cache: its store paths have narinfos, NARs, files and build logs without
// having been uploaded. It knows no HTTP. See docs/design/009-local-store.md.
//
// # What it promises
//
//   - Every answer is true at the moment at which it is given. Path.Current
//     tells cheaply whether an earlier one still is.
//   - A NAR that is not what Nix's database says never comes out whole: a
//     compressed one has no end of frame, a plain one lacks its last bytes.
//   - A compressed NAR goes by the name "<hash part>-<nar hash>.nar.zst" and
//     has the same bytes for ever; package compress makes and keeps them.
//
// # Errors
//
// fs.ErrNotExist: the store has no such path or file. A refusal.LocalStore: this
// cannot be said now, so a client must not be told that there is none.
// dump.ErrChanged: the files of a path are not what the database says.
// blob.ErrFull: there is no room for the compressed NAR.
package local

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"sync"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/local/compress"
	"narwharf/cache/local/encoder"
	"narwharf/cache/nar/dump"
	"narwharf/cache/nixstore"
	"narwharf/cache/nixstore/realised"
	"narwharf/cache/refusal"
	"narwharf/narinfo"
)

// Nix is what is needed of a Nix store, as a *nixstore.Store gives it. Every
// method tells what is true now.
type Nix interface {
	// StoreDir is the directory that paths are named by.
	StoreDir() string
	// InfoByHash returns what Nix knows of a path, nixstore.ErrNotValid if
	// nothing, nixstore.ErrUnavailable or ErrLocked if it cannot be asked.
	InfoByHash(ctx context.Context, hashPart string) (*narinfo.Info, error)
	// PathInfo adds when it became valid.
	PathInfo(ctx context.Context, p narinfo.Path) (*nixstore.PathInfo, error)
	// Hold keeps a path from the garbage collector until Release with an age finds
	// that it was not held anew for so long. nixstore.ErrNoRoot if it cannot.
	Hold(ctx context.Context, p narinfo.Path) error
	Release(age time.Duration) (left int, err error)
	// Read lets fn read Nix's database, see package realised.
	Read(ctx context.Context, fn func(context.Context, *sql.DB) error) error
	// RealPath is where the files of a path are.
	RealPath(narinfo.Path) string
	// Version and Still tell whether anything may have changed.
	Version(ctx context.Context) (nixstore.Version, error)
	Still(nixstore.Version) bool
}

// The two forms of a local path's NAR, behind Path.Name.
const (
	CompressedSuffix = ".nar.zst"
	PlainSuffix      = ".nar"
)

// Store is a Nix store as a source of the cache. It is safe for concurrent use.
type Store struct {
	Nix
	Compressed *compress.Store // of the NARs

	logs  string // the folder of Nix's build logs
	log   *slog.Logger
	debug debugPaths

	mu       sync.Mutex
	troubled map[string]time.Time // when the log last said what
}

// New makes a source of a Nix store. compressed keeps what is encoded, nil if no
// NAR will be asked for; logs is the folder of Nix's build logs,
// <root>/nix/var/log/nix.
func New(nix Nix, compressed *compress.Store, logs string, log *slog.Logger) *Store {
	return &Store{Nix: nix, Compressed: compressed, logs: logs, log: log, troubled: make(map[string]time.Time)}
}

// Path is a path of the store as it is advertised.
type Path struct {
	Info *narinfo.Info // with everything but FileHash and FileSize
	Name string        // of its NAR without the suffix, "<hash part>-<NAR hash>"

	version  nixstore.Version
	sum      [sha256.Size]byte // of the unsigned text
	complete bool              // WithFile added FileHash and FileSize
}

// Find looks a path up by its hash part.
func (s *Store) Find(ctx context.Context, hash string) (*Path, error) {
	version, err := s.Version(ctx) // before: if it is the same later, so is the rest
	var info *narinfo.Info
	if err == nil {
		info, err = s.InfoByHash(ctx, hash)
	}
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	p := &Path{Info: info, Name: narName(info), version: version}
	info.URL, info.Compression = URL(info), "zstd"
	p.sum = sha256.Sum256(info.Append(nil))
	return p, nil
}

// Current tells whether all that the narinfo of p says is what it would say now.
func (s *Store) Current(p *Path) bool {
	if !p.complete {
		if _, known := s.Compressed.Digest(p.Info.NarHash); known {
			return false
		}
	}
	return s.Still(p.version)
}

// WithFile returns the info of p with FileHash and FileSize, if the compressed
// NAR is known.
func (s *Store) WithFile(p *Path) *narinfo.Info {
	f, known := s.Compressed.Digest(p.Info.NarHash)
	p.complete = known
	if !known {
		return p.Info
	}
	i := *p.Info
	i.FileHash, i.FileSize = f.Hash, f.Size
	return &i
}

// Same tells whether the narinfos of p and q, as WithFile left them, are the same.
func (p *Path) Same(q *Path) bool { return p.sum == q.sum && p.complete == q.complete }

// Info returns what the store has under a hash part.
func (s *Store) Info(ctx context.Context, hash string) (*narinfo.Info, error) {
	p, err := s.Find(ctx, hash)
	if err != nil {
		return nil, err
	}
	return p.Info, nil
}

// Hold keeps a path, and all that it refers to, from Nix's garbage collector, until
// Release finds that it was not held anew for an age. held is false where nothing can
// keep it; fs.ErrNotExist if it is not there.
func (s *Store) Hold(ctx context.Context, p narinfo.Path) (held bool, err error) {
	err = s.Nix.Hold(ctx, p)
	if !errors.Is(err, nixstore.ErrNoRoot) {
		return err == nil, s.explain(ctx, err)
	}
	if s.mayLog("roots") {
		s.log.Error("local paths that are promised to uploaders cannot be kept from nix-collect-garbage: they are copied instead", "error", err)
	}
	return false, nil
}

// Registered is when a path became valid.
func (s *Store) Registered(ctx context.Context, p narinfo.Path) (time.Time, error) {
	i, err := s.PathInfo(ctx, p)
	if err != nil {
		return time.Time{}, s.explain(ctx, err)
	}
	return i.Registered, nil
}

// Compress returns the compressed NAR of a path as a whole file of the caller's
// own, with its SHA-256 and size. It waits for an encoder.
func (s *Store) Compress(ctx context.Context, i *narinfo.Info) (f *os.File, hash narinfo.Hash, size int64, err error) {
	stream, err := s.Compressed.Join(ctx, i.NarHash, s.Dump(i))
	if err != nil {
		return nil, hash, 0, err
	}
	defer func() { _ = stream.Close() }() // never fails
	f, digest, err := stream.File(ctx)
	switch {
	case err == nil, ctx.Err() != nil:
	case errors.Is(err, compress.ErrNotStored):
		err = fmt.Errorf("%w: %w", blob.ErrFull, err)
	case errors.Is(err, encoder.ErrWrongNAR), errors.Is(err, encoder.ErrSource):
		err = fmt.Errorf("%w: %w", dump.ErrChanged, err)
	}
	return f, digest.Hash, digest.Size, err
}

// Discard removes the compressed NAR of a path that turned out to be damaged.
func (s *Store) Discard(i *narinfo.Info, damage error) { s.Compressed.Drop(i.NarHash, damage) }

// MakeRoom removes compressed NARs until n bytes are free that were not, or none
// is left, and returns how many they had.
func (s *Store) MakeRoom(n int64) (freed int64) {
	if s.Compressed == nil {
		return 0
	}
	return s.Compressed.MakeRoom(n)
}

// URL is that of the NAR in the narinfo of a path.
func URL(i *narinfo.Info) string { return "nar/" + narName(i) + CompressedSuffix }

// IsURL tells whether the URL of a narinfo is one of ours for its NAR.
func IsURL(i *narinfo.Info) bool {
	name := "nar/" + narName(i)
	return i.URL == name+CompressedSuffix || i.URL == name+PlainSuffix
}

func narName(i *narinfo.Info) string { return i.Path.Hash() + "-" + i.NarHash.Base32() }

// explain turns an error of the store into what a client is told: that a path
// is not there, or that this cannot be said now. A 404 would be remembered.
func (s *Store) explain(ctx context.Context, err error) error {
	var bad *nixstore.RowError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nixstore.ErrNotValid), errors.Is(err, realised.ErrNone):
		return fs.ErrNotExist
	case ctx.Err() != nil:
		return err
	case errors.As(err, &bad): // whatever another substituter has is better
		if s.mayLog(err.Error()) {
			s.log.Error("a row of Nix's database cannot be read: the path is not served", "error", err)
		}
		return fs.ErrNotExist
	}
	if s.mayLog("") {
		s.log.Error("the local Nix store cannot be read; uploads are served", "error", err)
	}
	return refusal.New(refusal.LocalStore, "this cache cannot read its own Nix store now, only what was uploaded; try again later, the server's log says why")
}

// mayLog tells whether a trouble is to be logged now: not for each request.
func (s *Store) mayLog(what string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Sub(s.troubled[what]) <= time.Minute || len(s.troubled) > maxTroubles {
		return false
	}
	maps.DeleteFunc(s.troubled, func(_ string, t time.Time) bool { return now.Sub(t) > time.Minute })
	s.troubled[what] = now
	return true
}

// maxTroubles bounds what is logged within a minute.
const maxTroubles = 20
