package nixstore

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"narwharf/narinfo"
)

func TestClosure(t *testing.T) {
	f := newFixture(t, "/nix/store")
	infos := pathInfos("/nix/store", 2000, 3)
	for n, i := range infos {
		if n%3 == 0 {
			i.References = append(i.References, i.Path)
			slices.Sort(i.References)
		}
		if len(i.References) == 0 {
			i.References = nil
		}
	}
	f.put(infos...)
	s := f.open()
	byPath := map[narinfo.Path]*PathInfo{}
	for _, i := range infos {
		byPath[i.Path] = i
	}
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 30 {
		roots := make([]narinfo.Path, n%4)
		for k := range roots {
			roots[k] = infos[r.IntN(len(infos))].Path
		}
		all, err := s.Closure(context.Background(), append(roots, roots...)...)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := names(all), closureOf(infos, roots...); !slices.Equal(got, want) {
			t.Fatalf("closure of %v: %d paths, want %d", roots, len(got), len(want))
		}
		for _, i := range all {
			if !reflect.DeepEqual(i, byPath[i.Path].Info) {
				t.Fatalf("got  %+v\nwant %+v", i, byPath[i.Path].Info)
			}
		}
	}
}

func TestClosureNamesWhatIsMissing(t *testing.T) {
	f := newFixture(t, "/nix/store")
	infos := pathInfos("/nix/store", 10, 3)
	f.put(infos...)
	s := f.open()
	gone := pathInfo("/nix/store", "gone").Path
	all, err := s.Closure(context.Background(), infos[9].Path, gone)
	if all != nil || !errors.Is(err, ErrNotValid) || err.Error() != gone.In("/nix/store")+" is not in the local store" {
		t.Errorf("%d paths, %v", len(all), err)
	}
}

// TestClosureIsGivenUp ends the context at several moments of a closure that
// takes longer, and sees that the connection is good afterwards.
func TestClosureIsGivenUp(t *testing.T) {
	f := newFixture(t, "/nix/store")
	infos := pathInfos("/nix/store", 5000, 3)
	f.put(infos...)
	s := f.open()
	root := infos[len(infos)-1].Path
	want := len(closureOf(infos, root))
	for n := range 10 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(n)*300*time.Microsecond)
		all, err := s.Closure(ctx, root)
		if err == nil && len(all) != want || err != nil && (all != nil || !errors.Is(err, context.DeadlineExceeded)) {
			t.Errorf("%d paths, %v", len(all), err)
		}
		cancel()
		if all, err := s.Closure(context.Background(), root); err != nil || len(all) != want {
			t.Errorf("%d paths, %v", len(all), err)
		}
	}
}

// TestClosureOfManyRoots has more roots than SQLite has parameters.
func TestClosureOfManyRoots(t *testing.T) {
	f := newFixture(t, "/nix/store")
	infos := pathInfos("/nix/store", 100, 0)
	f.put(infos...)
	s := f.open()
	var roots []narinfo.Path
	for range 400 {
		for _, i := range infos {
			roots = append(roots, i.Path)
		}
	}
	all, err := s.Closure(context.Background(), roots...)
	if err != nil || len(all) != len(infos) {
		t.Errorf("%d paths, %v", len(all), err)
	}
}
