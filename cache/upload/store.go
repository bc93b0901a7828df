// Package upload is what has been uploaded to a cache: it takes in NARs and
// narinfos, checks all of them, and puts right what a crash or a disk has spoilt.
// It knows no HTTP; what it refuses, it refuses with words (package refusal).
//
// # What it promises
//
//   - What PutInfo and PutCopy return nil for is durable, and so is the NAR that a narinfo
//     names. A NAR that PutNar returned nil for is verified; a crash may forget it before its narinfo comes.
//   - Nothing is ever seen by half. A NAR is visible only after all of it was
//     read, unpacked, found to be exactly one well-formed NAR, and synced; a
//     narinfo only after its NAR and its references are there.
//   - What somebody who may upload was told to be here (index.Index.Use, Claim) stays
//     for a lease.
//   - The first fingerprint of a path (NarHash, NarSize, References) wins. Later
//     uploads of the same fingerprint add signatures and further encodings of the
//     NAR; of another they are refused, with when and by whom.
//
// # On disk
//
// The plain layout of a Nix cache, which any Nix can read without this program:
//
//	nix-cache-info              StoreDir
//	<hash>.narinfo              normalised, with the signatures that came with the path
//	nar/<sha256>.nar[.suffix]   as uploaded
//	<hash>.ls                   made from the NAR when first asked for (package cache)
//	quarantine/                 what Fsck with Repair took out
//
// A narinfo file gets its name in the index's transaction, whose locks are what
// decides between two servers. So after a crash the files are right and the index
// is behind at most: package recovery brings it up, or makes it anew. Package fsck
// checks every byte of it while it is in use.
//
// # What goes
//
// Collect deletes paths. A deletion reads in its own transaction that nothing refers to
// the path, that it is no root and that nobody counts on it, as PutInfo reads in its own
// that the references are there. The record goes first, then the narinfo file; what a
// crash leaves between the two is an intention in the index, which Finish carries out.
// NAR files that no record names any more go at last. Sweep deletes those that never got
// a narinfo, and alternates that nobody wants.
package upload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/state/namelock"
	"narwharf/cache/upload/counted"
	"narwharf/cache/upload/received"
	"narwharf/cache/upload/room"
	"narwharf/narinfo"
)

// Store is what has been uploaded: files and the index derived from them, and
// the rules by which both change. Everybody may read them; only a Store writes
// narinfos and NARs.
type Store struct {
	Files blob.Store
	Index index.Index
	Options

	Log *slog.Logger

	room  room.Room
	locks namelock.Set

	verified      received.Set
	settling      received.Settling
	lost          lostNars
	narFiles      counted.Files
	sweptFiles    atomic.Int64
	needsRecovery atomic.Bool // file and index may disagree
}

// Options are the rules of taking in.
type Options struct {
	StoreDir        string
	AllowIncomplete bool
	// MaxNarSize bounds a NAR, as it is sent and unpacked, in bytes.
	MaxNarSize int64
	// NarGrace is how long a NAR may lie without a narinfo. Nix 2.35 and
	// later sends all NARs of a closure before the first narinfo.
	NarGrace time.Duration
	// Grace is how long an alternate stays after its last PUT or GET: the Nix that
	// uploaded it remembers its URL for 30 days. 0 is 31 days.
	Grace time.Duration
	// Local is the machine's own store and what upstreams have, nil if there is neither.
	Local LocalStore
	// Counted is what a count of the NAR files would find; nil: New counts them.
	Counted *index.Files
	// Changed is told the hash part of each path whose record changed, "" if
	// any may have; nil tells nobody.
	Changed func(hash string)
	// Shared is that other servers have the files and the index, too: they learn at once what
	// a NAR is that was sent here.
	Shared bool
}

// LocalStore is what uploads ask of the machine's own Nix store and of upstreams.
type LocalStore interface {
	// Info returns what the store has under a hash part, fs.ErrNotExist if
	// nothing, a refusal.LocalStore if that cannot be said now.
	Info(ctx context.Context, hash string) (*narinfo.Info, error)
	// Hold keeps a path from being collected there for as long as uploaders may
	// believe that it is here; held is false if nothing can. fs.ErrNotExist if the
	// path is not there.
	Hold(ctx context.Context, p narinfo.Path) (held bool, err error)
	// MakeRoom deletes what can be made again until n bytes of the disk are
	// free that were not, and returns how many are.
	MakeRoom(n int64) (freed int64)
}

// noLocal is a store without paths.
type noLocal struct{}

func (noLocal) Info(context.Context, string) (*narinfo.Info, error) { return nil, fs.ErrNotExist }
func (noLocal) Hold(context.Context, narinfo.Path) (bool, error)    { return false, fs.ErrNotExist }
func (noLocal) MakeRoom(int64) int64                                { return 0 }

const (
	// MaxSignatures bounds the signatures that a path collects.
	MaxSignatures = 16
	// MaxNarinfo bounds a narinfo's text in bytes: some 15,000 references.
	MaxNarinfo = 1 << 20
)

// New joins files and index. Call Recover before the first upload if the index
// was not closed in order.
func New(files blob.Store, idx index.Index, opts Options, log *slog.Logger) (*Store, error) {
	if opts.Local == nil {
		opts.Local = noLocal{}
	}
	opts.Grace = cmp.Or(opts.Grace, 31*24*time.Hour)
	if opts.Changed == nil {
		opts.Changed = func(string) {}
	}
	if err := checkStoreDir(files, opts.StoreDir); err != nil {
		return nil, err
	}
	s := &Store{Files: files, Index: idx, Options: opts, Log: log, room: room.Room{Files: files, Local: opts.Local, Log: log}, lost: lostNars{names: make(map[string]bool)}}
	if c := opts.Counted; c != nil {
		s.narFiles.Set(c.Count, c.Size)
		return s, nil
	}
	return s, s.narFiles.Measure(files)
}

// checkStoreDir keeps paths of two store directories out of one cache, and keeps
// nix-cache-info beside the files so that they are a file:// cache.
func checkStoreDir(files blob.Store, storeDir string) error {
	const name = "nix-cache-info"
	text, err := blob.ReadFile(files, name, 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return blob.WriteFile(files, name, fmt.Appendf(nil, "StoreDir: %s\n", storeDir))
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if dir, ok := strings.CutPrefix(line, "StoreDir:"); ok && strings.TrimSpace(dir) != storeDir {
			return fmt.Errorf("the cache holds paths of %s, and the configuration has cache.store_dir = %q: use another data_dir for it", strings.TrimSpace(dir), storeDir)
		}
	}
	return nil
}

// NeedsRecovery tells that a write failed in a way that left the narinfo files
// and the index different; the next start must recover.
func (s *Store) NeedsRecovery() bool { return s.needsRecovery.Load() }

// Counts are numbers for the metrics.
type Counts struct {
	NarFiles, NarBytes int64 // on the disk
	Swept              int64 // NARs that this process removed since no narinfo came
}

// Counts returns the numbers of now.
func (s *Store) Counts() Counts {
	files, bytes := s.narFiles.Get()
	return Counts{files, bytes, s.sweptFiles.Load()}
}

// NarFiles is what of Counts is on the disk.
func (s *Store) NarFiles() *counted.Files { return &s.narFiles }

// LockPath keeps others in this process from changing a path. Whoever locks a NAR
// file too does so after.
func (s *Store) LockPath(hash string) (unlock func()) { return s.locks.Lock(hash) }
