package index

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/memory"
	"narwharf/cache/state/statetest"
)

// A use is written once in a quarter of a lease, and the path is leased for all of it after
// each answer.
func TestUse(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	db := statetest.Twice(memory.New(func() time.Time { return now }))
	b, err := Open(db, Options{Lease: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	r := record(1, 1, []int{1}, nil)
	r.Uploaded = now
	if err := Put(b, r); err != nil {
		t.Fatal(err)
	}
	noted := func() (at uint64) {
		t.Helper()
		err := db.View(t.Context(), func(tx state.Reader) error {
			v, err := tx.Get(UseBucket, hashOf(1))
			at = state.Uint64(v)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	leased := func() (leased bool) {
		t.Helper()
		err := b.Change(nil, func(tx *Tx) (err error) { leased, err = tx.Leased(hashOf(1)); return err })
		if err != nil {
			t.Fatal(err)
		}
		return leased
	}
	use := func(wrote bool) {
		t.Helper()
		before := noted()
		lately, err := b.UsedLately(hashOf(1))
		if lately == wrote || err != nil {
			t.Errorf("used lately: %v, %v", lately, err)
		}
		missing, err := b.Use(t.Context(), []string{hashOf(7), hashOf(1), hashOf(8)})
		if err != nil || !slices.Equal(missing, []string{hashOf(7), hashOf(8)}) {
			t.Errorf("missing are %q, %v", missing, err)
		}
		if (noted() != before) != wrote {
			t.Errorf("noted at %d, was %d", noted(), before)
		}
	}
	use(false) // its upload is one
	now = now.Add(6 * time.Hour)
	use(true)
	use(false)
	now = now.Add(5 * time.Hour)
	use(false)
	now = now.Add(24 * time.Hour)
	if !leased() {
		t.Error("the lease of the last answer is over too early")
	}
	now = now.Add(2 * time.Hour)
	if leased() {
		t.Error("the lease is not over")
	}
	use(true)
	if !leased() {
		t.Error("no lease")
	}
	// Another text of the record changes nothing about it; one that is deleted takes it along.
	r.By = "another"
	if err := Put(b, r); err != nil || !leased() {
		t.Error("the use is lost", err)
	}
	if err := Delete(b, hashOf(1)); err != nil || noted() != 0 || leased() {
		t.Error("the use stays", err)
	}
	if missing, err := b.Use(t.Context(), []string{hashOf(1)}); len(missing) != 1 || err != nil {
		t.Error(missing, err)
	}
	write(t, db, UseBucket, hashOf(9), "left by a damaged record")
	if err := b.Prune(); err != nil {
		t.Fatal(err)
	}
	err = db.View(t.Context(), func(tx state.Reader) error {
		left, err := tx.List(UseBucket, state.Range{})
		if len(left) > 0 {
			t.Errorf("left are %q", left)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// More than one transaction has.
func TestUseOfMany(t *testing.T) {
	b := open(t, memory.New(nil))
	var hashes, want []string
	err := b.Change(nil, func(tx *Tx) error {
		for n := range 1300 {
			hashes = append(hashes, hashOf(n))
			if n%100 == 0 {
				want = append(want, hashOf(n))
				continue
			}
			if err := tx.Put(record(n, 1, []int{n}, nil)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	missing, err := b.Use(t.Context(), hashes)
	if slices.Sort(missing); err != nil || !slices.Equal(missing, want) {
		t.Errorf("missing are %q, %v", missing, err)
	}
	for _, hash := range hashes {
		if lately, err := b.UsedLately(hash); err != nil || lately != !slices.Contains(want, hash) {
			t.Errorf("%s used lately: %v, %v", hash, lately, err)
		}
	}
}

// Rows of NAR files are there where no record has the file as its URL.
func TestFileRows(t *testing.T) {
	b := open(t, statetest.Twice(memory.New(nil)))
	rows := func(want ...string) {
		t.Helper()
		var got []string
		err := b.EachFile(func(name string, f *File) error {
			if time.Since(f.Asked) > time.Minute {
				t.Errorf("%s was asked for at %v", name, f.Asked)
			}
			got = append(got, fmt.Sprintf("%s %v", name, f.Doomed))
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("rows are %q, want %q; %v", got, want, err)
		}
	}
	row := func(n int, doomed bool) string { return fmt.Sprintf("%s %v", fileOf(n), doomed) }
	put := func(r *Record) {
		t.Helper()
		if err := Put(b, r); err != nil {
			t.Fatal(err)
		}
	}
	facts := Facts{Compression: "zstd", FileSize: 5, NarSize: 7}
	facts.FileHash[3], facts.NarHash[4] = 1, 2
	err := b.Change(nil, func(tx *Tx) error { return tx.Ask(fileOf(1), facts, nil) })
	if err != nil {
		t.Fatal(err)
	}
	if f, err := b.File(fileOf(1)); err != nil || f.Facts != facts || f.Age < 0 || f.Age > time.Minute {
		t.Errorf("%+v, %v", f, err)
	}
	rows(row(1, false))
	put(record(1, 1, []int{1, 2}, nil)) // 2 is an alternate
	rows(row(2, false))
	put(record(2, 1, []int{2}, nil)) // and the file of another now
	rows()
	if err := Delete(b, hashOf(2)); err != nil {
		t.Fatal(err)
	}
	rows(row(2, false))
	put(record(1, 1, []int{3}, nil)) // neither is named any more
	rows(row(1, false), row(2, false))
	put(record(4, 1, []int{3}, nil))
	var doomed []string
	err = b.Change(nil, func(tx *Tx) (err error) {
		r, err := tx.Record(hashOf(1))
		if err == nil {
			doomed, err = tx.Collect(r, 1)
		}
		return err
	})
	if err != nil || len(doomed) > 0 { // 4 has it, too
		t.Error(doomed, err)
	}
	err = b.Change(nil, func(tx *Tx) (err error) {
		r, err := tx.Record(hashOf(4))
		if err == nil {
			doomed, err = tx.Collect(r, 2)
		}
		return err
	})
	if err != nil || !slices.Equal(doomed, []string{fileOf(3)}) {
		t.Error(doomed, err)
	}
	rows(row(1, false), row(2, false), row(3, true))
	if all, err := b.Going(t.Context()); err != nil || len(all) != 2 || all[0].Hash != hashOf(1) || all[1].Hash != hashOf(4) {
		t.Error(all, err)
	}
	// Somebody wants it after all, and one of the paths comes back.
	err = b.Change(nil, func(tx *Tx) error { return tx.Ask(fileOf(3), Facts{}, nil) })
	if err != nil {
		t.Fatal(err)
	}
	put(record(1, 1, []int{1}, nil))
	rows(row(2, false), row(3, false))
	if going, err := b.IsGoing(hashOf(1)); going || err != nil {
		t.Error(going, err)
	}
	if going, err := b.IsGoing(hashOf(4)); !going || err != nil {
		t.Error(going, err)
	}
	write(t, b.state, fileBucket, fileOf(9), "damaged")
	if _, err := b.File(fileOf(9)); err == nil {
		t.Error("a damaged row is read")
	}
}
