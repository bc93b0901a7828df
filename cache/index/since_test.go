package index

import (
	"testing"
	"time"
)

// From when on it is known what was used: always in a cache that was never without this
// narwharf, and not before now where an older one, or nobody, kept the state meanwhile.
func TestSince(t *testing.T) {
	db, reopen := openState(t)
	since := func(b *Table, want string) {
		t.Helper()
		at, err := b.Since(t.Context())
		is := "then"
		switch {
		case at.IsZero():
			is = "always"
		case time.Since(at) < 10*time.Second:
			is = "now"
		}
		if err != nil || is != want {
			t.Errorf("known since %v, want %s; %v", at, want, err)
		}
	}
	began := func(b *Table, empty bool) {
		t.Helper()
		if err := b.Began(empty); err != nil {
			t.Fatal(err)
		}
	}
	closed := func(b *Table) {
		t.Helper()
		if err := b.Close(Files{}); err != nil {
			t.Fatal(err)
		}
	}
	long := func() { // ago
		write(t, db, metaBucket, keySince, string([]byte{0, 0, 0, 0, 0x60, 0, 0, 0}))
	}
	b := open(t, db)
	since(b, "now") // there may be files that it does not know
	began(b, true)
	since(b, "always")
	began(b, false)
	since(b, "always")
	if err := Put(b, record(1, 1, []int{1}, nil)); err != nil {
		t.Fatal(err)
	}
	closed(b) // uncounted
	db = reopen()
	b = open(t, db)
	since(b, "always")
	if _, err := b.Totals(); err != nil {
		t.Fatal(err)
	}
	closed(b) // counted
	db = reopen()
	b = open(t, db)
	if b.Dirty() {
		t.Error("not closed in order")
	}
	since(b, "always")
	db = reopen() // killed
	b = open(t, db)
	since(b, "always")

	// An older narwharf stopped in order.
	for _, note := range []string{"1", `{"paths":1,"nar_size":1,"nar_files":1,"nar_bytes":1}`} {
		long()
		write(t, db, metaBucket, keyClean, note)
		since(open(t, db), "now")
		long()
		since(open(t, db), "then")
	}
	// And one had it before any of ours.
	if err := Delete(b, hashOf(1)); err != nil {
		t.Fatal(err)
	}
	write(t, db, metaBucket, keyClean, "1")
	since(open(t, db), "always") // it is empty

	other, _ := openState(t)
	write(t, other, metaBucket, keyVersion, version)
	write(t, other, metaBucket, keyGen, "1")
	write(t, other, generation("1").path(), hashOf(1), "a record")
	since(open(t, other), "now")

	// Files alone.
	third, _ := openState(t)
	b = open(t, third)
	began(b, false)
	since(b, "now")
	write(t, third, metaBucket, keySince, string([]byte{0, 0, 0, 0, 0x60, 0, 0, 0}))
	since(open(t, third), "then")
}
