package compress

import (
	"context"
	"io/fs"
	"os"
	"strconv"
	"sync"
)

// growing is a packed NAR that readers follow while it is written: from a file
// that is open once, for as long as anybody reads it.
type growing struct {
	mu     sync.Mutex
	file   *os.File      // nil before the first byte
	ready  int64         // bytes that may be read
	more   chan struct{} // closed when ready grows or all is over; made by whoever waits
	refs   int           // who may use file
	done   chan struct{} // closed when all is over
	digest Digest
	err    error // why the encode failed
}

func newGrowing() *growing {
	return &growing{refs: 1, done: make(chan struct{})}
}

func (g *growing) over() bool {
	select {
	case <-g.done:
		return true
	default:
		return false
	}
}

func (g *growing) wake() {
	if g.more != nil {
		close(g.more)
		g.more = nil
	}
}

// begin says which file it is.
func (g *growing) begin(f *os.File) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.file = f
}

// publish makes the first n bytes of the file readable.
func (g *growing) publish(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ready = n
	g.wake()
}

// end is called once, and closes the file if nobody reads it.
func (g *growing) end(digest Digest, err error) {
	defer g.release()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.digest, g.err = digest, err; err == nil {
		g.ready = digest.Size
	}
	close(g.done)
	g.wake()
}

func (g *growing) retain() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refs++
}

// release closes the file when nobody is left.
func (g *growing) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refs--; g.refs == 0 && g.file != nil {
		_ = g.file.Close() // nothing more is written to it
	}
}

// wait blocks until there are bytes behind off, and returns where they end, or
// until all is over: then ended is true, and ready is the size unless err is set.
func (g *growing) wait(ctx context.Context, left <-chan struct{}, off int64) (ready int64, ended bool, err error) {
	for {
		g.mu.Lock()
		ready, ended, err = g.ready, g.over(), g.err
		if ended || ready > off {
			g.mu.Unlock()
			return ready, ended, err
		}
		if g.more == nil {
			g.more = make(chan struct{})
		}
		more := g.more
		g.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return 0, false, context.Cause(ctx)
		case <-left:
			return 0, false, fs.ErrClosed
		}
	}
}

// reopen opens the file once more, whatever became of its name.
func (g *growing) reopen() (f *os.File, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	raw, err := g.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	if e := raw.Control(func(fd uintptr) {
		f, err = os.Open("/proc/self/fd/" + strconv.FormatUint(uint64(fd), 10))
	}); e != nil {
		return nil, e
	}
	return f, err
}
