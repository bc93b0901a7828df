// Package compress keeps the packed NARs of local store paths: each is encoded
// once, however many ask for it, sent while it grows, and then kept as a file
// in a bounded folder.
//
// A NAR goes by the name in its URL, "<hash part>-<nar hash>.nar.zst", both in
// nix32. The bytes depend on the NAR alone, so everything here is kept under
// the NAR hash: two store paths with the same content share one encode and one
// file.
//
// # What it promises
//
//   - The bytes of a NAR hash never change: Nix resumes a broken download
//     without asking whether the file is still the same. Nobody sees the end of
//     a NAR that is not what its name says. Package encoder sees to both.
//   - Each NAR is encoded by one encoder at a time, Options.Encoders are at
//     work at once, and the others wait in the order in which they came.
//   - An encode that nobody waits for any more is broken off a few seconds
//     later, and at once if others wait for its encoder.
//   - A full or broken disk costs speed and no download: who reads an encode
//     that cannot be stored goes on with an encode of his own, see Stream.
//   - What Open returned stays readable. The file may lose its name to make
//     room, and its bytes go when the last reader closes it.
//
// # The folder
//
//	<nar hash>.nar.zst   one whole packed NAR; its mtime is when it was last used
//	<number>.new         an encode under way; removed at the next Open
//	facts                a line for each NAR ever encoded here
//	state                how the last run ended
//
// A line of facts (encoder.Digests) is written before the file gets its name and
// outlives the file, so that a narinfo keeps its FileHash. A file without a line or
// of another size is removed.
//
// # After a crash
//
// Nothing is synced while running: all of it can be made again. A process that
// dies loses nothing that it wrote, since the kernel has it. When the machine
// went down, files may hold zeros where their last bytes were not yet on disk.
// So state names the boot (/proc/sys/kernel/random/boot_id) it was written in,
// Close syncs the file system before it writes "clean", and if neither fits,
// each file is hashed once, before it is served for the first time; a file that
// is not what facts says is removed and encoded again.
//
// # What it refuses
//
// A name of another form, a folder in use by another process, and a source
// whose NAR has another hash than its name.
package compress

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/local/encoder"
	"narwharf/cache/state/durable"
	"narwharf/narinfo"
)

// Options say where packed NARs are kept, and how much of everything.
type Options struct {
	Dir      string // made if it is not there; no other process may use it
	Limit    int64  // bytes kept; encodes under way count, and may go beyond it
	Encoders int    // encodes at work at once, each of some 10 MiB; 0 is GOMAXPROCS
	Log      *slog.Logger
	Metrics  prometheus.Registerer // nil registers nothing
}

// ErrClosed is what everything returns once Close was called.
var ErrClosed = errors.New("the store of packed nars is closed")

// defaultLinger is how long an encode goes on when its last reader left: a client
// whose connection broke comes back within a second or two.
const defaultLinger = 5 * time.Second

// Store is a folder of packed NARs and the encodes that fill it. It is safe
// for concurrent use.
type Store struct {
	dir      string
	limit    int64
	encoders int
	reserve  int64 // bytes of the file system that are left free
	log      *slog.Logger
	m        *metrics
	digests  *encoder.Digests
	linger   time.Duration
	serial   atomic.Uint64
	ctx      context.Context // ends with Close
	cancel   context.CancelCauseFunc
	running  sync.WaitGroup // jobs that have an encoder
	checking sync.Mutex     // held while a file in doubt is hashed

	// fault, if set, is asked before each step on the disk and its error is
	// returned instead of taking the step. op is one of create, write, facts,
	// rename, open, read, room. Set it before anything else is called.
	fault func(op string) error

	mu        sync.Mutex
	closed    bool
	encodings map[narinfo.Hash]*encoding // that can be joined
	queue     list.List                  // of *job
	working   int                        // encoders that are given out
	pulling   int                        // those of them that pull
	ahead     *encoding                  // that nobody has asked for; nil if there is none

	stored map[narinfo.Hash]*storedFile
	order  *list.List // of *storedFile, the last used first
	bytes  int64      // of stored files and of encodes at work
	clock  time.Time  // the last time that was given to a use
}

// newSuffix ends the names of files that are being written.
const newSuffix = ".new"

// Open opens the folder of packed NARs: removes what a crash left half done,
// and restores what is known and the order of last use.
func Open(o Options) (_ *Store, err error) {
	if o.Limit < 0 || o.Encoders < 0 {
		return nil, fmt.Errorf("packed nars in %s: a limit of %d bytes and %d encoders: %w", o.Dir, o.Limit, o.Encoders, fs.ErrInvalid)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("packed nars: %w", err)
		}
	}()
	if o.Encoders == 0 {
		o.Encoders = runtime.GOMAXPROCS(0)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		dir: o.Dir, limit: o.Limit, encoders: o.Encoders, log: o.Log, linger: defaultLinger,
		encodings: make(map[narinfo.Hash]*encoding), stored: make(map[narinfo.Hash]*storedFile), order: list.New(),
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(o.Dir, &st); err != nil {
		return nil, fmt.Errorf("free space of %s: %w", o.Dir, err)
	}
	// Half of what uploads leave free, see cache/blob: when they have filled the
	// disk, there is still room to pack one NAR after another.
	s.reserve = min(128<<20, int64(st.Blocks)*int64(st.Bsize)/40)
	if s.digests, err = encoder.OpenDigests(o.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.digests.Close() // it was only read
		}
	}()
	s.digests.Fault = func() error { return s.hit("facts") }
	if err := s.scan(); err != nil {
		return nil, err
	}
	if n := s.doubts(); n > 0 { // as it stands, the state says that nothing is trusted
		s.log.Warn("the machine went down while packed nars were written; each is checked before it is served again", "files", n)
	} else if err := writeState(o.Dir, stateRunning+durable.Boot()); err != nil {
		return nil, err
	}
	s.m = newMetrics(s, o.Metrics)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.evict(s.limit)
	return s, nil
}

// scan takes in the files of the folder.
func (s *Store) scan() error {
	trusted, err := readState(s.dir)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var found []*storedFile
	for _, d := range entries {
		f, err := s.take(d)
		if err != nil {
			return err
		}
		if f != nil {
			f.doubt = !trusted
			found = append(found, f)
		}
	}
	slices.SortFunc(found, func(a, b *storedFile) int { return a.used.Compare(b.used) })
	for _, f := range found {
		s.add(f)
		s.clock = f.used // which may be in the future
	}
	return nil
}

// take returns an entry of the folder as a stored file; nil if it is none. What is
// half of one is removed.
func (s *Store) take(d fs.DirEntry) (*storedFile, error) {
	name := d.Name()
	base, packed := strings.CutSuffix(name, encoder.Suffix)
	key, err := narinfo.ParseBase32(base)
	packed = packed && err == nil
	half := strings.HasSuffix(name, newSuffix) || strings.HasPrefix(name, ".new-") // the latter by package durable
	if !packed && !half || !d.Type().IsRegular() {
		if name != "facts" && name != "state" {
			s.log.Warn("a file among the packed nars that is none is left alone", "file", filepath.Join(s.dir, name))
		}
		return nil, nil
	}
	st, err := d.Info()
	if err != nil {
		return nil, err
	}
	digest, known := s.digests.Get(key)
	if !half && known && st.Size() == digest.Size {
		return &storedFile{key: key, digest: digest, used: st.ModTime(), stamped: st.ModTime()}, nil
	}
	if !half {
		s.log.Warn("a packed nar is not whole and is removed", "file", name, "bytes", st.Size(), "expected", digest.Size)
	}
	return nil, os.Remove(filepath.Join(s.dir, name))
}

// Digest returns what is known of a NAR that was encoded once, whether or not it
// is still kept.
func (s *Store) Digest(key narinfo.Hash) (encoder.Digest, bool) { return s.digests.Get(key) }

// Close breaks off all encodes, whose readers get ErrClosed, waits for them to
// end, and syncs what is kept. Files and streams of finished encodes that are
// open stay readable.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	for _, e := range s.encodings {
		s.giveUp(e, ErrClosed)
	}
	s.cancel(ErrClosed)
	for s.queue.Len() > 0 { // encodes for one reader, who is told by now
		j, _ := s.queue.Front().Value.(*job)
		s.dequeue(j)
	}
	s.mu.Unlock()
	s.running.Wait()

	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.order.Front(); e != nil; e = e.Next() {
		if f, _ := e.Value.(*storedFile); !f.used.Equal(f.stamped) {
			s.stamp(f.key, f.used)
		}
	}
	err := durable.SyncFileSystem(s.dir)
	if err == nil && s.doubts() == 0 {
		err = writeState(s.dir, stateClean)
	}
	if err = errors.Join(err, s.digests.Close()); err != nil {
		return fmt.Errorf("close packed nars in %s: %w", s.dir, err)
	}
	return nil
}

func (s *Store) hit(op string) error {
	if s.fault == nil {
		return nil
	}
	return s.fault(op)
}
