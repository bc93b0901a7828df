// Package longpoll parks GETs whose answer has not changed until it does.
//
// A poll is answered at once if its ETag is not the one that the caller has, else
// when it changes or when the caller's patience is over. It joins its topics, then
// looks, then waits: whatever changes after the look wakes it, so no change is
// missed and no message is queued for anybody. It may be woken for nothing.
//
// While parked a poll holds one goroutine, and of its request what it needs for
// the answer. If an http.Server serves the Listener, a poll waits outside of
// net/http, which would keep 10 KiB of buffers, two goroutines with 10 KiB of
// stack and the whole request for each: here it is one goroutine in a Read of the
// connection, which ends when the client leaves or speaks, when the time is over,
// or when the poll is woken. For a next request the connection goes back to
// net/http as if it had just been accepted. bench/PERFORMANCE.md has what this
// saves. A poll waits in its handler where that cannot be done: the listener is
// not served ([limits] fast_path = false), not HTTP/1.1, a body, HEAD.
// The answer is the same either way, also behind a proxy and with "Connection:
// close", after which the connection is closed. Over TLS polls of HTTP/1.1 park as well.
//
// The package knows nothing of what is polled.
package longpoll

import (
	"context"
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

// Later is what a Look returns that cannot answer yet: the poll waits to be woken, also one that
// did not ask to. If nothing comes, it is answered by Err.
type Later struct{ Err error }

func (l Later) Error() string { return l.Err.Error() }

// Unwrap is for errors.As.
func (l Later) Unwrap() error { return l.Err }

// patience is for how long a poll waits that did not ask to.
const patience = 5 * time.Second

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

// UntilStop is a context for work that goes on when the client is gone, since his next
// request then finds it done, and that ends with the server. done is to be called.
func (p *Polls) UntilStop(req context.Context) (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(req))
	ended := make(chan struct{})
	go func() {
		select {
		case <-p.stopping:
			cancel()
		case <-ended:
		}
	}()
	return ctx, func() {
		close(ended)
		cancel()
	}
}

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

// Watch closes changed at the next change of one of the topics, as it wakes polls. leave is to be
// called by who does not wait any more.
func (p *Polls) Watch(topics ...string) (changed <-chan struct{}, leave func()) {
	w := new(waiter)
	p.topics.join(w, topics)
	return w.channel(), func() { p.topics.leave(w, topics) }
}

// Stopping is closed by Stop.
func (p *Polls) Stopping() <-chan struct{} { return p.stopping }
