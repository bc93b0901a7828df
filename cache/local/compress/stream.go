package compress

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"

	"narwharf/cache/local/encoder"
	"narwharf/narinfo"
)

// Stream reads a packed NAR while it is encoded. It is for one goroutine, but for
// Close.
//
// When the packed bytes cannot be stored or read back, Read goes on with an encode
// of the stream's own at the same place, since the bytes are the same: it waits for
// an encoder like any other, holds it for as long as the reader takes, and stores
// nothing. File is about the shared encode, and says ErrNotStored then.
type Stream struct {
	s       *Store
	key     narinfo.Hash
	src     encoder.Source
	pull    bool            // src is a network
	ctx     context.Context // ends with Close, too
	cancel  context.CancelCauseFunc
	joined  *encoding // nil if the file was there already
	tail    *tailFile
	release func() // tail, once

	off int64
	err error // sticky

	mu       sync.Mutex
	gone     bool
	fallback *fallback
}

// Join returns a stream of the packed NAR: of the encode that is under way, or
// of one that is begun with src, or of the file if there is one by now. It does
// not block but where Open does; reading waits for an encoder. When ctx ends the
// stream is as good as closed.
func (s *Store) Join(ctx context.Context, key narinfo.Hash, src encoder.Source) (*Stream, error) {
	return s.stream(ctx, &Stream{s: s, key: key, src: src})
}

// Pull is Join for a source that is on a network, which may be slow: it waits for no encode of
// what is here, and none of these for it.
func (s *Store) Pull(ctx context.Context, key narinfo.Hash, src encoder.Source) (*Stream, error) {
	return s.stream(ctx, &Stream{s: s, key: key, src: src, pull: true})
}

func (s *Store) stream(ctx context.Context, st *Stream) (*Stream, error) {
	if err := st.attach(); err != nil {
		return nil, err
	}
	st.release = sync.OnceFunc(st.tail.release)
	st.ctx, st.cancel = context.WithCancelCause(ctx)
	context.AfterFunc(st.ctx, st.leave)
	return st, nil
}

// attach finds what the stream reads.
func (st *Stream) attach() error {
	s := st.s
	for {
		f, digest, err := s.Open(st.key)
		if err == nil {
			st.tail = newTailFile()
			st.tail.begin(f)
			st.tail.retain()
			st.tail.end(digest, nil)
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.mu.Lock()
		switch {
		case s.closed:
			err = about(st.key, ErrClosed)
		case s.stored[st.key] == nil: // still
			st.joined = s.join(st.key, st.src, st.pull)
			st.tail, err = st.joined.tailFile, nil
		}
		s.mu.Unlock()
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
}

// leave is what Close and the end of ctx do.
func (st *Stream) leave() {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.gone {
		return
	}
	st.gone = true
	if st.fallback != nil {
		st.fallback.stop(st.s)
	}
	if st.joined != nil {
		st.s.leave(st.joined)
	}
	st.release()
}

// Close leaves the encode, which ends soon if nobody else reads it. It always
// returns nil.
func (st *Stream) Close() error {
	st.cancel(fs.ErrClosed)
	st.leave()
	return nil
}

// fail makes an error sticky. That the reader left is told first.
func (st *Stream) fail(err error) error {
	if !errors.Is(err, io.EOF) {
		if st.ctx.Err() != nil {
			err = context.Cause(st.ctx)
		}
		err = about(st.key, err)
	}
	st.err = err
	return err
}

// Read reads what is encoded so far, and waits if that is nothing. io.EOF means
// that the whole NAR was encoded and its hash was right. Any other error means
// that the bytes so far are no NAR, and that the client must not take them for
// one.
func (st *Stream) Read(p []byte) (n int, err error) {
	if st.err != nil || len(p) == 0 {
		return 0, st.err
	}
	if st.fallback == nil {
		n, err = st.readShared(p)
	}
	if st.fallback != nil && err == nil {
		n, err = st.fallback.Read(p)
	}
	st.off += int64(n)
	if err != nil {
		err = st.fail(err)
	}
	return n, err
}

// readShared reads from the file. Where that cannot be, the stream falls back.
func (st *Stream) readShared(p []byte) (int, error) {
	ready, ended, err := st.tail.wait(st.ctx, st.off)
	switch {
	case err != nil && ended && errors.Is(err, ErrNotStored):
		return 0, st.fallBack(err)
	case err != nil:
		return 0, err
	case ready <= st.off:
		return 0, io.EOF
	}
	n := 0
	if err = st.s.hit("read"); err == nil {
		n, err = st.tail.file.ReadAt(p[:min(ready-st.off, int64(len(p)))], st.off)
	}
	if n > 0 {
		return n, nil
	}
	if st.ctx.Err() == nil {
		st.s.Drop(st.key, err)
	}
	return 0, st.fallBack(err)
}

// File waits for the end of the shared encode, and opens the whole packed NAR as a
// file of the caller's own. Unlike Store.Open it does so even if the NAR was too
// large to be kept.
func (st *Stream) File(ctx context.Context) (*os.File, encoder.Digest, error) {
	select {
	case <-st.tail.done:
	case <-ctx.Done():
		return nil, encoder.Digest{}, context.Cause(ctx)
	case <-st.ctx.Done():
		return nil, encoder.Digest{}, about(st.key, context.Cause(st.ctx))
	}
	err := st.tail.err
	if err == nil {
		var f *os.File
		if f, err = st.tail.reopen(); err == nil {
			return f, st.tail.digest, nil
		}
	}
	return nil, encoder.Digest{}, about(st.key, err)
}
