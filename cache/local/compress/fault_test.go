package compress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"narwharf/cache/local/encoder"
)

// faults fails the n-th and all later steps of one kind.
type faults struct {
	op    string
	from  int64
	count int64 // how many fail; 0 is all
	seen  atomic.Int64
	err   error
}

func (f *faults) step(op string) error {
	if op != f.op {
		return nil
	}
	if n := f.seen.Add(1); n <= f.from || f.count > 0 && n > f.from+f.count {
		return nil
	}
	return f.err
}

// Whatever fails on our disk, at whatever time, all readers get the whole NAR.
func TestABrokenDiskCostsNoDownload(t *testing.T) {
	i := newItem(300<<10, 1)
	for _, op := range []string{"create", "write", "facts", "rename", "open", "read", "room"} {
		for from := range int64(3) {
			for _, err := range []error{syscall.ENOSPC, syscall.EIO} {
				t.Run(fmt.Sprintf("%s %d %v", op, from, err), func(t *testing.T) {
					w := newWorld(t, Options{})
					f := &faults{op: op, from: from, err: err}
					w.fault = f.step
					i.runs.Store(0)
					g := newGate()
					var all sync.WaitGroup
					for n := range 5 {
						st := w.join(i, i.gated(g))
						all.Go(func() {
							got, err := io.ReadAll(st)
							if err != nil {
								t.Error(n, err)
							}
							w.same(got, i)
						})
					}
					<-g.started
					close(g.steps)
					all.Wait()
					if f, known := w.Digest(i.key); !known || f != i.digest(t) {
						t.Error("its digest are not known")
					}
					// The disk is well again.
					f.from = 1 << 40
					w.fetch(i)
					w.fetch(i)
					eventually(t, "nothing is left", func() bool {
						return w.metric("live")+w.metric("queued") == 0 && len(w.files(newSuffix)) == 0
					})
					if !w.has(i) {
						t.Error("not kept")
					}
					w.restart()
					if !w.has(i) && op != "facts" {
						t.Error("lost")
					}
				})
			}
		}
	}
}

// With no room, others that are kept go before a download has to do without.
func TestAFullDiskEvictsFirst(t *testing.T) {
	all, _ := items(t, 4)
	large := newItem(600<<10, 1)
	for _, op := range []string{"write", "create"} {
		w := newWorld(t, Options{})
		f := &faults{op: op, from: 1 << 40, err: syscall.ENOSPC}
		w.fault = f.step
		for _, i := range all {
			w.fetch(i)
		}
		f.from, f.count = f.seen.Load(), 2
		w.fetch(large)
		w.holds(all[2], all[3], large)
		if large.runs.Swap(0) != 1 || w.metric("evicted_total") != 2 || w.metric("alone_total") != 0 {
			t.Errorf("%s: %d evicted, %d alone", op, w.metric("evicted_total"), w.metric("alone_total"))
		}
		w.close()
	}
}

// Readers that cannot be served together queue for encoders like all others,
// and their bytes are followed to the hash, too.
func TestAlone(t *testing.T) {
	w := newWorld(t, Options{Encoders: 2})
	f := &faults{op: "create", err: syscall.EROFS}
	w.fault = f.step
	good, bad := newItem(300<<10, 1), newItem(300<<10, 2)
	bad.bytes[len(bad.bytes)-1] ^= 1
	var working, most atomic.Int64
	var all sync.WaitGroup
	for n := range 20 {
		i := good
		if n%4 == 3 {
			i = bad
		}
		st := w.join(i, func(ctx context.Context, out io.Writer) error {
			most.Store(max(most.Load(), working.Add(1)))
			defer working.Add(-1)
			return i.source(ctx, out)
		})
		all.Go(func() {
			if n%5 == 4 {
				if _, err := st.Read(make([]byte, 1)); err != nil {
					t.Error(err)
				}
				st.Close()
				return
			}
			got, err := io.ReadAll(st)
			if i == bad {
				if !errors.Is(err, encoder.ErrWrongNAR) {
					t.Error(err)
				}
				return
			}
			if err != nil {
				t.Error(err)
			}
			w.same(got, i)
			if _, _, err := st.File(t.Context()); !errors.Is(err, ErrNotStored) || !errors.Is(err, syscall.EROFS) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if most.Load() > 2 {
		t.Errorf("%d encodes at once", most.Load())
	}
	eventually(t, "all end", func() bool { return w.metric("live")+w.metric("queued") == 0 })
	if w.metric("alone_total") != 20 || w.metric("bytes") != 0 {
		t.Errorf("%d alone", w.metric("alone_total"))
	}
	if w.result(resultHash) == 0 || w.result(resultStore) == 0 || w.result(resultCancelled) == 0 {
		t.Error("not counted")
	}
	// Leaving while it waits, and closing while some wait and some are at work.
	g := newGate()
	var streams []*Stream
	for range 6 {
		st := w.join(good, good.gated(g))
		streams = append(streams, st)
		all.Go(func() { _, _ = st.Read(make([]byte, 1)) })
	}
	eventually(t, "they are at work and wait", func() bool { return w.metric("live") == 2 && w.metric("queued") >= 3 })
	streams[0].Close()
	streams[1].Close()
	streams[2].Close()
	w.close()
	all.Wait()
}

// A reader who does not read holds his own encode up, and not the end of the
// store.
func TestClosingWithAStalledReader(t *testing.T) {
	w := newWorld(t, Options{Encoders: 2})
	w.fault = (&faults{op: "create", err: syscall.EROFS}).step
	i := newItem(600<<10, 1)
	stalled, queued, gone := w.join(i, i.source), w.join(i, i.source), w.join(i, i.source)
	other := w.join(i, i.source)
	for _, st := range []*Stream{stalled, other} {
		if _, err := st.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	read := make(chan error)
	for _, st := range []*Stream{queued, gone} {
		go func() {
			_, err := st.Read(make([]byte, 1))
			read <- err
		}()
	}
	eventually(t, "two wait", func() bool { return w.metric("queued") == 2 })
	gone.Close()
	if err := <-read; !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
	w.close()
	if err := <-read; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := io.ReadAll(stalled); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// On a real file system that is full, in a mount namespace of its own.
func TestARealFullDisk(t *testing.T) {
	if dir := os.Getenv("PACK_TEST_MOUNT"); dir != "" {
		testOnTinyDisk(t, dir)
		return
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestARealFullDisk$", "-test.v")
	cmd.Env = append(os.Environ(), "PACK_TEST_MOUNT="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || strings.Contains(string(out), "mount a tmpfs:") {
		if os.Getenv("NARWHARF_CI") == "1" {
			t.Fatalf("no mount namespaces, and NARWHARF_CI=1 wants every test run: %v\n%s", err, out)
		}
		t.Skipf("needs a user and mount namespace: %v", err)
	}
	if err != nil || !bytes.Contains(out, []byte("PASS: TestARealFullDisk")) {
		t.Fatalf("%v\n%s", err, out)
	}
}

func testOnTinyDisk(t *testing.T, dir string) {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=600k"); err != nil {
		t.Fatal("mount a tmpfs:", err)
	}
	all, _ := items(t, 6) // 7 kB each
	large, huge := newItem(900<<10, 1), newItem(2<<20, 2)
	if n := large.digest(t).Size; n > 450<<10 || n < 350<<10 {
		t.Fatalf("%d bytes do not fit the test", n)
	}
	if n := huge.digest(t).Size; n < 600<<10 {
		t.Fatalf("%d bytes do not fit the test", n)
	}
	for _, reserve := range []int64{0, 30 << 10} {
		w := newWorld(t, Options{Dir: dir, Limit: 1 << 30, Encoders: 2})
		w.reserve = reserve
		for _, i := range all {
			w.fetch(i)
		}
		second := newItem(900<<10, 1000)
		w.fetch(large)
		w.fetch(second) // the first must go for it
		if !w.has(second) || w.has(large) {
			t.Error("the wrong ones are kept")
		}
		var readers sync.WaitGroup
		for range 4 {
			st := w.join(huge, huge.source)
			readers.Go(func() {
				got, err := io.ReadAll(st)
				if err != nil {
					t.Error(err)
				}
				w.same(got, huge)
				st.Close()
			})
		}
		readers.Wait()
		if w.has(huge) || w.metric("alone_total") == 0 {
			t.Error("it cannot have been stored")
		}
		for _, i := range all {
			w.fetch(i)
			if !w.has(i) {
				t.Error("not kept")
			}
		}
		w.close()
		w.open()
		w.holds(all...)
		w.close()
	}
}
