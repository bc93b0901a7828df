package retention

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"narwharf/cache/index"
	"narwharf/cache/sidecar"
	"narwharf/cache/state"
	"narwharf/cache/state/lease"
	"narwharf/cache/upload"
	"narwharf/narinfo"
)

// Policy says what may go and when it has to.
type Policy struct {
	// Grace is how long a path stays after its last use, that is its upload, or an
	// answer to one who may upload that it is here; Lease is the part of it that
	// nothing shortens. 0 are 31 days and one day.
	Grace, Lease time.Duration
	// MaxAge is after how long without use a path goes, 0: it need not. It is never
	// shorter than Grace.
	MaxAge time.Duration
	// MaxSize is how many bytes the NAR files of uploads may have, 0: any number.
	// Over it, a collection goes on until they have 95 % of it.
	MaxSize int64
	// MinFree is how many bytes uploads have to find free on the disk. Below it, and
	// where an upload finds no room at all, Grace yields down to Lease.
	MinFree int64
	// Interval is the time between two collections of Run, 0: an hour.
	Interval time.Duration
}

// Uploads is what may be deleted, an *upload.Store.
type Uploads interface {
	// Collect deletes those paths of a batch, given by hash parts and referrers first,
	// that nothing keeps when it looks and that may allows, with the NAR files that
	// nothing else has.
	Collect(ctx context.Context, batch []string, may func(tx *index.Tx, r *index.Record) (bool, error)) ([]upload.Gone, error)
	Counts() upload.Counts
}

// Local is the machine's own store. What uploads refer to there, and roots that are
// there, lead on to uploads.
type Local interface {
	// Info returns what the store has under a hash part, fs.ErrNotExist if nothing.
	Info(ctx context.Context, hash string) (*narinfo.Info, error)
	// MakeRoom deletes packed copies, the least recently used first, until n bytes
	// are free that were not, and returns how many are.
	MakeRoom(n int64) (freed int64)
}

// Leaning is what upstreams have that we lean on them for. It takes no room here.
type Leaning interface {
	// Leans returns the URL of the upstream that has a path, and how large the NAR is; ""
	// if we lean on none for it.
	Leans(ctx context.Context, hash string) (from string, narSize int64, err error)
}

// Options are what a Collector works on.
type Options struct {
	Policy
	State   state.Store
	Index   *index.Table
	Uploads Uploads
	// Sidecars end with what they are about; nil: they are left alone.
	Sidecars *sidecar.Store
	// Local is nil if there is none.
	Local Local
	// Leaning is nil if there are no upstreams.
	Leaning Leaning
	// Free is how many bytes uploads find free on the disk; nil if that is not known.
	Free func() (int64, error)
	// Alone lets one server at a time collect; nil: no other has the state.
	Alone *lease.Lease
	// Recount counts what is there before a collection; nil: Uploads knows it.
	Recount func(ctx context.Context) error
	// Now is the time, for tests; nil: time.Now.
	Now func() time.Time
	Log *slog.Logger
}

// ErrBusy is returned while another collection runs.
var ErrBusy = errors.New("a collection is running already: wait for it, or look at its result later")

// ErrUnsettled is returned before the roots are what they should be: data of an older
// narwharf has none.
var ErrUnsettled = errors.New("the roots of releases, hosts and pins are not settled yet: try again in a minute")

// Collector collects. It is safe for concurrent use; one collection runs at a time.
type Collector struct {
	Options
	turn  chan struct{} // holds one while a collection runs
	graph chan struct{} // holds one while a graph is in memory
	batch int           // how many paths one transaction deletes

	settled atomic.Bool // since this process began

	mu     sync.Mutex
	barren time.Time // when Room last could not make enough room
	most   int64     // and the largest upload that it could have made room for
}

// New makes a Collector.
func New(opts Options) *Collector {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	const day = 24 * time.Hour
	opts.Grace, opts.Lease, opts.Interval = cmp.Or(opts.Grace, 31*day), cmp.Or(opts.Lease, day), cmp.Or(opts.Interval, time.Hour)
	return &Collector{Options: opts, turn: make(chan struct{}, 1), graph: make(chan struct{}, 1), batch: defaultBatch}
}

// take waits until it has the one place in a channel.
func take(ctx context.Context, place chan struct{}) (done func(), err error) {
	select {
	case place <- struct{}{}:
		return func() { <-place }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
