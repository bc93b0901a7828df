package compress

import (
	"context"
	"os"
	"strconv"
	"sync"

	"narwharf/cache/local/encoder"
)

// tailFile is a file that readers follow while it is written. It is open once, for
// as long as anybody reads it.
type tailFile struct {
	mu     sync.Mutex
	file   *os.File      // nil before the first byte
	ready  int64         // bytes that may be read
	more   chan struct{} // closed when ready grows or all is over; made by whoever waits
	users  int           // who may use file
	done   chan struct{} // closed when all is over
	digest encoder.Digest
	err    error // why the encode failed
}

func newTailFile() *tailFile { return &tailFile{users: 1, done: make(chan struct{})} }

// begin says which file it is.
func (t *tailFile) begin(f *os.File) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.file = f
}

// publish makes the first n bytes of the file readable.
func (t *tailFile) publish(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ready = n
	t.wake()
}

func (t *tailFile) wake() {
	if t.more != nil {
		close(t.more)
		t.more = nil
	}
}

// end is called once, and closes the file if nobody reads it.
func (t *tailFile) end(digest encoder.Digest, err error) {
	defer t.release()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.digest, t.err = digest, err; err == nil {
		t.ready = digest.Size
	}
	close(t.done)
	t.wake()
}

func (t *tailFile) over() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

func (t *tailFile) retain() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users++
}

// release closes the file when nobody is left.
func (t *tailFile) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users--; t.users == 0 && t.file != nil {
		_ = t.file.Close() // nothing more is written to it
	}
}

// wait blocks until there are bytes behind off, and returns where they end, or
// until all is over: then ended is true, and ready is the size unless err is set.
func (t *tailFile) wait(ctx context.Context, off int64) (ready int64, ended bool, err error) {
	for {
		t.mu.Lock()
		ready, ended, err = t.ready, t.over(), t.err
		if ended || ready > off {
			t.mu.Unlock()
			return ready, ended, err
		}
		if t.more == nil {
			t.more = make(chan struct{})
		}
		more := t.more
		t.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return 0, false, context.Cause(ctx)
		}
	}
}

// reopen opens the file once more, whatever became of its name.
func (t *tailFile) reopen() (f *os.File, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return os.Open("/proc/self/fd/" + strconv.Itoa(int(t.file.Fd())))
}
