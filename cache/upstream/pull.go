package upstream

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"narwharf/cache/local/compress"
	"narwharf/cache/local/encoder"
	"narwharf/cache/nar"
	"narwharf/cache/narfile"
	"narwharf/narinfo"
)

// ErrGone is in the error of a pull where the path is at no upstream any more. It Is fs.ErrNotExist.
var ErrGone = fmt.Errorf("no upstream has it any more: %w", fs.ErrNotExist)

// errLied is that a NAR is not what the narinfo says.
var errLied = errors.New("the upstream sends another NAR than it signed")

// Stream is the packed NAR of a path, while it is pulled: one pull, however many ask.
func (us *Upstreams) Stream(ctx context.Context, p *Path) (*compress.Stream, error) {
	return us.Packed.Pull(ctx, p.Info.NarHash, us.Source(p))
}

// Source is the NAR of a path for an encoder.
func (us *Upstreams) Source(p *Path) encoder.Source {
	return func(ctx context.Context, w io.Writer) error {
		n := &counted{w: w}
		err := us.pull(ctx, p, n)
		if err == nil || ctx.Err() != nil || n.n > 0 { // what has gone out cannot be taken back
			return err
		}
		again, lookErr := us.Find(context.WithValue(ctx, cameKey{}, came{via: p.via}), p.Info.Path.Hash())
		switch {
		case errors.Is(lookErr, fs.ErrNotExist) && !errors.Is(lookErr, ErrUnavailable):
			return ErrGone
		case lookErr != nil || !same(again.Info, p.Info) || again.From == p.From && again.Info.URL == p.Info.URL:
			return err
		}
		return us.pull(ctx, again, n)
	}
}

// pull writes the NAR of a path to w, and returns an error unless it is what the narinfo says. Then
// the path is looked up anew when it is asked for again.
func (us *Upstreams) pull(ctx context.Context, p *Path, w io.Writer) error {
	n, err := p.From.unpack(ctx, p, w)
	result := pulledOK
	switch {
	case err == nil:
	case ctx.Err() != nil:
		result = pulledCancelled
	case errors.Is(err, errNone):
		result = pulledNone
		us.spoilt.Add(p.file(), time.Now())
	case errors.Is(err, errLied):
		result = pulledLied
		us.spoilt.Add(p.file(), time.Now())
	default:
		result = pulledFailed
	}
	us.m.pulled(p.From, result, n)
	if err == nil || result == pulledCancelled {
		return err
	}
	us.doubt(p)
	us.log.Error("a NAR could not be pulled", "upstream", p.From, "path", p.Info.Path, "error", err)
	return fmt.Errorf("%s from %s: %w", p.Info.Path, p.From, err)
}

type counted struct {
	w io.Writer
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// unpack returns how many bytes came.
func (u *Upstream) unpack(ctx context.Context, p *Path, w io.Writer) (came int64, err error) {
	to, err := resolve(u.URL, p.Info.URL)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errNone, err)
	}
	d := &download{u: u, ctx: ctx, to: to, via: p.via}
	defer d.close()
	// What a file may have at most that unpacks to the NAR: FileSize is not signed.
	file := narfile.Limit(d, p.Info.NarSize+p.Info.NarSize/8+1<<20, "the NAR file")
	plain, err := narfile.Unpack(bufio.NewReaderSize(file, 256<<10), p.Info.Compression)
	if err == nil {
		defer plain.Close()
		sink := &sink{w: w}
		sum := sha256.New()
		_, err = nar.Check(io.TeeReader(narfile.Limit(plain, p.Info.NarSize, "the NAR"), io.MultiWriter(sum, sink)))
		switch {
		case sink.err != nil:
			return d.off, sink.err
		case d.err != nil:
			return d.off, d.err
		case err == nil && narinfo.Hash(sum.Sum(nil)) != p.Info.NarHash:
			err = errors.New("it has another hash")
		}
	}
	if d.err != nil {
		return d.off, d.err
	}
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", errLied, err)
	}
	return d.off, err
}

// sink keeps the error of what takes the NAR apart.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err != nil {
		s.err = err
	}
	return n, err
}

// resolve is where the NAR of a narinfo is.
func resolve(base *url.URL, to string) (*url.URL, error) {
	folder := *base
	folder.Path = strings.TrimSuffix(folder.Path, "/") + "/"
	u, err := folder.Parse(to)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("its NAR has no URL that can be asked")
	}
	return u, nil
}

// FileURL is where the NAR file of a path is, as a URL of its own.
func (p *Path) FileURL() string {
	u, err := resolve(p.From.URL, p.Info.URL)
	if err != nil {
		return p.Info.URL
	}
	return u.String()
}

// stallTime is how long a download may be silent.
var stallTime = 20 * time.Second // tests set less

// download is the file of a NAR. When the connection breaks, or stands still, it goes on from there.
type download struct {
	u   *Upstream
	ctx context.Context
	to  *url.URL
	via []string

	body   io.ReadCloser
	cancel context.CancelCauseFunc
	stall  *time.Timer
	off    int64 // bytes that came
	size   int64 // of all; below 0 where that is not known
	ranges bool
	tries  int
	broken time.Time // when the first of tries failed
	since  int64     // off when tries was set back
	err    error     // sticky: why no more comes
}

const (
	maxTries   = 4       // without progress
	someBytes  = 1 << 20 // is progress
	firstDelay = 200 * time.Millisecond
	lastDelay  = 10 * time.Second
	// What has so many bytes waits longer for a line that was cut, so that they need not cross it again.
	manyBytes = 8 << 20
	cutTime   = 15 * time.Minute
)

var errStalled = errors.New("nothing came for too long")

func (d *download) Read(p []byte) (int, error) {
	for d.err == nil {
		if d.body == nil {
			if err := d.open(); err != nil {
				d.broke(err)
				continue
			}
		}
		d.stall.Reset(stallTime)
		n, err := d.body.Read(d.u.pace.Room(p))
		d.stall.Stop()
		d.off += int64(n)
		d.u.pace.Wait(d.ctx, n)
		if err == io.EOF && d.size >= 0 && d.off < d.size {
			err = io.ErrUnexpectedEOF
		}
		if err == io.EOF {
			return n, err
		}
		if err != nil {
			d.close()
			d.broke(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, d.err
}

// broke waits before the next try, or makes err the end.
func (d *download) broke(err error) {
	if d.off-d.since >= someBytes {
		d.tries, d.since = 0, d.off
	}
	if d.tries++; d.tries == 1 {
		d.broken = time.Now()
	}
	patient := d.off >= manyBytes && time.Since(d.broken) < cutTime
	if errors.Is(err, errNone) || d.off > 0 && !d.ranges || !patient && (errors.Is(err, errDown) || d.tries > maxTries) {
		d.err = err
		return
	}
	select {
	case <-time.After(min(firstDelay<<min(d.tries, 10), lastDelay)):
	case <-d.ctx.Done():
		d.err = context.Cause(d.ctx)
	}
}

func (d *download) open() error {
	ctx, cancel := context.WithCancelCause(d.ctx)
	var resp *http.Response
	err := d.u.try(d.ctx, true, func() (err error) {
		resp, err = d.u.get(ctx, d.to, request{via: d.via, from: d.off, nar: true}) //nolint:bodyclose // close does, when it was read
		return err
	})
	if err != nil {
		cancel(nil)
		return err
	}
	if d.off > 0 {
		var from, to, size int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &size); resp.StatusCode != http.StatusPartialContent || err != nil || from != d.off {
			_ = resp.Body.Close()
			cancel(nil)
			return fmt.Errorf("%w: it does not go on from byte %d", errNone, d.off)
		}
	} else {
		d.size, d.ranges = resp.ContentLength, resp.Header.Get("Accept-Ranges") == "bytes"
	}
	d.body, d.cancel = resp.Body, cancel
	d.stall = time.AfterFunc(stallTime, func() { cancel(errStalled) })
	return nil
}

func (d *download) close() {
	if d.body != nil {
		d.stall.Stop()
		d.cancel(nil)
		_ = d.body.Close()
		d.body = nil
	}
}
