package longpoll

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// ErrStopping is how a parked poll ends when Stop was called: tell the caller to
// ask again.
var ErrStopping = errors.New("the server is stopping; ask again in a moment")

// Options of New. All are needed.
type Options struct {
	Log *slog.Logger
	// WriteError answers a poll that was parked and fails. Of req only method
	// and path are there.
	WriteError func(w http.ResponseWriter, req *http.Request, err error)
	// Answered is told of each answer that was sent outside of net/http.
	Answered func(route string, status int)
}

// Polls are those of one server.
type Polls struct {
	Options
	topics   topics
	parking  *parking
	stopOnce sync.Once
	stopping chan struct{}
	woken    atomic.Int64
}

// New makes an empty one.
func New(o Options) *Polls {
	return &Polls{Options: o, parking: newParking(), stopping: make(chan struct{})}
}

// Listener is for the http.Server whose handler calls Serve, in addition to its
// others: where it is served, polls park outside of net/http. Their connections
// may be silent for idle between two requests. It is to be asked for once.
func (p *Polls) Listener(idle time.Duration) net.Listener {
	p.parking.idle = idle
	return p.parking
}

// Notify wakes everybody who waits for one of the topics.
func (p *Polls) Notify(topics ...string) { p.topics.notify(topics...) }

// NotifyAll wakes everybody.
func (p *Polls) NotifyAll() { p.topics.notifyAll() }

// Stopping is closed by Stop.
func (p *Polls) Stopping() <-chan struct{} { return p.stopping }

// Stop ends all parked polls with ErrStopping, so that a graceful shutdown does
// not wait for them. When it returns, no poll is outside of net/http any more.
func (p *Polls) Stop() {
	p.stopOnce.Do(func() { close(p.stopping) })
	p.parking.shut()
	p.topics.notifyAll()
	p.parking.polls.Wait()
}

// orStopped is o, unless the server is stopping, which wakes everybody.
func (p *Polls) orStopped(o outcome) outcome {
	select {
	case <-p.stopping:
		return stopped
	default:
		return o
	}
}

// Counts are how many polls and connections there are.
type Counts struct {
	Waiting  int   // polls that wait for a change
	Detached int   // those of them that wait outside of net/http
	Silent   int   // connections outside of net/http that wait for their next request
	Woken    int64 // times a poll was woken to look, ever
}

// Count counts. It looks at each poll.
func (p *Polls) Count() Counts {
	c := Counts{Woken: p.woken.Load()}
	c.Waiting, c.Detached = p.topics.count()
	p.parking.mu.Lock()
	defer p.parking.mu.Unlock()
	c.Silent = len(p.parking.silent)
	return c
}
