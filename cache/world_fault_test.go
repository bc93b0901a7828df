package cache

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"narwharf/cache/index"
	"narwharf/cache/upload/recovery"
	"narwharf/narinfo"
)

// faultyIndex fails where it is told to. applied says whether the change took
// place all the same, as in a commit that fails at its last sync.
type faultyIndex struct {
	index.Index
	fail func(locks []string) (err error, applied bool)
}

func (f *faultyIndex) Change(locks []string, fn func(tx *index.Tx) error) error {
	var fault error
	err := f.Index.Change(locks, func(tx *index.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		var applied bool
		if fault, applied = f.fail(locks); applied {
			return nil
		}
		return fault
	})
	return cmp.Or(err, fault)
}

// ofPath tells whether a change is one of a path's record.
func ofPath(locks []string) bool {
	return slices.ContainsFunc(locks, func(l string) bool { return strings.HasPrefix(l, index.PathLock("")) })
}

// step is one request of the script, or something the server does by itself.
type step struct {
	name string
	do   func(w *world) answer
	want []int
	// then must be true once do was answered with want[0], for ever.
	then func(w *world)
}

func put(path string, body []byte) func(*world) answer {
	return func(w *world) answer { return w.putAlone(path, body) }
}

// putInfo is put of a narinfo. Sent again, it is so by a client that runs again, who asks first whether
// the NAR is there: a NAR whose narinfo was not taken in may be forgotten.
func putInfo(p *testPath, text []byte) func(*world) answer {
	sent := make(map[*world]bool)
	return func(w *world) answer {
		if sent[w] && w.do(http.MethodHead, p.narURL(), nil, "Authorization", "Bearer "+w.token).status == http.StatusNotFound {
			w.must(w.put(p.narURL(), p.body), 201)
		}
		sent[w] = true
		return w.put(p.infoURL(), text)
	}
}

// script is a story in which everything that writes has its part.
func script(t testing.TB) []step {
	lib := newUpload(t, "lib", "zstd")
	app := newUpload(t, "app", "zstd", lib)
	alt := app.repacked(t, "gzip")
	orphan := newUpload(t, "orphan", "none")
	liar := newUpload(t, "liar", "none", orphan)
	dep := newUpload(t, "dep", "zstd")
	old := newUpload(t, "old", "none", dep)
	sigs := signatures(t, 2)
	signed := app.edited(func(i *narinfo.Info) { i.Sigs = sigs })
	doi := func(s ...string) []byte {
		return fmt.Appendf(nil, `{"id":%q,"outPath":%q,"signatures":["%s"]}`, someID, app.info.Path, strings.Join(s, `","`))
	}
	serves := func(p *testPath) func(*world) { return func(w *world) { w.mustServe(p) } }
	holds := func(path string, words ...string) func(*world) {
		return func(w *world) { w.must(w.get(path), 200, words...) }
	}
	listing := "/" + app.info.Path.Hash() + ".ls"
	return []step{
		{"cache info", put("/nix-cache-info", []byte("StoreDir: /nix/store\n")), []int{201}, holds("/nix-cache-info")},
		{"NAR of lib", put(lib.narURL(), lib.body), []int{201}, nil},
		{"lib", putInfo(lib, lib.text()), []int{201}, serves(lib)},
		{"NAR of app", put(app.narURL(), app.body), []int{201}, nil},
		{"app", putInfo(app, app.text()), []int{201}, serves(app)},
		{"NAR of lib again", put(lib.narURL(), lib.body), []int{201}, serves(lib)},
		{"app with signatures", putInfo(app, signed), []int{201}, holds(app.infoURL(), sigs...)},
		{"NAR of app in gzip", put(alt.narURL(), alt.body), []int{201}, nil},
		{"app in gzip", putInfo(alt, alt.text()), []int{201}, func(w *world) {
			w.must(w.get(app.infoURL()), 200, sigs...)
			w.must(w.get(alt.narURL()), 200, string(alt.body))
		}},
		{"listing", func(w *world) answer { return w.get(listing) }, []int{200}, holds(listing, "narOffset")},
		{"log", put(examples["log"], []byte("a log\n")), []int{201}, holds(examples["log"], "a log\n")},
		{"debuginfo", put(examples["debuginfo"], []byte(`{"archive":"../nar/`+app.file+`","member":"x"}`)), []int{201}, holds(examples["debuginfo"], app.file)},
		{"realisation", put(examples["realisation"], doi(sigs[0])), []int{201}, holds(examples["realisation"], sigs[0])},
		{"realisation again", put(examples["realisation"], doi(sigs[1])), []int{201}, holds(examples["realisation"], sigs...)},
		{"build trace", put(examples["build-trace"], doi(sigs[1])), []int{201}, holds(examples["build-trace"], string(app.info.Path))},
		{"lie", put(orphan.narURL(), app.body), []int{422}, nil},
		{"orphan", put(orphan.narURL(), orphan.body), []int{201}, nil},
		{"NAR of a liar", put(liar.narURL(), liar.body), []int{201}, nil},
		{"liar", putInfo(liar, liar.text()), []int{422}, nil},
		{"NAR of dep", put(dep.narURL(), dep.body), []int{201}, nil},
		{"dep", putInfo(dep, dep.text()), []int{201}, nil},
		{"NAR of old", put(old.narURL(), old.body), []int{201}, nil},
		{"old", putInfo(old, old.text()), []int{201}, nil},
		{"listing of old", func(w *world) answer { return w.get("/" + old.info.Path.Hash() + ".ls") }, []int{200}, nil},
		{"collect", func(w *world) answer {
			for _, p := range []*testPath{old, dep} {
				if _, err := w.index.Get(p.info.Path.Hash()); err == nil {
					w.unused(p)
				}
			}
			// What an error left the next one finishes.
			_, err := w.u.Collect(w.t.Context(), []string{old.info.Path.Hash(), dep.info.Path.Hash()}, nil)
			if err == nil {
				_, _, err = w.u.Sweep(time.Now().Add(30 * time.Hour))
			}
			if err != nil {
				return answer{status: 500}
			}
			return answer{status: 200}
		}, []int{200, 500}, func(w *world) { w.mustLack(old, dep) }},
		{"sweep", func(w *world) answer {
			// Only what nobody refers to goes; later steps do not miss it.
			w.u.Rest()
			_, _, err := w.u.Sweep(time.Now().Add(30 * time.Hour))
			if err != nil {
				return answer{status: 500}
			}
			return answer{status: 200}
		}, []int{200, 500}, func(w *world) { w.mustLack(orphan, liar) }},
	}
}

// play runs the script to its end. At the step where the fault struck the
// answer may be a refusal, if it is one that every Nix takes as the last word;
// then the fault is over and the same request must pass. A fault of a NAR is told to its
// narinfo, which comes next.
func play(t *testing.T, w *world, steps []step, struck func() bool) {
	t.Helper()
	done, late := false, false
	for _, s := range steps {
		a := s.do(w)
		switch {
		case a.status == s.want[0]:
		case struck() && (!done || late) && (slices.Contains(final, a.status) || slices.Contains(s.want, a.status)):
			done = true
			w.breakAt(nil)
			w.check()
			w.must(s.do(w), s.want[0])
		default:
			t.Fatalf("%s: %v", s.name, a)
		}
		if s.then != nil {
			s.then(w)
		}
		if w.u.Rest(); struck() && !done { // it hit something that could be done without, or a NAR
			done, late = true, strings.HasPrefix(s.name, "NAR of ")
			w.breakAt(nil)
			continue
		}
		late = false
	}
	for _, s := range steps {
		if s.then != nil {
			s.then(w)
		}
	}
	w.check()
}

// Every write of the script fails once, each in its own run: no half of
// anything is ever seen, and nothing is left behind.
func TestFaultAtEveryWrite(t *testing.T) {
	steps := script(t)
	var ops []string
	counting := newWorld(t)
	counting.breakAt(func(op, name string) error {
		ops = append(ops, op+" "+name)
		return nil
	})
	play(t, counting, steps, func() bool { return false })
	counting.stop()
	t.Logf("%d writes", len(ops))
	if len(ops) < 80 {
		t.Errorf("the script has only %d writes", len(ops))
	}
	for i, op := range ops {
		for _, cause := range []error{syscall.ENOSPC, syscall.EIO}[i%2:][:1] {
			t.Run(fmt.Sprintf("%d %s", i, strings.ReplaceAll(filepath.Base(op), "/", "_")), func(t *testing.T) {
				w := newWorld(t)
				left := i
				var hit bool
				w.breakAt(func(op, _ string) error {
					if left--; left != -1 {
						return nil
					}
					hit = true
					return fmt.Errorf("injected at %s: %w", op, cause)
				})
				play(t, w, steps, func() bool { return hit })
				if !hit {
					t.Error("the fault was never met")
				}
				w.restart()
				for _, s := range steps {
					if s.then != nil {
						s.then(w)
					}
				}
				w.check()
				w.stop()
			})
		}
	}
}

// The disk is full, or dying, from one moment on: everything that writes is
// refused in words, and everything that reads goes on.
func TestFaultThatStays(t *testing.T) {
	steps := script(t)
	for n := 0; n < 100; n += 9 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := newWorld(t)
			left := n
			w.breakAt(func(string, string) error {
				if left--; left < 0 {
					return syscall.ENOSPC
				}
				return nil
			})
			var passed []step
			for _, s := range steps {
				a := s.do(w)
				if a.status == s.want[0] && s.then != nil {
					passed = append(passed, s)
				}
				if a.status >= 400 && !slices.Contains(final, a.status) && !slices.Contains(s.want, a.status) {
					t.Errorf("%s: %v", s.name, a)
				}
				for _, s := range passed {
					s.then(w)
				}
			}
			w.check()
			w.restart()
			for _, s := range passed {
				s.then(w)
			}
			w.check()
		})
	}
}

// The index fails, before or after it took the change.
func TestFaultOfTheIndex(t *testing.T) {
	steps := script(t)
	for _, applied := range []bool{false, true} {
		for _, again := range []bool{false, true} { // what is to undo it fails too
			for n := range 5 {
				t.Run(fmt.Sprintf("%d applied=%t again=%t", n, applied, again), func(t *testing.T) {
					left, hit := n, false
					idx := &faultyIndex{fail: func(locks []string) (error, bool) {
						if !ofPath(locks) {
							return nil, false
						}
						if left--; left == -1 || again && hit && left == -2 {
							hit = true
							return syscall.EIO, applied
						}
						return nil, false
					}}
					w := newWorld(t, func(s *setup) {
						s.wrap = func(i index.Index) index.Index {
							if idx.Index = i; hit {
								return i
							}
							return idx
						}
					})
					for _, s := range steps {
						before := hit
						a := s.do(w)
						if hit && !before {
							w.must(a, 501)
							if !w.u.NeedsRecovery() {
								t.Error("nobody will recover at the next start")
							}
							if !again {
								w.check()
							}
							w.restart()
							w.check()
							a = s.do(w)
						}
						w.must(a, s.want[0])
						if s.then != nil {
							s.then(w)
						}
					}
					w.check()
				})
			}
		}
	}
}

// ---- kill -9

// copyDir copies what a kill would leave: files as they are now, open or not.
func copyDir(t *testing.T, from string) (to string) {
	t.Helper()
	to, err := os.MkdirTemp("/dev/shm", "narwharf-test-")
	if err != nil {
		to = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(to) })
	err = filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		in, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a NAR got its name meanwhile, which nobody counts on yet
		}
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.Create(target)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// The process is killed before each step on the disk and around each change of
// the index. What was answered by then is there after the next start, what was
// not is whole or absent, and nothing needs a person.
func TestKillAtEveryWrite(t *testing.T) {
	steps := script(t)
	type snapshot struct {
		dir, at string
		passed  int // steps that were answered
	}
	var mu sync.Mutex
	var snapshots []snapshot
	var passed atomic.Int64
	var w *world
	recording := false
	snap := func(at string) {
		if !recording {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		snapshots = append(snapshots, snapshot{copyDir(t, w.dir), at, int(passed.Load())})
	}
	idx := &faultyIndex{}
	w = newWorld(t, func(s *setup) {
		s.wrap = func(i index.Index) index.Index {
			idx.Index = &after{i, func() { snap("after the index") }}
			return idx
		}
	})
	idx.fail = func(locks []string) (error, bool) { snap("before the index: " + locks[0][:4]); return nil, false }
	w.breakAt(func(op, name string) error { snap(op + " " + name); return nil })
	recording = true
	for _, s := range steps {
		w.must(s.do(w), s.want[0])
		passed.Add(1)
	}
	w.u.Rest()
	recording = false
	w.stop()
	t.Logf("%d moments", len(snapshots))
	for i, s := range snapshots {
		t.Run(fmt.Sprintf("%d %s", i, strings.ReplaceAll(filepath.Base(s.at), "/", "_")), func(t *testing.T) {
			w := openWorld(t, s.dir)
			w.check()
			swept := s.passed >= len(steps)-1 // from here on the sweep may be half done
			for _, step := range steps[:s.passed] {
				if step.then != nil {
					step.then(w)
				}
			}
			// And the client that was cut off simply begins again.
			for _, step := range steps {
				if a := step.do(w); a.status != step.want[0] {
					t.Errorf("%s, again: %v (swept: %t)", step.name, a, swept)
				}
			}
			w.check()
			w.stop()
		})
	}
}

// after calls back after each change.
type after struct {
	index.Index
	then func()
}

func (a *after) Change(locks []string, fn func(tx *index.Tx) error) error {
	defer a.then()
	return a.Index.Change(locks, fn)
}

// ---- many at once

// Uploaders of overlapping closures in all encodings, liars, readers, a sweeper
// and a checker, all at the same time.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	var layers [][]*testPath // each refers to all of the one before
	for l := range 3 {
		var layer []*testPath
		for i := range 4 {
			var refs []*testPath
			if l > 0 {
				refs = layers[l-1]
			}
			layer = append(layer, newUpload(t, fmt.Sprintf("p%d-%d", l, i), "none", refs...))
		}
		layers = append(layers, layer)
	}
	var uploaders, others sync.WaitGroup
	stop := make(chan struct{})
	for u, compression := range []string{"none", "zstd", "gzip", "br"} {
		uploaders.Go(func() {
			sigs := signatures(t, 4)
			for _, layer := range layers {
				for i := range layer {
					p := layer[(i+u)%len(layer)].repacked(t, compression)
					if w.head(p.narURL(), "Authorization", "Bearer "+w.token).status != 200 {
						w.must(w.putAlone(p.narURL(), p.body), 201)
					}
					w.must(w.put(p.infoURL(), p.edited(func(i *narinfo.Info) { i.Sigs = sigs[u : u+1] })), 201)
					w.mustServe(p)
					w.must(w.get("/"+p.info.Path.Hash()+".ls"), 200)
				}
			}
		})
	}
	background := func(do func(i int)) {
		others.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					do(i)
				}
			}
		})
	}
	background(func(i int) {
		liar := newUpload(t, fmt.Sprint("liar", i%8), "none", newUpload(t, "nowhere", "none"))
		w.must(w.put(liar.narURL(), liar.body), 201)
		w.must(w.put(liar.infoURL(), liar.text()), 422)
		c := w.dial(t)
		c.say("%s%s", w.putHead(liar.narURL(), fmt.Sprint("Content-Length: ", len(liar.body)+1)), liar.body)
		_ = c.Close()
	})
	background(func(int) {
		if _, _, err := w.u.Sweep(time.Now()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Millisecond)
	})
	background(func(int) {
		if lines, r := w.fsck(true); r.Damage+r.Repaired > 0 {
			t.Error(lines)
		}
	})
	background(func(i int) {
		if i%5 == 0 {
			if _, err := recovery.Rebuild(t.Context(), w.u, func(string, ...any) {}); err != nil {
				t.Error(err)
			}
		}
		if err := w.setup.Cache.Signer.Reload(); err != nil {
			t.Error(err)
		}
		w.must(w.do(http.MethodGet, "/metrics", nil), 200)
		time.Sleep(5 * time.Millisecond)
	})
	uploaders.Wait()
	close(stop)
	others.Wait()
	w.waitIdle()
	for _, layer := range layers {
		w.mustServe(layer...)
		for _, p := range layer {
			r, err := w.index.Get(p.info.Path.Hash())
			if err != nil || len(r.Info.Sigs) != 4 || len(r.Files()) != 4 {
				t.Errorf("%s has %d signatures and %d files, %v; four uploaders brought one each", p.info.Path, len(r.Info.Sigs), len(r.Files()), err)
			}
		}
	}
	w.check()
	w.restart()
	w.check()
}
