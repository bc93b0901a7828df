package cache

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/state/memory"
	"narwharf/cache/upload/fsck"
	"narwharf/cache/upload/scrub"
	"narwharf/narinfo"
)

// nowhere has no NARs.
type nowhere struct{}

func (nowhere) Has(context.Context, *narinfo.Info) bool   { return false }
func (nowhere) Fetch(context.Context, narinfo.Path) error { return fs.ErrNotExist }

// What a disk has spoilt is found and told of with its path, is fetched anew where there
// is another file of it, and is left as it is where there is none. A restart goes on, and
// the next round begins when its time has come.
func TestScrub(t *testing.T) {
	w := newWorld(t)
	var paths []*testPath
	for i := range 20 {
		paths = append(paths, newUpload(t, fmt.Sprintf("p%d", i), "zstd"))
	}
	w.putAll(paths...)
	slices.SortFunc(paths, func(a, b *testPath) int { return strings.Compare(string(a.info.Path), string(b.info.Path)) })
	bad, gone, other := paths[2], paths[11], paths[17]
	w.putAll(other.repacked(t, "gzip"))
	w.damage(bad, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	w.damage(other, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	w.remove(gone.info.URL)
	st := memory.New(nil)
	var mu sync.Mutex
	var found []scrub.Finding
	run := func(enough func() bool) {
		t.Helper()
		s := scrub.New(scrub.Options{
			Uploads: w.u, State: st, Interval: 400 * time.Millisecond, Log: w.setup.Log, Next: w.index.After,
			Mend: func(ctx context.Context, hash, name string) (bool, error) {
				return fsck.Mend(ctx, w.u, nowhere{}, hash, name)
			},
			Alarm: func(_ context.Context, f scrub.Finding) error {
				mu.Lock()
				defer mu.Unlock()
				found = append(found, f)
				return nil
			},
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Run(ctx)
		}()
		for end := time.Now().Add(20 * time.Second); !enough() && time.Now().Before(end); time.Sleep(time.Millisecond) {
			continue
		}
		stop()
		<-done
	}
	count := func(n int) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(found) >= n
		}
	}
	run(count(1)) // and is stopped there
	run(count(3))
	if len(found) != 3 {
		t.Fatalf("%+v", found)
	}
	for i, want := range []struct {
		p      *testPath
		text   string
		mended bool
	}{{bad, "the SHA-256 of its ", false}, {gone, "it is gone", false}, {other, "the SHA-256 of its ", true}} {
		f := found[i]
		if f.Path != want.p.info.Path || f.File != want.p.info.URL || !strings.HasPrefix(f.Text, want.text) || f.Mended != want.mended {
			t.Errorf("%+v, want %s %q %v", f, want.p.info.Path, want.text, want.mended)
		}
	}
	if r, err := w.index.Get(other.info.Path.Hash()); err != nil || r.Info.URL == other.info.URL {
		t.Errorf("not mended: %v", err)
	}
	for _, name := range []string{"quarantine/" + other.info.URL, bad.info.URL} {
		if _, err := os.Stat(filepath.Join(w.dir, "cache", name)); err != nil {
			t.Error(err)
		}
	}
	run(count(5)) // the next round finds what is still so
	if len(found) < 5 || found[3].Path != bad.info.Path || found[4].Path != gone.info.Path {
		t.Errorf("%+v", found)
	}
}
