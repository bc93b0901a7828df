package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/blob"
)

// tries is how often a request is made before the bucket counts as away.
const tries = 5

// firstPause is between the first two; each is twice the one before.
const firstPause = 100 * time.Millisecond

// lookEvery is how often a bucket that is away is asked whether it is back.
const lookEvery = time.Second

// health knows whether the bucket answers.
type health struct {
	s        *Store
	requests *prometheus.CounterVec

	mu     sync.Mutex
	away   time.Time // since when; zero: it answers
	why    error
	back   chan struct{} // closed when it answers again; nil: it does
	closed chan struct{}
	done   sync.WaitGroup
}

func (h *health) init(s *Store) {
	h.s, h.closed = s, make(chan struct{})
	h.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "narwharf_bucket_requests_total", Help: "Requests to the bucket, by what they are and how they ended: ok, missing, refused, retried (it may pass), failed.",
	}, []string{"op", "result"})
	away := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "narwharf_bucket_away_seconds", Help: "For how long the bucket has not answered; 0: it does.",
	}, func() float64 {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.away.IsZero() {
			return 0
		}
		return time.Since(h.away).Seconds()
	})
	if s.Metrics != nil {
		s.Metrics.MustRegister(h.requests, away)
	}
}

func (h *health) close() {
	h.mu.Lock()
	select {
	case <-h.closed:
	default:
		close(h.closed)
	}
	h.mu.Unlock()
	h.done.Wait()
}

// state returns a channel that is closed when the bucket is back, and why it is away.
func (h *health) state() (back <-chan struct{}, why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.away.IsZero() {
		return nil, nil
	}
	return h.back, fmt.Errorf("%w, for %s: %w", blob.ErrAway, time.Since(h.away).Round(time.Second), h.why)
}

// Away tells since when the bucket does not answer, and why; nil: it does.
func (s *Store) Away() (since time.Time, why error) {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	return s.health.away, s.health.why
}

func (h *health) wait(ctx context.Context) error {
	for {
		back, why := h.state()
		if why == nil {
			return nil
		}
		select {
		case <-back:
		case <-ctx.Done():
			return why
		case <-h.closed:
			return why
		}
	}
}

// lost notes that the bucket does not answer, and has somebody look for it.
func (h *health) lost(why error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.closed:
		return fmt.Errorf("%w: %w", blob.ErrAway, why)
	default:
	}
	if h.away.IsZero() {
		h.away, h.why, h.back = time.Now(), why, make(chan struct{})
		h.s.Log.Error("the bucket does not answer; what needs it waits or is refused, copies in the disk cache still go out", "bucket", h.s.String(), "error", why)
		h.done.Go(h.look)
	}
	return fmt.Errorf("%w: %w", blob.ErrAway, why)
}

// look asks the bucket until it answers.
func (h *health) look() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := h.s.client.StatObject(ctx, h.s.Where.Bucket, h.s.key("nix-cache-info"), minio.StatObjectOptions{})
		cancel()
		if !passing(err) {
			h.mu.Lock()
			took := time.Since(h.away)
			h.away, h.why = time.Time{}, nil
			close(h.back)
			h.mu.Unlock()
			h.s.Log.Info("the bucket answers again", "bucket", h.s.String(), "away", took.Round(time.Second))
			return
		}
		select {
		case <-tick.C:
		case <-h.closed:
			return
		}
	}
}

// do makes a request, and makes it again while it fails in a way that may pass, for at
// most patience. Its error Is fs.ErrNotExist where nothing is there, and blob.ErrAway
// where the bucket does not answer.
func (s *Store) do(op, name string, patience time.Duration, request func(ctx context.Context) error) error {
	if _, why := s.health.state(); why != nil {
		return fmt.Errorf("%s %s: %w", op, name, why)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	for n := range tries {
		if err = request(ctx); !passing(err) {
			break
		}
		s.health.requests.WithLabelValues(op, "retried").Inc()
		if n == tries-1 || !pause(ctx, s.health.closed, n) {
			break
		}
	}
	switch {
	case err == nil:
		s.health.requests.WithLabelValues(op, "ok").Inc()
		return nil
	case missing(err):
		s.health.requests.WithLabelValues(op, "missing").Inc()
		return fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	case passing(err):
		s.health.requests.WithLabelValues(op, "failed").Inc()
		return fmt.Errorf("%s %s: %w", op, name, s.health.lost(err))
	}
	s.health.requests.WithLabelValues(op, "refused").Inc()
	return &requestError{op, name, err}
}

// pause waits before the next try. It returns false if there is no time for one.
func pause(ctx context.Context, closed <-chan struct{}, n int) bool {
	d := firstPause << n
	d += rand.N(d / 2)
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
	case <-closed:
	}
	return false
}

// requestError is what the bucket says no with.
type requestError struct {
	op, name string
	err      error
}

func (e *requestError) Error() string { return fmt.Sprintf("%s %s: %v", e.op, e.name, e.err) }
func (e *requestError) Unwrap() error { return e.err }

// cause is the bucket's own error in another.
func cause(err error) error {
	var r *requestError
	if errors.As(err, &r) {
		return r.err
	}
	return err
}

// missing tells whether an object is not there. A bucket that is not is another matter.
func missing(err error) bool {
	switch minio.ToErrorResponse(err).Code {
	case "NoSuchKey", "NoSuchObject", "NotFound":
		return true
	}
	return false
}

// passing tells whether a request may go well when it is made again.
func passing(err error) bool {
	if err == nil {
		return false
	}
	r := minio.ToErrorResponse(err)
	switch r.Code {
	case "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestThrottled", "InternalError", "SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable":
		return true
	}
	switch r.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	case 0:
	default:
		return false
	}
	var network net.Error
	var of *url.Error
	return errors.As(err, &network) || errors.As(err, &of) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, errCut)
}

// errCut is for an answer that ended early.
var errCut = errors.New("the answer broke off")
