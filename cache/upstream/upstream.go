// Package upstream is other caches behind this one. A path that we lack is looked up there; a
// closure may lean on it, hosts may fetch it through us, and what a promoted release needs of
// it is fetched in the background. See docs/design/030-upstreams.md.
//
// # What it promises
//
//   - A path counts only with a good signature by one of ITS upstream's keys. What it is may
//     not change from then on: a record that leans on a path keeps its first fingerprint.
//   - A lookup takes two seconds at most (one of the background 30), and none while an upstream is known to be down. What
//     can then not be said is that a path is not there.
//   - What was said to an uploader is durable before he hears it (Lean): for a month neither
//     his next upload nor a promote depends on an upstream being up.
//   - NARs are verified while they stream. Nobody sees the end of one that is not what its
//     signed narinfo says; a broken download is resumed, and one that is gone, or was another,
//     is looked up anew, at the other upstreams first.
//   - Two caches that are each other's upstream do not ask in circles: requests carry Via, and
//     one with our own id or three hops is answered from our own content.
//   - Strangers can make it ask, and cannot make it grow: what is known in memory is bounded,
//     and so are requests at once.
//
// # In the state
//
//	cache/leaning  <hash>  -> JSON (row): what the upstream said of the path
//
// The records are lost with the database, and come back as paths are looked up again.
package upstream

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"narwharf/cache/local/compress"
	"narwharf/cache/state"
	"narwharf/cache/upstream/via"
	"narwharf/narinfo"
	"narwharf/signing"
)

// Config is one upstream. URL is http or https, without a slash at its end.
type Config struct {
	URL         *url.URL
	Keys        []signing.PublicKey // one of which must have signed a path
	PullThrough bool                // its NARs go out through us
	Keep        bool                // fetch what promoted releases need; else look daily whether it is there
	Token       string              // "" if it needs none
	Sign        bool                // our keys vouch for its paths, too
	Rate        int64               // bytes of NARs a second at most; 0: no bound
}

// Options configure Upstreams.
type Options struct {
	StoreDir  string
	Upstreams []Config // in the order in which they are preferred
	State     state.Store
	// Packed keeps what is pulled; nil where nothing is served.
	Packed  *compress.Store
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil registers nothing
}

// Upstreams are all caches behind this one. It is safe for concurrent use; a nil one has no
// upstreams.
type Upstreams struct {
	Packed *compress.Store

	storeDir string
	all      []*Upstream
	state    state.Store
	log      *slog.Logger
	m        *metrics
	id       string // of this process, in Via
	wake     chan struct{}

	flights singleflight.Group
	mu      sync.Mutex // guards what follows where more than one step has to be one
	known   *lru.Cache[string, *Path]
	absent  *lru.Cache[string, time.Time] // when that was said
	doubted *lru.Cache[string, *Upstream] // which one did not send the NAR
	spoilt  *lru.Cache[string, time.Time] // files (Path.file) that are not there, or are another NAR
}

const (
	maxKnown  = 32 << 10 // some 1 KiB each
	maxAbsent = 64 << 10
	// knownFor and absentFor are how long an answer counts. A path may come any time, and hosts
	// should find it soon.
	knownFor  = time.Hour
	absentFor = time.Minute
)

// ErrUnavailable says that no upstream has a path, and that one of them could not be asked. It Is
// fs.ErrNotExist.
var ErrUnavailable = fmt.Errorf("an upstream cannot be asked now: %w", fs.ErrNotExist)

// New makes the upstreams of a configuration, nil if there are none.
func New(o Options) (*Upstreams, error) {
	if len(o.Upstreams) == 0 {
		return nil, nil
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	us := &Upstreams{Packed: o.Packed, storeDir: o.StoreDir, state: o.State, log: o.Log, m: newMetrics(o.Metrics), wake: make(chan struct{}, 1)}
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	us.id = hex.EncodeToString(random[:])
	for _, c := range o.Upstreams {
		us.all = append(us.all, newUpstream(c, us))
	}
	var err1, err2, err3, err4 error
	us.known, err1 = lru.New[string, *Path](maxKnown)
	us.absent, err2 = lru.New[string, time.Time](maxAbsent)
	us.doubted, err3 = lru.New[string, *Upstream](4096)
	us.spoilt, err4 = lru.New[string, time.Time](4096)
	return us, errors.Join(err1, err2, err3, err4)
}

// Keys are those that clients have to trust beside ours: of upstreams whose paths our own keys do not
// vouch for.
func (us *Upstreams) Keys() (keys []signing.PublicKey) {
	if us == nil {
		return nil
	}
	for _, u := range us.all {
		if !u.Sign {
			keys = append(keys, u.Config.Keys...)
		}
	}
	return keys
}

// Close lets go of idle connections.
func (us *Upstreams) Close() {
	if us == nil {
		return
	}
	for _, u := range us.all {
		u.own.CloseIdleConnections()
		u.outside.CloseIdleConnections()
	}
}

// A Path is what an upstream has.
type Path struct {
	Info *narinfo.Info // as the upstream says it, with the signatures that are good or may be
	From *Upstream

	via  []string // of whoever asks
	said time.Time
}

// file names a NAR file of an upstream.
func (p *Path) file() string { return p.From.String() + " " + p.Info.URL }

// same tells whether two narinfos have one fingerprint.
func same(a, b *narinfo.Info) bool {
	return string(a.AppendFingerprint(nil)) == string(b.AppendFingerprint(nil))
}

// Find looks a path up by its hash part: in memory, among the records, at the upstreams. fs.ErrNotExist
// if none has it; ErrUnavailable if one of them could not be asked.
func (us *Upstreams) Find(ctx context.Context, hash string) (*Path, error) {
	if us == nil {
		return nil, fs.ErrNotExist
	}
	came := cameBy(ctx)
	if came.ownOnly {
		return nil, fs.ErrNotExist
	}
	p, err := us.find(ctx, hash)
	if err != nil {
		return nil, err
	}
	if id, _ := p.From.id.Load().(string); id != "" && via.Has(came.via, id) {
		return nil, fs.ErrNotExist // it asks us for what we would ask it for
	}
	with := *p
	with.via = came.via
	return &with, nil
}

func (us *Upstreams) find(ctx context.Context, hash string) (*Path, error) {
	old, seen := us.known.Get(hash)
	if seen && time.Since(old.said) < knownFor {
		return old, nil
	}
	r, err := us.row(ctx, hash)
	if err != nil {
		return nil, err
	}
	leans := r.path(us)
	avoid, doubted := us.doubted.Get(hash)
	if leans != nil && !doubted {
		us.known.Add(hash, leans)
		return leans, nil
	}
	if said, ok := us.absent.Get(hash); ok && leans == nil && time.Since(said) < absentFor {
		return nil, fs.ErrNotExist
	}
	p, err := us.lookup(ctx, hash, avoid)
	switch {
	case errors.Is(err, ErrUnavailable):
		if leans != nil {
			return leans, nil
		}
		if seen { // its NAR may be packed here
			return old, nil
		}
		return nil, err
	case errors.Is(err, fs.ErrNotExist):
		if leans != nil {
			err = errors.Join(us.lose(ctx, hash), err)
		}
		if len(cameBy(ctx).via) == 0 { // else one may have answered from its own content alone
			us.absent.Add(hash, time.Now())
		}
		return nil, err
	case err != nil:
		return nil, err
	case leans != nil && !same(leans.Info, p.Info):
		// It was signed twice, as two things. We lean on the first.
		us.log.Error("an upstream has another content for a path than it had", "path", p.Info.Path, "upstream", p.From, "now", p.Info.NarHash, "before", leans.Info.NarHash)
		return leans, nil
	}
	us.mu.Lock()
	defer us.mu.Unlock()
	us.doubted.Remove(hash)
	us.known.Add(hash, p)
	return p, nil
}

// lookup asks all upstreams at once, and takes the first of them that has the path; what avoid has
// is the last choice. Many who ask for one path ask once.
func (us *Upstreams) lookup(ctx context.Context, hash string, avoid *Upstream) (*Path, error) {
	came := cameBy(ctx)
	limit := timeFor(ctx)
	found := us.flights.DoChan(hash+limit.String()+strings.Join(came.via, ","), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		type answer struct {
			info *narinfo.Info
			err  error
		}
		answers := make([]chan answer, len(us.all))
		for i, u := range us.all {
			answers[i] = make(chan answer, 1)
			go func() {
				info, err := u.narinfo(ctx, hash, came.via)
				answers[i] <- answer{info, err}
			}()
		}
		var last *Path
		missing := error(fs.ErrNotExist)
		for i, u := range us.all {
			a := <-answers[i]
			if a.err != nil {
				if !errors.Is(a.err, errNone) {
					missing = ErrUnavailable
				}
				continue
			}
			p := &Path{Info: a.info, From: u, said: time.Now()}
			if at, ok := us.spoilt.Get(p.file()); ok && time.Since(at) < knownFor {
				continue
			}
			if u != avoid {
				return p, nil
			}
			last = p
		}
		if last != nil {
			return last, nil
		}
		return nil, missing
	})
	select {
	case r := <-found:
		p, _ := r.Val.(*Path)
		return p, r.Err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// doubt says that what an upstream sent for a path was not right: it is looked up anew when it is asked for
// again, at the others first.
func (us *Upstreams) doubt(p *Path) {
	us.mu.Lock()
	defer us.mu.Unlock()
	hash := p.Info.Path.Hash()
	us.known.Remove(hash)
	us.doubted.Add(hash, p.From)
}
