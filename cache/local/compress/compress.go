package compress

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
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

// Source writes one whole NAR to w. An error means that what it wrote is none.
// It stops soon after ctx is done or a write failed, does not use w once it has
// returned, may outlive the request that it came from, may be called several
// times, and at the same time as others.
type Source func(ctx context.Context, w io.Writer) error

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
	digests  *digestLog
	linger   time.Duration
	serial   atomic.Uint64
	ctx      context.Context // ends with Close
	cancel   context.CancelCauseFunc
	encoding sync.WaitGroup

	// fault, if set, is asked before each step on the disk and its error is
	// returned instead of taking the step. op is one of create, write, facts,
	// rename, open, read, room. Set it before anything else is called.
	fault func(op string) error

	mu      sync.Mutex
	closed  bool
	flights map[narinfo.Hash]*flight // queued or at work, and not given up
	schedule

	kept   map[narinfo.Hash]*keptFile
	order  *list.List // of *keptFile, the last used first
	bytes  int64      // of kept files and of flights
	doubts int        // kept files that have to be hashed before they are served
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
		flights: make(map[narinfo.Hash]*flight), kept: make(map[narinfo.Hash]*keptFile), order: list.New(),
	}
	s.schedule.init()
	s.m = newMetrics(s)
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
	if s.digests, err = openDigests(o.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.digests.close() // it was only read
		}
	}()
	trusted, err := readState(o.Dir)
	if err != nil {
		return nil, err
	}
	if err := s.scan(trusted); err != nil {
		return nil, err
	}
	state := stateRunning + bootID()
	if s.doubts > 0 {
		state = stateDirty
		s.log.Warn("the machine went down while packed nars were written; each is checked before it is served again", "files", s.doubts)
	}
	if err := writeState(o.Dir, state); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.evict(s.limit)
	s.mu.Unlock()
	s.m.register(o.Metrics)
	return s, nil
}

// scan takes in the files of the folder.
func (s *Store) scan(trusted bool) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var found []*keptFile
	for _, d := range entries {
		key, packed := parseFileName(d.Name())
		half := strings.HasSuffix(d.Name(), newSuffix)
		if !packed && !half || !d.Type().IsRegular() {
			if d.Name() != "facts" && d.Name() != "state" {
				s.log.Warn("a file among the packed nars that is none is left alone", "file", filepath.Join(s.dir, d.Name()))
			}
			continue
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		digest, known := s.digests.get(key)
		if half || !known || st.Size() != digest.Size {
			if !half {
				s.log.Warn("a packed nar is not whole and is removed", "file", d.Name(), "bytes", st.Size(), "expected", digest.Size)
			}
			if err := os.Remove(filepath.Join(s.dir, d.Name())); err != nil {
				return err
			}
			continue
		}
		found = append(found, &keptFile{key: key, digest: digest, used: st.ModTime(), stamped: st.ModTime(), doubt: !trusted})
	}
	slices.SortFunc(found, func(a, b *keptFile) int { return a.used.Compare(b.used) })
	for _, k := range found {
		s.keep(k)
		s.clock = k.used // which may be in the future
	}
	return nil
}

// Digest returns what is known of a NAR that was encoded once, whether or not it
// is still kept.
func (s *Store) Digest(name string) (Digest, bool) {
	key, err := parseName(name)
	if err != nil {
		return Digest{}, false
	}
	return s.digests.get(key)
}

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
	for _, fl := range s.flights {
		s.giveUp(fl, ErrClosed)
	}
	s.cancel(ErrClosed)
	s.abandon(ErrClosed)
	s.mu.Unlock()
	s.encoding.Wait()

	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.order.Front(); e != nil; e = e.Next() {
		k, _ := e.Value.(*keptFile)
		if !k.used.Equal(k.stamped) {
			s.stamp(k.key, k.used)
		}
	}
	err := syncAll(s.dir)
	if err == nil && s.doubts == 0 {
		err = writeState(s.dir, stateClean)
	}
	if err = errors.Join(err, s.digests.close()); err != nil {
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
