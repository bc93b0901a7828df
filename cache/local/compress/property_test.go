package compress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"narwharf/narinfo"

	"narwharf/cache/local/encoder"
)

// check is what has to be true of a store at every moment.
func (s *Store) check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var wrong []error
	fail := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	var sum, counted int64
	files := []string{}
	last := time.Time{}
	for e := s.order.Back(); e != nil; e = e.Prev() {
		k, _ := e.Value.(*storedFile)
		if s.stored[k.key] != k {
			fail("the order has a file that is not kept")
		}
		if !k.used.After(last) {
			fail("out of order")
		}
		last = k.used
		sum += k.digest.Size
		files = append(files, fileName(k.key))
		if f, known := s.digests.Get(k.key); !known || f != k.digest {
			fail("a kept file without facts")
		}
	}
	if len(s.stored) != s.order.Len() {
		fail("%d kept, %d in order", len(s.stored), s.order.Len())
	}
	joinable := 0
	for _, e := range s.encodings {
		counted += e.counted
		if e.working {
			joinable++
		}
	}
	// Those that were given up and have not ended yet count, too.
	if sum+counted > s.bytes || joinable == s.working && sum+counted != s.bytes {
		fail("%d bytes kept and %d under way make %d", sum, counted, s.bytes)
	}
	if sum > s.limit {
		fail("%d bytes kept, the limit is %d", sum, s.limit)
	}
	if s.working > s.encoders || joinable > s.working {
		fail("%d of %d encoders are at work for %d", s.working, s.encoders, joinable)
	}
	if s.queue.Len() > 0 && s.working < s.encoders {
		fail("%d wait though an encoder is free", s.queue.Len())
	}
	for _, e := range s.encodings {
		switch {
		case e.working == (e.place != nil):
			fail("an encode is neither queued nor at work, or both")
		case e.readers < 0 || e.readers == 0 && (!e.working || e.timer == nil || s.queue.Len() > 0):
			fail("an encode of %d readers", e.readers)
		case e.over():
			fail("an encode is over and can be joined")
		}
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		fail("%w", err)
	}
	have, growing := []string{}, 0
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) {
			have = append(have, e.Name())
			if st, err := os.Stat(filepath.Join(s.dir, e.Name())); err != nil || st.Size() == 0 {
				fail("%s: %v", e.Name(), err)
			}
		}
		if strings.HasSuffix(e.Name(), newSuffix) {
			growing++
		}
	}
	slices.Sort(files)
	slices.Sort(have)
	if !slices.Equal(files, have) {
		fail("kept are %q and there are %q", files, have)
	}
	if growing > s.working {
		fail("%d files under way for %d encodes", growing, s.working)
	}
	return errors.Join(wrong...)
}

// reading is a stream and what it has given so far.
type reading struct {
	*Stream
	i    *item
	bad  bool // its source is, and maybe others' that it joined
	got  []byte
	over bool
}

// read reads up to n bytes and holds them against what they have to be.
func (r *reading) read(n int) error {
	if r.over {
		return nil
	}
	b := make([]byte, n)
	n, err := r.Read(b)
	r.got = append(r.got, b[:n]...)
	if !bytes.HasPrefix(r.i.out, r.got) {
		return fmt.Errorf("other bytes at %d", len(r.got)-n)
	}
	if err == nil {
		return nil
	}
	r.over = true
	whole := len(r.got) == len(r.i.out)
	switch {
	case errors.Is(err, io.EOF) && whole:
		return nil
	case errors.Is(err, io.EOF):
		return fmt.Errorf("an end after %d bytes of %d", len(r.got), len(r.i.out))
	case whole:
		return fmt.Errorf("all bytes were given and then: %w", err)
	case r.bad && (errors.Is(err, encoder.ErrSource) || errors.Is(err, encoder.ErrWrongNAR)):
		return nil
	case errors.Is(err, fs.ErrClosed), errors.Is(err, ErrClosed), errors.Is(err, context.Canceled):
		return nil
	}
	return err
}

// TestAnyOrder does random things one after another, while encodes go on
// beside, and looks at everything after each.
func TestAnyOrder(t *testing.T) {
	var pool []*item
	for n, size := range []int{1000, 5000, 30_000, 100_000, 200_000, 400_000} {
		i := newItem(size, uint64(n))
		i.packed(t)
		pool = append(pool, i)
	}
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{T: t, quiet: true, o: Options{
			Dir: t.TempDir(), Encoders: rapid.IntRange(1, 3).Draw(rt, "encoders"),
			Limit: rapid.Int64Range(0, 300_000).Draw(rt, "limit"),
		}}
		var broken atomic.Bool
		var unlucky atomic.Int64
		w.hook = func(string) error {
			if broken.Load() && unlucky.Add(1)%3 == 0 {
				return syscall.ENOSPC
			}
			return nil
		}
		w.open()
		w.linger = time.Duration(rapid.IntRange(0, 2).Draw(rt, "linger")) * time.Millisecond
		defer w.close()
		var open []*reading
		defer func() {
			for _, r := range open {
				r.Close()
			}
		}()
		anItem := rapid.IntRange(0, len(pool)-1)
		step := make(chan struct{}) // a gated source goes on
		defer close(step)
		// gated sources go on by themselves after a while, so that all ends
		source := func(i *item, bad, gated bool) encoder.Source {
			return func(ctx context.Context, out io.Writer) error {
				b := i.bytes
				if bad {
					b = b[:len(b)-1]
				}
				for len(b) > 0 {
					n := min(len(b), 150_000)
					if _, err := out.Write(b[:n]); err != nil {
						return err
					}
					b = b[n:]
					if gated {
						select {
						case <-step:
						case <-time.After(3 * time.Millisecond):
						case <-ctx.Done():
							return ctx.Err()
						}
					}
				}
				return nil
			}
		}
		badly := make(map[narinfo.Hash]bool) // items that had a bad source since the last restart
		rt.Repeat(map[string]func(*rapid.T){
			"": func(rt *rapid.T) {
				if err := w.Store.check(); err != nil {
					rt.Fatal(err)
				}
			},
			"join": func(rt *rapid.T) {
				if len(open) > 20 {
					rt.Skip()
				}
				i, bad := pool[anItem.Draw(rt, "item")], rapid.IntRange(0, 5).Draw(rt, "bad") == 0
				badly[i.key] = badly[i.key] || bad
				st, err := w.Join(context.Background(), i.key, source(i, bad, rapid.Bool().Draw(rt, "gated")))
				if err != nil && !errors.Is(err, syscall.ENOSPC) {
					rt.Fatal(err)
				}
				if err == nil {
					open = append(open, &reading{Stream: st, i: i})
				}
			},
			"read": func(rt *rapid.T) {
				if len(open) == 0 {
					rt.Skip()
				}
				r := open[rapid.IntRange(0, len(open)-1).Draw(rt, "stream")]
				// A stream whose own encode waits for an encoder that another
				// one holds, whom nobody reads, would wait for ever here.
				r.bad = badly[r.i.key]
				if r.fallback != nil || broken.Load() {
					rt.Skip()
				}
				n := rapid.IntRange(1, 300_000).Draw(rt, "bytes")
				done := make(chan error, 1)
				go func() { done <- r.read(n) }()
				select {
				case err := <-done:
					if err != nil {
						rt.Fatal(err)
					}
				case <-time.After(50 * time.Millisecond):
					r.Close()
					if err := <-done; err != nil {
						rt.Fatal(err)
					}
				}
			},
			"close": func(rt *rapid.T) {
				if len(open) == 0 {
					rt.Skip()
				}
				n := rapid.IntRange(0, len(open)-1).Draw(rt, "stream")
				open[n].Close()
				open = slices.Delete(open, n, n+1)
			},
			"step": func(rt *rapid.T) {
				select {
				case step <- struct{}{}:
				default:
				}
			},
			"open": func(rt *rapid.T) {
				i := pool[anItem.Draw(rt, "item")]
				f, digest, err := w.Open(i.key)
				if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOSPC) {
					return
				}
				if err != nil {
					rt.Fatal(err)
				}
				defer f.Close()
				got, err := io.ReadAll(f)
				if err != nil || !bytes.Equal(got, i.out) || digest != i.digest(t) {
					rt.Fatalf("%d bytes: %v", len(got), err)
				}
			},
			"wait a little": func(*rapid.T) { time.Sleep(time.Millisecond) },
			"break":         func(*rapid.T) { broken.Store(true) },
			"mend":          func(*rapid.T) { broken.Store(false) },
			"restart": func(rt *rapid.T) {
				if rapid.IntRange(0, 3).Draw(rt, "really") > 0 {
					rt.Skip()
				}
				broken.Store(false)
				w.restart()
				clear(badly)
				for _, r := range open {
					badly[r.i.key] = true
				}
			},
		})
		broken.Store(false)
		for _, r := range open {
			r.Close()
		}
		eventually(t, "all encodes end", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.working == 0 && w.queue.Len() == 0
		})
		if err := w.Store.check(); err != nil {
			rt.Fatal(err)
		}
		if n := len(w.files(newSuffix)); n != 0 {
			rt.Fatalf("%d files are left", n)
		}
	})
}

// TestManyAtOnce has clients of all kinds at the same time.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t, Options{Limit: 400_000, Encoders: 3})
	w.linger = time.Millisecond
	var pool []*item
	for n := range 12 {
		i := newItem(2000<<(n%7), uint64(n))
		i.packed(t)
		pool = append(pool, i)
	}
	var clients sync.WaitGroup
	for n := range 24 {
		r := rand.New(rand.NewPCG(uint64(n), 0))
		clients.Go(func() {
			for range 40 {
				i := pool[min(r.IntN(len(pool)), r.IntN(len(pool)))]
				switch r.IntN(8) {
				case 1:
					if f, _, err := w.Open(i.key); err == nil {
						got, err := io.ReadAll(f)
						if err != nil || !bytes.Equal(got, i.out) {
							t.Error(len(got), err)
						}
						f.Close()
					} else if !errors.Is(err, fs.ErrNotExist) {
						t.Error(err)
					}
				case 2:
					if err := w.Store.check(); err != nil {
						t.Error(err)
					}
				default:
					ctx, cancel := context.WithCancel(context.Background())
					st, err := w.Join(ctx, i.key, i.source)
					if err != nil {
						t.Error(err)
						cancel()
						continue
					}
					rd := &reading{Stream: st, i: i}
					patience := r.IntN(20)
					for ; !rd.over && patience != 1; patience-- {
						if err := rd.read(1 + r.IntN(50_000)); err != nil {
							t.Error(err)
						}
					}
					if r.IntN(2) == 0 {
						cancel()
					}
					st.Close()
					cancel()
				}
			}
		})
	}
	clients.Wait()
	eventually(t, "all encodes end", func() bool { return w.metric("live")+w.metric("queued") == 0 })
	if err := w.Store.check(); err != nil {
		t.Error(err)
	}
	w.restart()
	if err := w.Store.check(); err != nil {
		t.Error(err)
	}
}
