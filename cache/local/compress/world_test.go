package compress

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/local/encoder"
	"narwharf/narinfo"
)

// world is a store and what a test knows of it.
type world struct {
	*testing.T
	*Store
	o        Options
	hook     func(op string) error // becomes Store.fault
	quiet    bool
	registry *prometheus.Registry
}

func newWorld(t *testing.T, o Options) *world {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Limit == 0 {
		o.Limit = 1 << 30
	}
	if o.Encoders == 0 {
		o.Encoders = 2
	}
	w := &world{T: t, o: o}
	w.open()
	t.Cleanup(w.close)
	return w
}

func (w *world) open() {
	w.Helper()
	w.registry = prometheus.NewPedanticRegistry()
	w.o.Metrics = w.registry
	if w.o.Log = nil; !w.quiet {
		w.o.Log = slog.New(slog.NewTextHandler(testLog{w.T}, nil))
	}
	s, err := Open(w.o)
	if err != nil {
		w.Fatal(err)
	}
	s.fault = w.hook
	s.reserve = 0 // what the machine of the test has free is not its subject
	w.Store = s
}

func (w *world) close() {
	w.Helper()
	if err := w.Close(); err != nil {
		w.Error(err)
	}
}

// restart is a clean stop and a start.
func (w *world) restart() {
	w.Helper()
	w.close()
	w.open()
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// item is a NAR, or what passes for one here: the package does not look inside.
type item struct {
	key   narinfo.Hash
	bytes []byte
	runs  atomic.Int64 // how often the source was called
	once  sync.Once
	out   []byte
}

const suffix = encoder.Suffix

// fileName is the name of a packed NAR in the folder.
func fileName(key narinfo.Hash) string { return key.Base32() + suffix }

// newItem is size bytes that compress by about a half, different for each seed.
func newItem(size int, seed uint64) *item {
	b := pseudo(size, seed)
	return &item{key: sha256.Sum256(b), bytes: b}
}

// pseudo is the same bytes in every version of Go: of the random package it
// takes only the generator, whose numbers are documented.
func pseudo(size int, seed uint64) []byte {
	r := rand.NewPCG(seed, 1)
	b := make([]byte, 0, size+64)
	for len(b) < size {
		x := r.Uint64()
		run := int(x>>60) + 1
		if x%4 > 0 && len(b) > 64 {
			from := int((x >> 8) % uint64(len(b)-32))
			b = append(b, b[from:from+8+run]...)
		} else {
			for y := r.Uint64(); run > 0; run-- {
				b = append(b, byte(y>>(run*3)))
			}
		}
	}
	return b[:size]
}

// source writes the item at once.
func (i *item) source(_ context.Context, w io.Writer) error {
	i.runs.Add(1)
	_, err := w.Write(i.bytes)
	return err
}

// gate lets a source go step by step.
type gate struct {
	steps   chan int // bytes to write now; closed: the rest
	started chan struct{}
	once    sync.Once
	end     error
}

func newGate() *gate { return &gate{steps: make(chan int), started: make(chan struct{})} }

// gated is a source of the item that does what the gate says.
func (i *item) gated(g *gate) encoder.Source {
	return func(ctx context.Context, w io.Writer) error {
		i.runs.Add(1)
		g.once.Do(func() { close(g.started) })
		rest := i.bytes
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case n, more := <-g.steps:
				if !more {
					n = len(rest)
				}
				n = min(n, len(rest))
				if _, err := w.Write(rest[:n]); err != nil {
					return err
				}
				rest = rest[n:]
				if !more {
					return g.end
				}
			}
		}
	}
}

// packed is what the one encoder makes of the item; it decodes to the item.
func (i *item) packed(t testing.TB) []byte {
	t.Helper()
	i.once.Do(func() {
		var out bytes.Buffer
		if _, err := encoder.Encode(context.Background(), i.key, func(_ context.Context, w io.Writer) error {
			_, err := w.Write(i.bytes)
			return err
		}, &out); err != nil {
			t.Fatal(err)
		}
		i.out = out.Bytes()
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if nar, err := d.DecodeAll(i.out, nil); err != nil || !bytes.Equal(nar, i.bytes) {
			t.Fatalf("does not decode to the nar: %v", err)
		}
	})
	return i.out
}

func (i *item) digest(t testing.TB) encoder.Digest {
	p := i.packed(t)
	return encoder.Digest{Hash: sha256.Sum256(p), Size: int64(len(p))}
}

func (w *world) join(i *item, src encoder.Source) *Stream {
	w.Helper()
	return w.joinAs(context.Background(), i, src)
}

func (w *world) joinAs(ctx context.Context, i *item, src encoder.Source) *Stream {
	w.Helper()
	st, err := w.Join(ctx, i.key, src)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { st.Close() })
	return st
}

// fetch has the item encoded, or read, and says whether it is right.
func (w *world) fetch(i *item) {
	w.Helper()
	st := w.join(i, i.source)
	got, err := io.ReadAll(st)
	if err != nil {
		w.Fatal(err)
	}
	w.same(got, i)
	st.Close()
}

func (w *world) same(got []byte, i *item) {
	w.Helper()
	if !bytes.Equal(got, i.packed(w)) {
		w.Errorf("other bytes: %d", len(got))
	}
}

// has says whether Open has the item whole.
func (w *world) has(i *item) bool {
	w.Helper()
	f, digest, err := w.Open(i.key)
	if err != nil {
		return false
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err != nil {
		w.Fatal(err)
	}
	w.same(got, i)
	if digest != i.digest(w) {
		w.Errorf("facts: %v", digest)
	}
	return true
}

// files are the names in the folder.
func (w *world) files(suffix string) (names []string) {
	w.Helper()
	entries, err := os.ReadDir(w.o.Dir)
	if err != nil {
		w.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) {
			names = append(names, e.Name())
		}
	}
	return names
}

// metric is the value of narwharf_pack_<name>, with the one label value or none.
func (w *world) metric(name string, label ...string) int {
	w.Helper()
	all, err := w.registry.Gather()
	if err != nil {
		w.Fatal(err)
	}
	for _, family := range all {
		if family.GetName() != "narwharf_pack_"+name {
			continue
		}
		for _, m := range family.GetMetric() {
			if len(label) == 0 || m.GetLabel()[0].GetValue() == label[0] {
				return int(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			}
		}
	}
	w.Fatalf("no metric %s %q", name, label)
	return 0
}

// result is how many encodes ended so.
func (w *world) result(kind string) int { return w.metric("encodes_total", kind) }

// eventually waits for what has to come, however loaded the machine is.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}
