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

	"narwharf/narinfo"
)

// ErrNotStored is in the error of an encode whose packed bytes could not be
// written, because the disk is full or broken.
var ErrNotStored = errors.New("the packed nar cannot be stored")

var (
	errNobody  = errors.New("nobody waits for it any more")
	errYielded = errors.New("it makes way for one that somebody waits for")
)

// lookEvery is how many bytes an encode writes between two looks at the free
// space.
const lookEvery = 8 << 20

// flight is one encode into a file: waiting for an encoder, at work, or over.
type flight struct {
	*growing
	job
	s      *Store
	key    narinfo.Hash
	name   string // that it was first asked for by
	src    Source
	ctx    context.Context
	cancel context.CancelCauseFunc

	// Guarded by Store.mu.
	readers int
	wanted  bool        // Start asked for it: it needs no reader
	timer   *time.Timer // running since the last reader left
	counted int64       // its part of Store.bytes

	// Of the goroutine that encodes.
	size, looked int64 // bytes written, and how many when it last looked for room
	big          bool  // it is larger than the limit and will not be kept
}

// newFlight makes a flight that is neither queued nor at work. mu is held.
func (s *Store) newFlight(key narinfo.Hash, name string, src Source) *flight {
	fl := &flight{growing: newGrowing(), s: s, key: key, name: name, src: src}
	fl.ctx, fl.cancel = context.WithCancelCause(s.ctx)
	fl.job = job{run: fl.fly, abandon: func(err error) { s.giveUp(fl, err) }, flight: fl}
	s.flights[key] = fl
	return fl
}

// giveUp breaks a flight off, so that the next one who asks starts another. mu
// is held.
func (s *Store) giveUp(fl *flight, cause error) {
	if s.flights[fl.key] == fl {
		delete(s.flights, fl.key)
	}
	if fl.timer != nil {
		fl.timer.Stop()
	}
	fl.cancel(cause)
	if _, working := s.active[fl]; working {
		s.active[fl] = true
		return // fly ends it
	}
	s.dequeue(&fl.job)
	fl.end(Digest{}, cause)
}

// leave is the opposite of joining a flight.
func (s *Store) leave(fl *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if fl.readers--; fl.readers > 0 || s.flights[fl.key] != fl {
		return
	}
	_, working := s.active[fl]
	switch {
	case fl.wanted && !working:
		s.dequeue(&fl.job)
		s.enqueue(&fl.job, &s.background)
	case fl.wanted:
	case !working:
		s.giveUp(fl, errNobody)
	default:
		fl.timer = time.AfterFunc(s.linger, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if fl.readers == 0 && s.flights[fl.key] == fl {
				s.giveUp(fl, errNobody)
			}
		})
	}
	s.hand() // it may have to make way now
}

// fly does the encode and keeps what it made.
func (fl *flight) fly() {
	s := fl.s
	defer fl.cancel(nil)
	start := time.Now()
	temp := filepath.Join(s.dir, strconv.FormatUint(s.serial.Add(1), 10)+newSuffix)
	if f, digest, err := s.open(fl.key); err == nil {
		// One that was told to make way came through nevertheless.
		fl.begin(f)
		s.mu.Lock()
		s.ground(fl)
		s.mu.Unlock()
		fl.end(digest, nil)
		return
	}
	digest, err := fl.write(temp)

	s.mu.Lock()
	s.ground(fl)
	kept := false
	if err == nil && digest.Size <= s.limit {
		kept = s.land(fl.key, digest, temp)
	}
	if !kept {
		s.remove(temp)
	}
	s.mu.Unlock()

	fl.end(digest, err)
	s.count(fl.name, err)
	if err == nil {
		s.log.Debug("packed", "nar", fl.name, "bytes", digest.Size, "kept", kept, "took", time.Since(start))
	}
}

// ground ends the part that a flight has in the store. mu is held.
func (s *Store) ground(fl *flight) {
	if s.flights[fl.key] == fl {
		delete(s.flights, fl.key)
	}
	delete(s.active, fl)
	if fl.timer != nil {
		fl.timer.Stop()
	}
	s.bytes -= fl.counted
	fl.counted = 0
}

// land gives a whole file its name. mu is held, so that no other flight's file
// of this name comes between.
func (s *Store) land(key narinfo.Hash, digest Digest, temp string) bool {
	err := s.hit("rename")
	if err == nil {
		err = os.Rename(temp, s.path(key))
	}
	if err != nil {
		s.log.Error("keep a packed nar", "error", err)
		return false
	}
	now := s.now()
	s.keep(&keptFile{key: key, digest: digest, used: now})
	s.evict(s.limit)
	return true
}

// write encodes into the file temp, which readers follow.
func (fl *flight) write(temp string) (Digest, error) {
	s := fl.s
	if known, ok := s.digests.get(fl.key); ok && known.Size > s.limit {
		fl.big = true // and others need not go for it
	}
	f, err := s.create(temp)
	if err != nil {
		return Digest{}, fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	fl.begin(f)
	digest, err := encode(fl.ctx, fl.key, fl.src, fl)
	if sink := (*sinkError)(nil); errors.As(err, &sink) {
		err = fmt.Errorf("%w: %w", ErrNotStored, sink.err)
	}
	if err == nil {
		s.learn(fl.key, digest)
	}
	return digest, err
}

// create makes the file of an encode, and room for it.
func (s *Store) create(name string) (*os.File, error) {
	if err := s.keepReserve(); err != nil {
		return nil, err
	}
	for {
		err := s.hit("create")
		if err == nil {
			var f *os.File
			if f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644); err == nil {
				return f, nil
			}
		}
		if !s.evictIfFull(err) {
			return nil, err
		}
	}
}

// evictIfFull reports whether what failed with err, for want of room, may be
// tried again since a file has gone.
func (s *Store) evictIfFull(err error) bool {
	if !isFull(err) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.evictOne()
}

// Write takes packed bytes: into the file, and out to the readers.
func (fl *flight) Write(p []byte) (int, error) {
	s := fl.s
	if fl.size-fl.looked >= lookEvery {
		fl.looked = fl.size
		if err := s.keepReserve(); err != nil {
			return 0, err
		}
	}
	for rest := p; len(rest) > 0; {
		n := 0
		err := s.hit("write")
		if err == nil {
			n, err = fl.file.Write(rest)
		}
		rest = rest[n:]
		fl.grow(int64(n))
		if err != nil && !s.evictIfFull(err) {
			return len(p) - len(rest), err
		}
	}
	fl.publish(fl.size)
	return len(p), nil
}

// grow counts n more bytes and evicts others for them. Once a NAR is larger
// than the limit it does not count any more, or it would empty the folder for
// nothing.
func (fl *flight) grow(n int64) {
	s := fl.s
	fl.size += n
	s.mu.Lock()
	defer s.mu.Unlock()
	if fl.size > s.limit {
		fl.big = true
	}
	if fl.big {
		s.bytes -= fl.counted
		fl.counted = 0
		return
	}
	s.bytes += n
	fl.counted += n
	s.evict(s.limit)
}

// learn remembers what a NAR became.
func (s *Store) learn(key narinfo.Hash, digest Digest) {
	before, known, err := s.digests.put(key, digest, func(p []byte) (int, error) {
		if err := s.hit("facts"); err != nil {
			return 0, err
		}
		return s.digests.f.Write(p)
	})
	if known && before != digest {
		s.log.Error("a nar became other packed bytes than before, so a resumed download may fail once: this build's encoder differs",
			"nar", key.Base32(), "before", before.Hash, "now", digest.Hash)
	}
	if err != nil {
		s.log.Warn("what a packed nar is will be forgotten at the next start", "nar", key.Base32(), "error", err)
	}
}

// count counts an encode by how it ended, and says what a person should know.
func (s *Store) count(name string, err error) {
	result := resultFailed
	switch {
	case err == nil:
		result = resultOK
	case errors.Is(err, errYielded):
		result = resultYielded
	case errors.Is(err, errNobody), errors.Is(err, ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, fs.ErrClosed):
		result = resultCancelled
	case errors.Is(err, ErrWrongNAR):
		result = resultHash
	case errors.Is(err, ErrSource):
		result = resultSource
	case errors.Is(err, ErrNotStored):
		result = resultStore
	}
	s.m.encodes.WithLabelValues(result).Inc()
	switch result {
	case resultOK:
	case resultCancelled, resultYielded:
		s.log.Debug("an encode was broken off", "nar", name, "error", err)
	default:
		s.log.Error("an encode failed", "nar", name, "error", err)
	}
}
