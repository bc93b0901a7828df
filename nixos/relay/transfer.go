package relay

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"narwharf/cache/narfile"
)

const (
	// tries is how often a transfer that broke off is taken up without a step forward.
	tries = 5
	// patience is how long a cache may take for the next so many bytes: one that sends a byte now and
	// then would keep a host from all that comes after.
	patience = 60 * time.Second
	least    = 64 << 10
	// piece is what is read, unpacked and sent at once.
	piece = 128 << 10
)

// send sends the bytes [from, to) of a NAR and returns how many went.
func (r *Relay) send(ctx context.Context, w io.Writer, o *offer, from, to int64) (n int64, err error) {
	t := &transfer{r: r, ctx: ctx, o: o, limit: o.line.NarSize + o.line.NarSize/8 + 1<<20}
	defer t.close()
	skip := from
	if o.info.Compression == "none" {
		t.at, t.limit, skip = from, to, 0
	}
	plain, err := narfile.Unpack(bufio.NewReaderSize(t, int(min(piece, o.line.NarSize+4096))), o.info.Compression)
	if err != nil {
		return 0, t.explain(err)
	}
	defer plain.Close()
	if _, err := io.CopyN(io.Discard, plain, skip); err != nil {
		return 0, t.explain(err)
	}
	n, err = copyAhead(w, io.LimitReader(plain, to-from))
	if err == nil && n < to-from {
		err = io.ErrUnexpectedEOF
	}
	return n, t.explain(err)
}

// copyAhead reads ahead of the writing.
func copyAhead(w io.Writer, from io.Reader) (n int64, err error) {
	full, stop := make(chan part, 3), make(chan struct{})
	var failed error // why reading ended, once full is closed
	go func() {
		defer close(full)
		failed = readAhead(full, stop, from)
	}()
	for p := range full {
		if err == nil {
			var m int
			if m, err = w.Write(p.buf[:p.n]); err != nil {
				close(stop)
			}
			n += int64(m)
		}
		pieces.Put(p.buf)
	}
	return n, cmp.Or(err, failed)
}

type part struct {
	buf *[piece]byte
	n   int
}

// readAhead sends what it reads to full, until it ends or stop is closed.
func readAhead(full chan<- part, stop <-chan struct{}, from io.Reader) error {
	for {
		buf := pieces.Get().(*[piece]byte)
		n, err := io.ReadFull(from, buf[:])
		if n > 0 {
			select {
			case full <- part{buf, n}:
			case <-stop:
				return nil
			}
		}
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return nil
		case err != nil:
			return err
		}
	}
}

var pieces = sync.Pool{New: func() any { return new([piece]byte) }}

// A transfer is the file that a NAR lies in, taken up again where it broke off.
type transfer struct {
	r     *Relay
	ctx   context.Context
	o     *offer
	at    int64 // bytes that came
	limit int64 // a file has no more

	body   io.ReadCloser
	cancel context.CancelFunc
	drop   int64         // bytes of body that came before
	idle   *time.Timer   // cancels
	waited time.Duration // for the bytes of now
	now    int64
	tried  int
	err    error
}

// explain says what is behind the error of whoever reads the transfer.
func (t *transfer) explain(err error) error {
	if err != nil {
		if t.err != nil {
			err = t.err
		}
		return fmt.Errorf("the NAR of %s from %s: %w", t.o.line.Path, Origin(t.o.url), err)
	}
	return nil
}

// Read implements io.Reader.
func (t *transfer) Read(p []byte) (int, error) {
	for t.err == nil {
		if t.at >= t.limit {
			t.err = fmt.Errorf("it has more than the %d bytes that it should have", t.limit)
			break
		}
		n, err := t.read(p)
		t.at += int64(n)
		if n > 0 {
			if t.r.Rate > 0 {
				if err := t.r.pass(t.ctx, n); err != nil {
					t.err = err
				}
			}
			return n, t.err
		}
		if err == nil {
			continue
		}
		if err == io.EOF {
			return 0, io.EOF
		}
		t.close()
		if t.tried++; t.tried >= tries || t.ctx.Err() != nil || errors.Is(err, errRefused) {
			t.err = err
			break
		}
		if err := sleep(t.ctx, 250*time.Millisecond<<t.tried); err != nil {
			t.err = err
		}
	}
	return 0, t.err
}

// read reads what comes next, and opens the file first if need be.
func (t *transfer) read(p []byte) (int, error) {
	if t.body == nil {
		if err := t.open(); err != nil {
			return 0, err
		}
	}
	most := int64(len(p))
	if rate := t.r.Rate; rate > 0 {
		most = min(most, max(rate/4, 512), 32<<10) // a quarter of a second's
	}
	began := time.Now()
	t.idle.Reset(t.r.patience - t.waited)
	n, err := t.body.Read(p[:min(most, t.limit-t.at)])
	t.idle.Stop()
	t.waited += time.Since(began)
	if t.now += int64(n); t.now >= least {
		t.waited, t.now = 0, 0
		if t.drop == 0 {
			t.tried = 0
		}
	}
	if d := min(t.drop, int64(n)); d > 0 {
		t.drop -= d
		n = copy(p, p[d:n])
	}
	switch {
	case n > 0:
		err = nil // it comes again
	case err != nil && err != io.EOF && t.waited >= t.r.patience && t.ctx.Err() == nil:
		err = fmt.Errorf("hardly anything came for %s", t.r.patience)
	}
	return n, err
}

func (t *transfer) open() error {
	ctx, cancel := context.WithCancel(t.ctx)
	t.cancel, t.idle = cancel, time.AfterFunc(t.r.patience, cancel)
	t.waited, t.now, t.drop = 0, 0, 0
	resp, err := t.r.get(ctx, t.o.cache, t.o.url, t.at, true) //nolint:bodyclose // close does
	if err != nil {
		return err
	}
	t.body = resp.Body
	begin := fmt.Sprintf("bytes %d-", t.at)
	switch {
	case t.at == 0 && resp.StatusCode == http.StatusOK:
		return nil
	case resp.StatusCode == http.StatusPartialContent && strings.HasPrefix(resp.Header.Get("Content-Range"), begin):
		return nil
	case t.at > 0 && resp.StatusCode == http.StatusOK: // it knows no ranges
		t.drop = t.at
		return nil
	case resp.StatusCode >= 400 && resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests:
		return fmt.Errorf("%w: it answers %s", errRefused, resp.Status)
	}
	return fmt.Errorf("it answers %s", resp.Status)
}

func (t *transfer) close() {
	if t.cancel != nil {
		t.cancel()
		t.idle.Stop()
		t.cancel = nil
	}
	if t.body != nil {
		_ = t.body.Close()
		t.body = nil
	}
}
