package index

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"narwharf/cache/state"
	"narwharf/narinfo"
)

// hashOf makes hash part number n.
func hashOf(n int) string { return fmt.Sprintf("%032d", n) }

func pathOf(n int) narinfo.Path { return narinfo.Path(fmt.Sprintf("%s-p%d", hashOf(n), n)) }

func fileOf(n int) string { return fmt.Sprintf("nar/%052d.nar", n) }

// record makes path n with the NAR file numbers files and references refs.
func record(n int, size int64, files, refs []int) *Record {
	r := &Record{
		Info: &narinfo.Info{
			StoreDir: "/nix/store", Path: pathOf(n), URL: fileOf(files[0]), Compression: "none",
			NarHash: narinfo.Hash{byte(n), 1}, NarSize: size,
		},
		Uploaded: time.Unix(int64(1700000000+n), 0).UTC(),
		By:       fmt.Sprintf("ci\n\"%d", n),
	}
	for _, f := range files[1:] {
		r.Alternates = append(r.Alternates, fileOf(f))
	}
	for _, ref := range refs {
		r.Info.References = append(r.Info.References, pathOf(ref))
	}
	slices.Sort(r.Info.References)
	r.Info.References = slices.Compact(r.Info.References)
	return r
}

// text is all of a record, to compare.
func text(r *Record) string {
	return fmt.Sprintf("%s|%q|%v|%s", r.Uploaded.UTC().Format(time.RFC3339Nano), r.By, r.Alternates, r.Info.Append(nil))
}

// model is what an Index should be.
type model map[string]*Record

func (m model) users(file string) (hashes []string) {
	for hash, r := range m {
		if slices.Contains(r.Files(), file) {
			hashes = append(hashes, hash)
		}
	}
	slices.Sort(hashes)
	return hashes
}

func (m model) referrers(to string) (hashes []string) {
	for hash, r := range m {
		for _, ref := range r.Info.References {
			if ref.Hash() == to && hash != to {
				hashes = append(hashes, hash)
			}
		}
	}
	slices.Sort(hashes)
	return hashes
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// mustEqual compares all that an index answers with the model.
func mustEqual(t failer, idx Index, m model) {
	t.Helper()
	var order []string
	err := idx.Each(func(hash string, r *Record, err error) error {
		if err != nil {
			return err
		}
		order = append(order, hash)
		if want := m[hash]; want == nil || text(r) != text(want) {
			return fmt.Errorf("record %s is %s", hash, text(r))
		}
		return nil
	})
	if err != nil {
		t.Fatalf("Each: %v", err)
	}
	if want := slices.Sorted(maps.Keys(m)); !slices.Equal(order, want) {
		t.Fatalf("Each went over %v, want %v", order, want)
	}
	want := Totals{Paths: int64(len(m))}
	for _, r := range m {
		want.NarSize += r.Info.NarSize
	}
	if got, err := idx.Totals(); err != nil || got != want {
		t.Fatalf("Totals: %+v, %v; want %+v", got, err, want)
	}
	for n := range 8 {
		got, err := idx.Get(hashOf(n))
		switch want := m[hashOf(n)]; {
		case want == nil && !errors.Is(err, ErrNotFound):
			t.Fatalf("Get of a missing path: %v, %v", got, err)
		case want != nil && (err != nil || text(got) != text(want)):
			t.Fatalf("Get(%d): %+v, %v", n, got, err)
		}
		users, err := idx.Users(fileOf(n))
		if err != nil || !slices.Equal(users, m.users(fileOf(n))) {
			t.Fatalf("Users(%d): %v, %v; want %v", n, users, err, m.users(fileOf(n)))
		}
		refs, err := idx.Referrers(hashOf(n))
		if err != nil || !slices.Equal(refs, m.referrers(hashOf(n))) {
			t.Fatalf("Referrers(%d): %v, %v; want %v", n, refs, err, m.referrers(hashOf(n)))
		}
	}
}

// testContract holds an Index to what the interface says. reopen closes what
// it is given and opens the same again.
func testContract(t *testing.T, open func(t *testing.T) (idx Index, reopen func() Index)) {
	t.Run("put, replace, delete", func(t *testing.T) {
		idx, reopen := open(t)
		m := model{}
		step := func(r *Record) {
			t.Helper()
			if err := Put(idx, r); err != nil {
				t.Fatal(err)
			}
			m[r.Info.Path.Hash()] = r
			mustEqual(t, idx, m)
		}
		mustEqual(t, idx, m)
		step(record(1, 100, []int{1}, nil))
		step(record(2, 200, []int{1}, []int{1}))          // the same NAR
		step(record(3, 300, []int{2, 3}, []int{1, 2, 3})) // alternate, itself
		step(record(1, 150, []int{4}, []int{3}))          // another NAR
		for _, n := range []int{2, 2, 7} {
			if err := Delete(idx, hashOf(n)); err != nil {
				t.Fatal(err)
			}
			delete(m, hashOf(n))
			mustEqual(t, idx, m)
		}
		idx = reopen()
		mustEqual(t, idx, m)
	})

	t.Run("a record is the caller's own", func(t *testing.T) {
		idx, _ := open(t)
		r := record(1, 1, []int{1, 2}, []int{2})
		if err := Put(idx, r); err != nil {
			t.Fatal(err)
		}
		before := text(r)
		r.Info.URL, r.Alternates[0] = "nar/changed", "nar/changed"
		got, err := idx.Get(hashOf(1))
		if err != nil || text(got) != before {
			t.Errorf("the index changed with what was put: %v, %v", got, err)
		}
	})

	t.Run("Each stops at an error", func(t *testing.T) {
		idx, _ := open(t)
		for n := range 3 {
			if err := Put(idx, record(n, 1, []int{n}, nil)); err != nil {
				t.Fatal(err)
			}
		}
		stop, calls := errors.New("stop"), 0
		err := idx.Each(func(string, *Record, error) error { calls++; return stop })
		if !errors.Is(err, stop) || calls != 1 {
			t.Errorf("%d calls, %v", calls, err)
		}
	})

	t.Run("a change decides on what it reads", func(t *testing.T) {
		idx, reopen := open(t)
		stop := errors.New("stop")
		m := model{hashOf(1): record(1, 10, []int{1}, nil)}
		if err := Put(idx, m[hashOf(1)]); err != nil {
			t.Fatal(err)
		}
		locks := []string{PathLock(hashOf(2)), state.Shared(PathLock(hashOf(1))), state.Shared(NarLock(fileOf(1)))}
		change := func(end error) error {
			return idx.Change(locks, func(tx *Tx) error {
				if users, err := tx.Users(fileOf(1)); err != nil || !slices.Equal(users, []string{hashOf(1)}) {
					t.Errorf("%v, %v", users, err)
				}
				for n, want := range []bool{false, true, false} {
					if is, err := tx.Has(pathOf(n)); err != nil || is != want {
						t.Errorf("Has(%d): %t, %v", n, is, err)
					}
				}
				if is, err := tx.Has(pathOf(1) + "-dev"); err != nil || is { // the same hash part
					t.Errorf("Has of another path: %t, %v", is, err)
				}
				for _, r := range []*Record{record(2, 7, []int{1, 2}, []int{1}), record(2, 8, []int{2}, []int{1, 2})} {
					if err := tx.Put(r); err != nil {
						return err
					}
				}
				r, err := tx.Record(hashOf(2)) // what it wrote itself
				if err != nil || r.Info.NarSize != 8 {
					t.Errorf("%+v, %v", r, err)
				}
				return errors.Join(tx.Delete(hashOf(1)), tx.Delete(hashOf(7)), end)
			})
		}
		if err := change(stop); !errors.Is(err, stop) {
			t.Errorf("a change that fails: %v", err)
		}
		mustEqual(t, idx, m)
		if err := change(nil); err != nil {
			t.Fatal(err)
		}
		m = model{hashOf(2): record(2, 8, []int{2}, []int{1, 2})}
		mustEqual(t, idx, m)
		mustEqual(t, reopen(), m)
	})

	t.Run("changes of one path are one after the other", func(t *testing.T) {
		idx, _ := open(t)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				err := idx.Change([]string{PathLock(hashOf(1))}, func(tx *Tx) error {
					size := int64(1)
					if r, err := tx.Record(hashOf(1)); err == nil {
						size += r.Info.NarSize
					}
					return tx.Put(record(1, size, []int{1}, nil))
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		mustEqual(t, idx, model{hashOf(1): record(1, 20, []int{1}, nil)})
	})

	t.Run("many at once", func(t *testing.T) {
		idx, _ := open(t)
		m := model{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for n := range 64 {
			wg.Go(func() {
				r := record(n, 5, []int{n % 8}, []int{n / 2})
				if err := Put(idx, r); err != nil {
					t.Error(err)
				}
				got, err := idx.Get(hashOf(n)) // is seen by who starts later
				if err != nil || text(got) != text(r) {
					t.Errorf("Get after Put: %v", err)
				}
				if n%4 == 0 {
					if err := Delete(idx, hashOf(n)); err != nil {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				m[hashOf(n)] = r
				mu.Unlock()
			})
		}
		wg.Wait()
		mustEqual(t, idx, m)
	})

	t.Run("any order of calls is as a map", func(t *testing.T) {
		rapid.Check(t, func(rt *rapid.T) {
			idx, reopen := open(t)
			m := model{}
			defer func() {
				for hash := range m {
					_ = Delete(idx, hash)
				}
			}()
			small := rapid.IntRange(0, 7)
			someRecord := func() *Record {
				return record(small.Draw(rt, "path"), int64(small.Draw(rt, "size")+1),
					rapid.SliceOfNDistinct(small, 1, 3, rapid.ID[int]).Draw(rt, "files"),
					rapid.SliceOfN(small, 0, 4).Draw(rt, "refs"))
			}
			rt.Repeat(map[string]func(*rapid.T){
				"put": func(rt *rapid.T) {
					r := someRecord()
					if err := Put(idx, r); err != nil {
						rt.Fatal(err)
					}
					m[r.Info.Path.Hash()] = r
				},
				"delete": func(rt *rapid.T) {
					hash := hashOf(small.Draw(rt, "path"))
					if err := Delete(idx, hash); err != nil {
						rt.Fatal(err)
					}
					delete(m, hash)
				},
				"drop and prune": func(rt *rapid.T) {
					hash := hashOf(small.Draw(rt, "path"))
					if err := errors.Join(idx.Change([]string{PathLock(hash)}, func(tx *Tx) error { return tx.Drop(hash) }), idx.Prune()); err != nil {
						rt.Fatal(err)
					}
					delete(m, hash)
				},
				"reopen": func(*rapid.T) { idx = reopen() },
				"":       func(rt *rapid.T) { mustEqual(rt, idx, m) },
			})
		})
	})
}

func TestFilesStartsWithURL(t *testing.T) {
	r := record(1, 1, []int{3, 1, 2}, nil)
	if got := r.Files(); !slices.Equal(got, []string{fileOf(3), fileOf(1), fileOf(2)}) {
		t.Error(got)
	}
	if got := strings.Join(r.Alternates, " "); got != fileOf(1)+" "+fileOf(2) {
		t.Errorf("Files changed the record: %s", got)
	}
}

func TestSame(t *testing.T) {
	a := func() *Record { return record(1, 2, []int{1, 2}, []int{3}) }
	if !Same(a(), a()) || !Same(nil, nil) || Same(a(), nil) || Same(nil, a()) {
		t.Error("equal records differ, or one and none are equal")
	}
	for name, change := range map[string]func(r *Record){
		"time":      func(r *Record) { r.Uploaded = r.Uploaded.Add(1) },
		"uploader":  func(r *Record) { r.By = "x" },
		"alternate": func(r *Record) { r.Alternates = nil },
		"signature": func(r *Record) { r.Info.Sigs = []string{"a:b"} },
	} {
		b := a()
		if change(b); Same(a(), b) {
			t.Errorf("another %s is not seen", name)
		}
	}
}
