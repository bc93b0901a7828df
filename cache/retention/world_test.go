package retention

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/nar"
	"narwharf/cache/root"
	"narwharf/cache/sidecar"
	"narwharf/cache/state"
	"narwharf/cache/state/memory"
	"narwharf/cache/upload"
	"narwharf/cache/upload/recovery"
	"narwharf/narinfo"
)

const day = 24 * time.Hour

// testPolicy has the times of the defaults.
var testPolicy = Policy{Grace: 31 * day, Lease: day, Interval: time.Hour}

// item is a path that may be uploaded.
type item struct {
	info *narinfo.Info
	nar  []byte
	refs []int // without itself
}

func (i *item) hash() string { return i.info.Path.Hash() }

// makeItem makes a path with a NAR of some content.
func makeItem(name, content string, refs ...narinfo.Path) *item {
	var text []byte
	for _, w := range []string{"nix-archive-1", "(", "type", "regular", "contents", content, ")"} {
		text = nar.AppendString(text, w)
	}
	sum := narinfo.Hash(sha256.Sum256(text))
	hash := narinfo.Hash(sha256.Sum256([]byte(name)))
	return &item{nar: text, info: &narinfo.Info{
		StoreDir: "/nix/store", Path: narinfo.Path(hash.Base32()[20:] + "-" + name), URL: "nar/" + sum.Base32() + ".nar", Compression: "none",
		FileHash: sum, FileSize: int64(len(text)), NarHash: sum, NarSize: int64(len(text)), References: refs,
	}}
}

// world is a cache in memory that can be killed.
type world struct {
	t       failer
	db      *mortal
	files   *memFiles
	policy  Policy
	local   Local
	free    func() (int64, error)
	wrapped func(Uploads) Uploads // nil: as they are

	index   *index.Table
	uploads *upload.Store
	*Collector
}

type failer interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Fatal(args ...any)
}

func newWorld(t failer, p Policy) *world {
	w := &world{t: t, db: &mortal{Store: memory.New(nil)}, files: newMemFiles(), policy: p}
	w.files.write = w.db.write
	return w
}

// open opens the cache, at first or after a crash.
func (w *world) open() {
	w.t.Helper()
	w.db.left, w.db.dead = 0, false
	log := slog.New(slog.DiscardHandler)
	var err error
	if w.index, err = index.Open(w.db, index.Options{Lease: w.policy.Lease}); err != nil {
		w.t.Fatal(err)
	}
	if w.uploads, err = upload.New(w.files, w.index, upload.Options{StoreDir: "/nix/store", MaxNarSize: 1 << 20, NarGrace: day}, log); err != nil {
		w.t.Fatal(err)
	}
	if w.index.Dirty() {
		if _, _, err := recovery.Recover(w.uploads); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := recovery.Check(context.Background(), w.uploads, w.index.Closed()); err != nil {
		w.t.Fatal(err)
	}
	var uploads Uploads = w.uploads
	if w.wrapped != nil {
		uploads = w.wrapped(uploads)
	}
	w.Collector = New(Options{
		Policy: w.policy, State: w.db, Index: w.index, Uploads: uploads, Local: w.local, Free: w.free,
		Sidecars: sidecar.New(w.files), Log: log,
	})
	w.settled.Store(true)
}

// put uploads a path.
func (w *world) put(i *item) error {
	file := strings.TrimPrefix(i.info.URL, "nar/")
	if err := w.uploads.PutNar(file, bytes.NewReader(i.nar), int64(len(i.nar))); err != nil {
		return err
	}
	return w.uploads.PutInfo(i.hash(), i.info, "ci")
}

// mustPut uploads a path with references and returns it.
func (w *world) mustPut(name string, refs ...*item) *item {
	w.t.Helper()
	var paths []narinfo.Path
	for _, r := range refs {
		paths = append(paths, r.info.Path)
	}
	i := makeItem(name, strings.Repeat(name, 10), paths...)
	if err := w.put(i); err != nil {
		w.t.Fatal(err)
	}
	return i
}

// setRoots makes the roots of an owner.
func (w *world) setRoots(owner string, items ...*item) error {
	return w.setAllRoots(map[string][]*item{owner: items})
}

// setAllRoots makes the roots of owners at once.
func (w *world) setAllRoots(roots map[string][]*item) error {
	paths := make(map[string][]narinfo.Path)
	var locks []string
	for owner, items := range roots {
		for _, i := range items {
			paths[owner] = append(paths[owner], i.info.Path)
		}
		locks = append(append(locks, owner), root.Locks(paths[owner])...)
	}
	return w.db.Update(context.Background(), locks, func(tx state.Tx) error {
		for owner := range roots {
			if err := root.Set(tx, owner, paths[owner]); err != nil {
				return err
			}
		}
		return nil
	})
}

// mustRoot is setRoots.
func (w *world) mustRoot(owner string, items ...*item) {
	w.t.Helper()
	if err := w.setRoots(owner, items...); err != nil {
		w.t.Fatal(err)
	}
}

// mustRoots is setAllRoots.
func (w *world) mustRoots(roots map[string][]*item) {
	w.t.Helper()
	if err := w.setAllRoots(roots); err != nil {
		w.t.Fatal(err)
	}
}

// here returns the hash parts of what is uploaded.
func (w *world) here() map[string]bool {
	w.t.Helper()
	all := make(map[string]bool)
	err := w.index.Summaries(context.Background(), func(page []index.Summary) error {
		for _, s := range page {
			all[s.Hash] = true
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// want compares what is uploaded.
func (w *world) want(items ...*item) {
	w.t.Helper()
	is := w.here()
	for _, i := range items {
		if !is[i.hash()] {
			w.t.Errorf("%s is gone", i.info.Path)
		}
		delete(is, i.hash())
	}
	if len(is) > 0 {
		w.t.Errorf("%d paths too many are here", len(is))
	}
}

// agree checks that files and index are the same.
func (w *world) agree() {
	w.t.Helper()
	is := w.here()
	err := w.files.List("", func(i blob.Info) error {
		hash, ok := strings.CutSuffix(i.Name, ".narinfo")
		if ok && !is[hash] {
			return fmt.Errorf("%s is a file and is not in the index", i.Name)
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for hash := range is {
		r, err := w.index.Get(hash)
		if err != nil {
			w.t.Fatal(err)
		}
		text, err := blob.ReadFile(w.files, hash+".narinfo", 1<<20)
		if err != nil || !bytes.Equal(text, r.Info.Append(nil)) {
			w.t.Fatalf("%s differs from the index: %v", r.Info.Path, err)
		}
		if _, err := w.files.Stat(r.Info.URL); err != nil {
			w.t.Fatalf("the NAR of %s: %v", r.Info.Path, err)
		}
	}
	if going, err := w.index.Going(context.Background()); err != nil || len(going) > 0 {
		w.t.Fatalf("%v still has to go, %v", going, err)
	}
}

// forgetSince makes the index one that knows what was of use from now on.
func (w *world) forgetSince() {
	w.t.Helper()
	err := w.db.Update(context.Background(), nil, func(tx state.Tx) error {
		return tx.Put("index/meta", "since", []byte(state.Uint64Key(uint64(time.Now().Unix()))))
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// collect collects and fails the test if that fails.
func (w *world) collect(r Request) *Result {
	w.t.Helper()
	res, err := w.Collect(context.Background(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

// mortal is a state and the files beside it, whose process dies at a write that was drawn.
type mortal struct {
	state.Store
	left  int  // writes until it dies, 0: it lives
	after bool // it dies after that write was made
	dead  bool
}

var errDead = errors.New("the process was killed")

// write does a write unless the process dies before it.
func (m *mortal) write(do func() error) error {
	if m.dead {
		return errDead
	}
	if m.left > 0 {
		if m.left--; m.left == 0 {
			m.dead = true
			if m.after {
				_ = do() // nobody learns how it went
			}
			return errDead
		}
	}
	return do()
}

func (m *mortal) Update(ctx context.Context, locks []string, fn func(tx state.Tx) error) error {
	err := m.write(func() error { return m.Store.Update(ctx, locks, fn) })
	if errors.Is(err, errDead) {
		return fmt.Errorf("%w: %w", errDead, state.ErrUncertain)
	}
	return err
}

func (m *mortal) Merge(ctx context.Context, bucket string, values map[string]uint64) error {
	return state.MergeByUpdate(ctx, m, bucket, values)
}

func (m *mortal) Replace(ctx context.Context, locks []string, bucket string, fill func(put state.PutFunc) error, flip func(tx state.Tx) error) error {
	return state.ReplaceByUpdate(ctx, m, locks, bucket, fill, flip)
}

var _ failer = (*testing.T)(nil)
