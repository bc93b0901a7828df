package root_test

import (
	"context"
	"crypto/sha256"
	"slices"
	"testing"

	"narwharf/cache/root"
	"narwharf/cache/state"
	"narwharf/cache/state/memory"
	"narwharf/cache/state/statetest"
	"narwharf/narinfo"
)

func pathNamed(name string) narinfo.Path {
	return narinfo.Path(narinfo.Hash(sha256.Sum256([]byte(name))).Base32()[20:] + "-" + name)
}

func TestRoots(t *testing.T) {
	s := statetest.Twice(memory.New(nil))
	a, b, c := pathNamed("a"), pathNamed("b"), pathNamed("c")
	set := func(owner string, paths ...narinfo.Path) {
		t.Helper()
		err := s.Update(context.Background(), root.Locks(paths), func(tx state.Tx) error { return root.Set(tx, owner, paths) })
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func(p narinfo.Path, want ...string) {
		t.Helper()
		err := s.View(context.Background(), func(tx state.Reader) error {
			owners, err := root.Of(tx, p.Hash())
			if !slices.Equal(owners, want) {
				t.Errorf("%s is a root of %q, want %q", p, owners, want)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	set("release:web:1", b, a, b)
	set("release:web:10", b, c)
	set("host:x", b)
	check(a, "release:web:1")
	check(b, "host:x", "release:web:1", "release:web:10")
	check(c, "release:web:10")
	set("release:web:1", c, b)
	set("release:web:1", c, b)
	check(a)
	check(c, "release:web:1", "release:web:10")
	set("host:x")
	set("host:y")
	check(b, "release:web:1", "release:web:10")

	var all, owners []string
	err := root.Each(context.Background(), s, func(hash, owner string) error { all = append(all, hash+" "+owner); return nil })
	if err != nil || len(all) != 4 || !slices.IsSorted(all) {
		t.Error(all, err)
	}
	err = root.EachOwner(context.Background(), s, "release:web:1", func(owner string) error { owners = append(owners, owner); return nil })
	if err != nil || !slices.Equal(owners, []string{"release:web:1", "release:web:10"}) {
		t.Error(owners, err)
	}
	set("release:web:1")
	set("release:web:10")
	check(b)
	for _, bucket := range []string{"cache/root", "cache/root-owner"} {
		err := s.View(context.Background(), func(tx state.Reader) error {
			list, err := tx.List(bucket, state.Range{})
			if len(list) > 0 {
				t.Errorf("%s has %q", bucket, list)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
