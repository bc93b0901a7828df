package limits

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"sync"
	"time"
)

// Work is processor time of what costs those who ask little and the server much: few have a
// turn at once, and each address has so much for a start and a share of one processor later.
type Work struct {
	turns chan struct{} // holds one for each turn

	mu    sync.Mutex
	spent map[string]debt
}

type debt struct {
	seconds float64 // at the time of
	at      time.Time
}

const (
	workBurst = 10   // seconds at once
	workShare = 0.05 // of a processor afterwards
)

// NewWork makes one. Half of the processors are for everything else.
func NewWork() *Work {
	return &Work{turns: make(chan struct{}, max(runtime.GOMAXPROCS(0)/2, 1)), spent: make(map[string]debt)}
}

// Spend counts time to somebody, "" for one who does not count, and reports whether he
// may have more.
func (w *Work) Spend(who string, took time.Duration) bool {
	if who == "" {
		return true
	}
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.spent[who]
	d = debt{max(d.seconds-now.Sub(d.at).Seconds()*workShare, 0) + took.Seconds(), now}
	if d.seconds == 0 {
		delete(w.spent, who)
		return true
	}
	if len(w.spent) >= 10_000 { // most owe nothing any more
		for name, other := range w.spent {
			if other.seconds <= now.Sub(other.at).Seconds()*workShare {
				delete(w.spent, name)
			}
		}
	}
	w.spent[who] = d
	return d.seconds < workBurst
}

// ErrBusy means that somebody has had all that he may have for now.
var ErrBusy = errors.New("this server works on as much as it can for your address: try again in a minute")

// Turn waits until few others have one, and counts its time until done is called. It
// returns ErrBusy to who has had all.
func (w *Work) Turn(ctx context.Context, who string) (done func(), err error) {
	if !w.Spend(who, 0) {
		return nil, ErrBusy
	}
	select {
	case w.turns <- struct{}{}:
		began := time.Now()
		return func() {
			<-w.turns
			w.Spend(who, time.Since(began))
		}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Do calls fn in a turn.
func (w *Work) Do(ctx context.Context, who string, fn func() error) error {
	done, err := w.Turn(ctx, who)
	if err != nil {
		return err
	}
	defer done()
	return fn()
}

// Who is by whom a request is: one token may be that of many machines.
func Who(token string, req *http.Request) string { return token + " " + Address(req.RemoteAddr) }

type clientKey struct{}

// WithClient says in a context by whom work is asked for that counts.
func WithClient(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, clientKey{}, who)
}

// Client is by whom work is asked for, "" if it does not count.
func Client(ctx context.Context) string {
	who, _ := ctx.Value(clientKey{}).(string)
	return who
}
