package compress

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"narwharf/cache/local/encoder"
	"narwharf/narinfo"
)

// ErrNotStored is in the error of an encode whose packed bytes could not be
// written, because the disk is full or broken.
var ErrNotStored = errors.New("the packed nar cannot be stored")

var (
	errNobody  = errors.New("nobody waits for it any more")
	errYielded = errors.New("nobody waits for it any more, and others wait for its encoder")
)

// lookEvery is how many bytes an encode writes between two looks at the free
// space.
const lookEvery = 8 << 20

// encoding is one encode into a file: waiting for an encoder, at work, or over.
type encoding struct {
	*tailFile
	job
	s      *Store
	key    narinfo.Hash
	src    encoder.Source
	ctx    context.Context
	cancel context.CancelCauseFunc

	// Guarded by Store.mu.
	readers int
	timer   *time.Timer // running since the last reader left
	counted int64       // its part of Store.bytes

	// Of the goroutine that encodes.
	size, looked int64 // bytes written, and how many when it last looked for room
	big          bool  // it is larger than the limit and will not be stored
}

// join makes the caller a reader of the encode of a NAR, which begins if there is
// none. mu is held.
func (s *Store) join(key narinfo.Hash, src encoder.Source, pull bool) *encoding {
	e := s.encodings[key]
	if e != nil {
		s.m.joined.Inc()
	} else {
		e = &encoding{tailFile: newTailFile(), s: s, key: key, src: src, job: job{pull: pull}}
		e.ctx, e.cancel = context.WithCancelCause(s.ctx)
		e.run = e.encode
		s.encodings[key] = e
	}
	if e.timer != nil {
		e.timer.Stop()
	}
	e.readers++
	e.retain()
	if e.readers == 1 && !e.working && e.place == nil {
		s.enqueue(&e.job)
	}
	return e
}

// leave is the opposite of join. The encode goes on for a moment: a client whose
// connection broke comes back.
func (s *Store) leave(e *encoding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.readers--; e.readers > 0 || s.encodings[e.key] != e {
		return
	}
	if !e.working {
		s.giveUp(e, errNobody)
		return
	}
	e.timer = time.AfterFunc(s.linger, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if e.readers == 0 && s.encodings[e.key] == e {
			s.giveUp(e, errNobody)
		}
	})
	s.dispatch() // somebody may wait for its encoder
}

// giveUp breaks an encode off, so that the next one who asks starts another. mu
// is held.
func (s *Store) giveUp(e *encoding, cause error) {
	s.detach(e)
	e.cancel(cause)
	if !e.working { // else encode ends it
		s.dequeue(&e.job)
		e.end(encoder.Digest{}, cause)
	}
}

// detach has nobody join an encode any more. mu is held.
func (s *Store) detach(e *encoding) {
	if s.encodings[e.key] == e {
		delete(s.encodings, e.key)
	}
	if e.timer != nil {
		e.timer.Stop()
	}
}

// encode does the encode and stores what it made.
func (e *encoding) encode() {
	s := e.s
	defer e.cancel(nil)
	start := time.Now()
	temp := filepath.Join(s.dir, strconv.FormatUint(s.serial.Add(1), 10)+newSuffix)
	digest, err := e.write(temp)
	stored := s.finish(e, temp, digest, err)
	e.end(digest, err)
	s.count(e.key, err)
	if err == nil {
		s.log.Debug("packed", "nar", e.key.Base32(), "bytes", digest.Size, "kept", stored, "took", time.Since(start))
	}
}

// finish ends the part that an encode has in the store, and gives its file the name
// if it is good.
func (s *Store) finish(e *encoding, temp string, digest encoder.Digest, err error) (stored bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.detach(e)
	s.bytes -= e.counted
	e.counted = 0
	stored = err == nil && digest.Size <= s.limit && s.commit(e.key, digest, temp)
	if !stored {
		s.remove(temp)
	}
	return stored
}

// commit gives a whole file its name. mu is held, so that no other encode's file
// of this name comes between.
func (s *Store) commit(key narinfo.Hash, digest encoder.Digest, temp string) bool {
	err := s.hit("rename")
	if err == nil {
		err = os.Rename(temp, s.path(key))
	}
	if err != nil {
		s.log.Error("keep a packed nar", "error", err)
		return false
	}
	s.add(&storedFile{key: key, digest: digest, used: s.now()})
	s.evict(s.limit)
	return true
}

// write encodes into the file temp, which readers follow.
func (e *encoding) write(temp string) (encoder.Digest, error) {
	s := e.s
	if known, ok := s.digests.Get(e.key); ok && known.Size > s.limit {
		e.big = true // and others need not go for it
	}
	f, err := s.create(temp)
	if err != nil {
		return encoder.Digest{}, fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	e.begin(f)
	digest, err := encoder.Encode(e.ctx, e.key, e.src, e)
	if sink := (*encoder.SinkError)(nil); errors.As(err, &sink) {
		err = fmt.Errorf("%w: %w", ErrNotStored, sink)
	}
	if err == nil {
		s.learn(e.key, digest)
	}
	return digest, err
}

// Write takes packed bytes: into the file, and out to the readers.
func (e *encoding) Write(p []byte) (int, error) {
	s := e.s
	if e.size-e.looked >= lookEvery {
		e.looked = e.size
		if err := s.freeReserve(); err != nil {
			return 0, err
		}
	}
	for rest := p; len(rest) > 0; {
		n := 0
		err := s.hit("write")
		if err == nil {
			n, err = e.file.Write(rest)
		}
		rest = rest[n:]
		e.grow(int64(n))
		if err != nil && !s.evictIfFull(err) {
			return len(p) - len(rest), err
		}
	}
	e.publish(e.size)
	return len(p), nil
}

// grow counts n more bytes and evicts others for them. Once a NAR is larger
// than the limit it does not count any more, or it would empty the folder for
// nothing.
func (e *encoding) grow(n int64) {
	s := e.s
	e.size += n
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.big = e.big || e.size > s.limit; e.big {
		n = -e.counted
	}
	s.bytes += n
	e.counted += n
	s.evict(s.limit)
}

// learn remembers what a NAR became.
func (s *Store) learn(key narinfo.Hash, digest encoder.Digest) {
	before, known, err := s.digests.Put(key, digest)
	if known && before != digest {
		s.log.Error("a nar became other packed bytes than before, so a resumed download may fail once: this build's encoder differs",
			"nar", key.Base32(), "before", before.Hash, "now", digest.Hash)
	}
	if err != nil {
		s.log.Warn("what a packed nar is will be forgotten at the next start", "nar", key.Base32(), "error", err)
	}
}

// count counts an encode by how it ended, and says what a person should know.
func (s *Store) count(key narinfo.Hash, err error) {
	result := resultFailed
	switch {
	case err == nil:
		result = resultOK
	case errors.Is(err, errYielded):
		result = resultYielded
	case errors.Is(err, errNobody), errors.Is(err, ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, fs.ErrClosed):
		result = resultCancelled
	case errors.Is(err, encoder.ErrWrongNAR):
		result = resultHash
	case errors.Is(err, encoder.ErrSource):
		result = resultSource
	case errors.Is(err, ErrNotStored):
		result = resultStore
	}
	s.m.encodes.WithLabelValues(result).Inc()
	switch result {
	case resultOK:
	case resultCancelled, resultYielded:
		s.log.Debug("an encode was broken off", "nar", key.Base32(), "error", err)
	default:
		s.log.Error("an encode failed", "nar", key.Base32(), "error", err)
	}
}
