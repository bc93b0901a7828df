package diskcache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"narwharf/cache/blob"
)

var (
	errNobody = errors.New("nobody reads it any more")
	errPassed = errors.New("it is not kept here")
)

// Open opens a copy, or fetches the file: fetch opens it where it lies, and is called by
// one at a time for a name. What is larger than the cache, or finds the disk full, is read
// past it.
func (c *Cache) Open(name string, fetch func() (*blob.File, error)) (*blob.File, error) {
	f, err := c.Copy(name)
	if err == nil {
		c.lookups.WithLabelValues(hit).Inc()
		return f, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		c.Log.Warn("a copy of the disk cache could not be read", "file", name, "error", err)
	}
	c.mu.Lock()
	fl := c.flights[name]
	if fl != nil {
		fl.join()
		c.mu.Unlock()
		f, err := fl.open()
		if !errors.Is(err, errPassed) && !errors.Is(err, errNobody) {
			c.lookups.WithLabelValues(joined).Inc()
			return f, err
		}
		c.lookups.WithLabelValues(passed).Inc()
		return fetch()
	}
	fl = newFlight(c, name)
	c.flights[name] = fl
	c.mu.Unlock()
	src, err := fl.begin(fetch)
	if src != nil || err != nil {
		if err == nil {
			c.lookups.WithLabelValues(passed).Inc()
		}
		return src, err
	}
	c.lookups.WithLabelValues(fetched).Inc()
	return fl.open()
}

// flight is a file on its way.
type flight struct {
	c     *Cache
	name  string
	began chan struct{} // closed when info is known, or there is none
	stop  chan struct{} // closed when it shall end

	// Set before began is closed.
	info  blob.Info
	w     blob.Writer
	read  *os.File // what is written, for the readers
	noCan error

	mu      sync.Mutex
	more    *sync.Cond
	there   int64 // bytes that may be read
	err     error // how it ended, io.EOF: well
	readers int
	stopped bool
	timer   *time.Timer
}

func newFlight(c *Cache, name string) *flight {
	f := &flight{c: c, name: name, began: make(chan struct{}), stop: make(chan struct{}), readers: 1}
	f.more = sync.NewCond(&f.mu)
	return f
}

// begin opens the source and begins to copy. Who cannot be kept is returned as it is.
func (f *flight) begin(fetch func() (*blob.File, error)) (passed *blob.File, err error) {
	src, err := fetch()
	if err == nil {
		f.info = src.Info
		if f.noCan = f.prepare(src.Size); f.noCan != nil {
			passed = src
		}
	} else {
		f.noCan = err
	}
	if f.noCan != nil {
		f.leave()
		f.end()
		close(f.began)
		return passed, err
	}
	f.c.working.Add(1)
	close(f.began)
	go f.copy(src)
	return nil, nil
}

// prepare makes the file of the copy.
func (f *flight) prepare(size int64) error {
	if size > f.c.Limit/2 {
		return errPassed
	}
	f.c.room(size)
	w, err := f.c.files.Create(f.name, size)
	if err == nil {
		if o, ok := w.(interface{ Open() (*os.File, error) }); ok {
			f.read, err = o.Open()
		} else {
			err = errors.ErrUnsupported
		}
		if err != nil {
			w.Abort()
		}
	}
	if err != nil {
		f.c.Log.Warn("a file is not kept in the disk cache", "file", f.name, "error", err)
		return errPassed
	}
	f.w = w
	return nil
}

// copy copies the source, and keeps it if it came whole.
func (f *flight) copy(src *blob.File) {
	defer f.c.working.Done()
	go func() { // a source may hang in a read
		<-f.stop
		src.Close()
	}()
	err := f.take(src)
	f.end()
	if err == nil {
		f.c.keep(f.name, f.info.Size, f.w)
		err = io.EOF
	}
	f.w.Abort()
	f.mu.Lock()
	f.err, f.there = err, f.info.Size
	if err != io.EOF {
		f.there = 0
	}
	f.more.Broadcast()
	f.closeIfDone()
	f.mu.Unlock()
	f.cancel()
}

// closeIfDone closes the file that is read once it is over and nobody reads it. mu is held.
func (f *flight) closeIfDone() {
	if f.err != nil && f.readers == 0 {
		f.read.Close()
	}
}

// take reads the source to its end. Its last byte is given to readers once the source has
// said that all was well.
func (f *flight) take(src *blob.File) error {
	buf := make([]byte, 256<<10)
	var n int64
	for {
		k, err := src.Content.Read(buf)
		if k > 0 {
			if _, err := f.w.Write(buf[:k]); err != nil {
				return err
			}
			n += int64(k)
			f.mu.Lock()
			f.there = min(n, f.info.Size-1)
			stopped := f.stopped
			f.more.Broadcast()
			f.mu.Unlock()
			if stopped {
				return errNobody
			}
		}
		switch {
		case errors.Is(err, io.EOF) && n == f.info.Size:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("%s: it ends after %d of %d bytes: %w", f.name, n, f.info.Size, io.ErrUnexpectedEOF)
		case err != nil:
			return err
		}
	}
}

// keep makes a written file a copy.
func (c *Cache) keep(name string, size int64, w blob.Writer) {
	err := w.Commit()
	if err != nil {
		c.Log.Warn("a copy could not be kept in the disk cache", "file", name, "error", err)
		return
	}
	c.mu.Lock()
	c.add(name, size)
	c.mu.Unlock()
}

// end has nobody join any more.
func (f *flight) end() {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if f.c.flights[f.name] == f {
		delete(f.c.flights, f.name)
	}
}

func (f *flight) join() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readers++
	if f.timer != nil {
		f.timer.Stop()
	}
}

// leave is the opposite of join. A fetch that nobody reads goes on for a moment.
func (f *flight) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readers--
	f.closeIfDone()
	if f.readers > 0 || f.stopped {
		return
	}
	f.timer = time.AfterFunc(f.c.Linger, func() {
		f.mu.Lock()
		alone := f.readers == 0
		f.mu.Unlock()
		if alone {
			f.end()
			f.cancel()
		}
	})
}

// cancel ends the copying, if it goes on.
func (f *flight) cancel() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.stopped {
		f.stopped = true
		close(f.stop)
	}
}

// open waits until the file is on its way, and opens what comes. Its caller has joined.
func (f *flight) open() (*blob.File, error) {
	<-f.began
	if f.noCan != nil {
		f.leave()
		return nil, f.noCan
	}
	return &blob.File{Info: f.info, Content: &tail{f: f}}, nil
}

// tail reads a file that is still growing.
type tail struct {
	f      *flight
	at     int64
	closed bool
}

// Read implements io.Reader. It waits for bytes that are still to come.
func (t *tail) Read(p []byte) (int, error) {
	f := t.f
	if t.at >= f.info.Size {
		return 0, io.EOF
	}
	f.mu.Lock()
	for f.there <= t.at && f.err == nil {
		f.more.Wait()
	}
	there, err := f.there, f.err
	f.mu.Unlock()
	if there <= t.at {
		return 0, fmt.Errorf("fetch %s: %w", f.name, err)
	}
	n, err := f.read.ReadAt(p[:min(int64(len(p)), there-t.at)], t.at)
	t.at += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

// Seek implements io.Seeker.
func (t *tail) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += t.at
	case io.SeekEnd:
		offset += t.f.info.Size
	}
	if offset < 0 {
		return 0, fs.ErrInvalid
	}
	t.at = offset
	return offset, nil
}

// Close implements io.Closer.
func (t *tail) Close() error {
	if !t.closed {
		t.closed = true
		t.f.leave()
	}
	return nil
}
