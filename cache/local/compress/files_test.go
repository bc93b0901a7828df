package compress

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/state/durable"
	"narwharf/narinfo"
)

// items are n of about the same packed size, which is returned.
func items(t *testing.T, n int) (all []*item, size int64) {
	for seed := range n {
		i := newItem(20_000, uint64(seed)+100)
		all = append(all, i)
		size = max(size, i.digest(t).Size)
	}
	return all, size
}

func (w *world) kept() (held int) {
	w.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.Store.stored)
}

// holds compares what is kept with what should be, without using it.
func (w *world) holds(want ...*item) {
	w.Helper()
	w.mu.Lock()
	have := make(map[narinfo.Hash]bool)
	for key := range w.Store.stored {
		have[key] = true
	}
	w.mu.Unlock()
	if len(have) != len(want) || len(w.files(suffix)) != len(want) {
		w.Errorf("%d kept, %d files, want %d", len(have), len(w.files(suffix)), len(want))
	}
	size := int64(0)
	for n, i := range want {
		if !have[i.key] {
			w.Errorf("number %d is missing", n)
		}
		size += i.digest(w).Size
	}
	if files, bytes := w.Kept(); files != int64(len(want)) || bytes != size {
		w.Errorf("%d files of %d bytes are kept, want %d of %d", files, bytes, len(want), size)
	}
}

func TestTheLeastRecentlyUsedGoes(t *testing.T) {
	all, size := items(t, 5)
	w := newWorld(t, Options{Limit: 3*size + size/2})
	for _, i := range all[:3] {
		w.fetch(i)
	}
	if !w.has(all[0]) {
		t.Fatal("not kept")
	}
	w.fetch(all[3])
	w.holds(all[0], all[2], all[3])
	w.fetch(all[2]) // Join is a use, too
	w.fetch(all[4])
	w.holds(all[2], all[3], all[4])
	if n := w.metric("evicted_total"); n != 2 {
		t.Errorf("%d evicted", n)
	}
	for _, i := range all {
		if f, known := w.Digest(i.key); !known || f != i.digest(t) {
			t.Error("its digest are forgotten")
		}
	}
	if _, _, err := w.Open(all[0].key); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), all[0].key.Base32()) {
		t.Error(err)
	}
	w.fetch(all[0])
	if all[0].runs.Load() != 2 {
		t.Error("it came from nowhere")
	}
}

func TestMakeRoom(t *testing.T) {
	all, _ := items(t, 4)
	w := newWorld(t, Options{})
	for _, i := range all {
		w.fetch(i)
	}
	if n := w.MakeRoom(0); n != 0 {
		t.Errorf("%d bytes for nothing", n)
	}
	size := func(n int) int64 { return all[n].digest(t).Size }
	if n := w.MakeRoom(size(0) + 1); n != size(0)+size(1) {
		t.Errorf("%d bytes", n)
	}
	w.holds(all[2], all[3])
	if n := w.MakeRoom(1 << 40); n != size(2)+size(3) || w.metric("bytes") != 0 || w.metric("evicted_total") != 4 {
		t.Errorf("%d bytes", n)
	}
	w.holds()
}

func TestEvictedWhileItIsRead(t *testing.T) {
	all, size := items(t, 2)
	w := newWorld(t, Options{Limit: size + size/2})
	w.fetch(all[0])
	f, _, err := w.Open(all[0].key)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st := w.join(all[0], all[0].source)
	w.fetch(all[1])
	w.holds(all[1])
	for _, r := range []io.Reader{f, st} {
		got, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		w.same(got, all[0])
	}
	again, _, err := st.File(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	got, err := io.ReadAll(again)
	if err != nil {
		t.Fatal(err)
	}
	w.same(got, all[0])
}

func TestLargerThanTheLimit(t *testing.T) {
	all, _ := items(t, 1)
	large := newItem(1<<20, 1)
	w := newWorld(t, Options{Limit: large.digest(t).Size / 2})
	w.fetch(all[0])
	for range 2 { // the second time its size is known, and nothing makes room for it
		st := w.join(large, large.source)
		got, err := io.ReadAll(st)
		if err != nil {
			t.Fatal(err)
		}
		w.same(got, large)
		f, _, err := st.File(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got, err = io.ReadAll(f); err != nil {
			t.Fatal(err)
		}
		w.same(got, large)
		f.Close()
		if len(w.files(newSuffix)) != 0 || w.has(large) {
			t.Error("it is kept")
		}
		w.fetch(all[0])
	}
	if n := all[0].runs.Load(); n > 2 {
		t.Errorf("the small one was encoded %d times", n)
	}
	if f, known := w.Digest(large.key); !known || f != large.digest(t) {
		t.Error("its digest are not known")
	}
	w.holds(all[0])
}

func TestRestartKeepsTheOrder(t *testing.T) {
	all, size := items(t, 6)
	w := newWorld(t, Options{Limit: 6 * size})
	for _, i := range all {
		w.fetch(i)
	}
	for _, n := range []int{3, 0, 5, 1} {
		w.has(all[n])
	}
	w.restart()
	w.holds(all...)
	if !w.trusted() {
		t.Error("a clean stop is not believed")
	}
	for n, i := range all {
		if f, known := w.Digest(i.key); !known || f != i.digest(t) {
			t.Errorf("the digest of number %d are forgotten", n)
		}
	}
	w.o.Limit = 3 * size
	w.restart() // nothing was used meanwhile
	w.holds(all[0], all[5], all[1])
	if !w.has(all[0]) || !w.has(all[5]) || !w.has(all[1]) {
		t.Error("not readable")
	}
	if _, known := w.Digest(all[4].key); !known {
		t.Error("the digest of what was evicted are forgotten")
	}
}

// trusted says whether no file is in doubt.
func (w *world) trusted() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.doubts() == 0
}

// crash is a copy of the folder as it is now, as after kill -9.
func (w *world) crash(to string) {
	w.Helper()
	if err := os.CopyFS(to, os.DirFS(w.o.Dir)); err != nil {
		w.Fatal(err)
	}
	for _, name := range w.files("") {
		st, err := os.Stat(filepath.Join(w.o.Dir, name))
		if err != nil {
			w.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(to, name), time.Time{}, st.ModTime()); err != nil {
			w.Fatal(err)
		}
	}
}

func TestKilled(t *testing.T) {
	w := newWorld(t, Options{})
	whole, half := newItem(100_000, 1), newItem(2<<20, 2)
	w.fetch(whole)
	g := newGate()
	st := w.join(half, half.gated(g))
	g.steps <- 1 << 20
	if _, err := io.ReadFull(st, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	w.crash(dir)
	close(g.steps)

	after := newWorld(t, Options{Dir: dir})
	after.holds(whole)
	if len(after.files(newSuffix)) != 0 {
		t.Error("half an encode is left")
	}
	if !after.trusted() {
		t.Error("the kernel has what a killed process wrote")
	}
	if !after.has(whole) {
		t.Error("lost")
	}
	after.fetch(half)
}

// What a file system may make of files that were never synced when the power
// went: each is served whole or not at all.
func TestPowerCut(t *testing.T) {
	all, _ := items(t, 7)
	w := newWorld(t, Options{})
	for _, i := range all {
		w.fetch(i)
	}
	dir := t.TempDir()
	w.crash(dir)
	lose := func(n int, change func(name string, b []byte) []byte) {
		name := filepath.Join(dir, fileName(all[n].key))
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, change(name, b), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lose(0, func(_ string, b []byte) []byte { return b[:len(b)-1] })
	lose(1, func(string, []byte) []byte { return nil })
	lose(2, func(_ string, b []byte) []byte { clear(b[2048:4096]); return b })
	lose(3, func(_ string, b []byte) []byte { clear(b); return b })
	lose(4, func(_ string, b []byte) []byte { b[len(b)-1] ^= 1; return b })
	if err := os.WriteFile(filepath.Join(dir, "state"), []byte("running another-boot\n"), 0o644); err != nil {
		t.Fatal(err)
	}

	after := newWorld(t, Options{Dir: dir})
	if after.kept() != 5 || after.trusted() { // two have another size
		t.Errorf("%d kept, trusted: %v", after.kept(), after.trusted())
	}
	var wg sync.WaitGroup
	for n := range 5 {
		for range 4 {
			wg.Go(func() {
				if _, _, err := after.Open(all[n].key); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("number %d: %v", n, err)
				}
			})
		}
	}
	for range 4 {
		wg.Go(func() {
			f, digest, err := after.Open(all[5].key)
			if err != nil || digest != all[5].digest(t) {
				t.Errorf("the whole one: %v", err)
				return
			}
			f.Close()
		})
	}
	wg.Wait()
	if n := after.metric("dropped_total"); n != 3 {
		t.Errorf("%d dropped", n)
	}
	after.holds(all[5], all[6])
	after.restart() // number 6 was not looked at yet
	if after.trusted() {
		t.Error("the doubt is forgotten")
	}
	after.fetch(all[5]) // through Join
	if !after.has(all[6]) || !after.trusted() {
		t.Error("the doubt has not ended")
	}
	after.restart()
	after.holds(all[5], all[6])
	if !after.trusted() {
		t.Error("the doubt came back")
	}
	for n := range 5 {
		after.fetch(all[n])
	}
}

func TestStateIsBelieved(t *testing.T) {
	for state, want := range map[string]bool{
		"clean\n": true, "running " + durable.Boot() + "\n": true,
		"running other\n": false, "running \n": false, "running": false, "dirty\n": false, "": false, "\x00\x00\x00\x00\x00\x00": false, "cleanly\n": false,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "state"), []byte(state), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := readState(dir); err != nil || got != want {
			t.Errorf("%q: %v %v", state, got, err)
		}
	}
	if got, err := readState(t.TempDir()); err != nil || got {
		t.Error("none:", got, err)
	}
	if durable.Boot() == "" {
		t.Error("no boot id: after a kill all files are hashed again")
	}
}

// Somebody's hands in the folder while we run.
func TestFilesThatChangeUnderUs(t *testing.T) {
	all, _ := items(t, 4)
	w := newWorld(t, Options{})
	for _, i := range all {
		w.fetch(i)
	}
	name := func(n int) string { return filepath.Join(w.o.Dir, fileName(all[n].key)) }
	if err := errors.Join(os.Remove(name(0)), os.Truncate(name(1), 100)); err != nil {
		t.Fatal(err)
	}
	w.Drop(all[2].key, io.ErrUnexpectedEOF)
	for n := range 3 {
		if w.has(all[n]) {
			t.Errorf("number %d is served", n)
		}
		w.fetch(all[n])
		if all[n].runs.Load() != 2 || !w.has(all[n]) {
			t.Errorf("number %d was not made again", n)
		}
	}
	if n := w.metric("dropped_total"); n != 2 {
		t.Errorf("%d dropped", n)
	}
	w.Drop(newItem(1, 1).key, io.EOF)
	w.holds(all...)
}

func TestWhatLiesInTheFolder(t *testing.T) {
	all, _ := items(t, 3)
	w := newWorld(t, Options{})
	for _, i := range all {
		w.fetch(i)
	}
	w.close()
	key := all[0].key
	text, err := os.ReadFile(filepath.Join(w.o.Dir, "facts"))
	if err != nil {
		t.Fatal(err)
	}
	var line []byte
	for l := range bytes.Lines(text) {
		if bytes.Contains(l, []byte(narinfo.Hash(key).Base32())) {
			line = l
		}
	}
	if line == nil {
		t.Fatal("no line of facts")
	}
	strange := filepath.Join(w.o.Dir, "notes.txt")
	for name, b := range map[string][]byte{
		"facts":     bytes.Replace(text, line, nil, 1),
		"notes.txt": []byte("mine"), "12.new": []byte("half"),
	} {
		if err := os.WriteFile(filepath.Join(w.o.Dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(w.o.Dir, fileName(newItem(1, 1).key)), 0o755); err != nil {
		t.Fatal(err)
	}
	w.open()
	if w.kept() != 2 || w.has(all[0]) || len(w.files(newSuffix)) != 0 {
		t.Errorf("%d kept", w.kept())
	}
	if b, err := os.ReadFile(strange); err != nil || string(b) != "mine" {
		t.Error("another's file is gone", err)
	}
}

func TestOpenFails(t *testing.T) {
	w := newWorld(t, Options{})
	if _, err := Open(w.o); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Error(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Options{
		"a file":           {Dir: file},
		"below a file":     {Dir: filepath.Join(file, "x")},
		"negative limit":   {Dir: t.TempDir(), Limit: -1},
		"negative workers": {Dir: t.TempDir(), Encoders: -1},
	} {
		if s, err := Open(o); err == nil {
			t.Errorf("%s: opened", name)
			s.Close()
		} else if !strings.HasPrefix(err.Error(), "packed nars") {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the lock of the first is gone
		if _, err := Open(Options{Dir: dir}); err == nil || strings.Contains(err.Error(), "another process") {
			t.Error(err)
		}
	}
}

// A store of the zero limit keeps nothing and serves everything.
func TestNoLimitToKeep(t *testing.T) {
	s, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	i := newItem(100_000, 1)
	st, err := s.Join(t.Context(), i.key, i.source)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	got, err := io.ReadAll(st)
	if err != nil || !bytes.Equal(got, i.packed(t)) {
		t.Error(err)
	}
	if _, _, err := s.Open(i.key); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestStampsAreWritten(t *testing.T) {
	w := newWorld(t, Options{})
	i := newItem(1000, 1)
	w.fetch(i)
	w.mu.Lock()
	k := w.Store.stored[i.key]
	k.stamped = k.used.Add(-2 * stampEvery)
	w.mu.Unlock()
	name := filepath.Join(w.o.Dir, fileName(k.key))
	if err := os.Chtimes(name, time.Time{}, time.Unix(1000, 0)); err != nil {
		t.Fatal(err)
	}
	w.has(i)
	if st, err := os.Stat(name); err != nil || st.ModTime().Unix() == 1000 {
		t.Error("the use is not written down", err)
	}
}
