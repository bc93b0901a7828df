package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"narwharf/cache/upload/fsck"
)

// An fsck that was stopped is gone on with: what it had read is not read again, what it
// had found is.
func TestFsckGoesOn(t *testing.T) {
	w := newWorld(t)
	var paths []*testPath
	for i := range 600 {
		paths = append(paths, newUpload(t, fmt.Sprintf("p%d", i), "none"))
	}
	w.putAll(paths...)
	slices.SortFunc(paths, func(a, b *testPath) int { return strings.Compare(a.info.URL, b.info.URL) })
	for _, i := range []int{3, 590} {
		w.damage(paths[i], func(b []byte) []byte { b[100] ^= 1; return b })
	}
	first, last := paths[3].info.URL, paths[590].info.URL
	var at *fsck.Position
	save := func(p *fsck.Position) error { at = p; return nil }
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	_, err := fsck.Run(ctx, w.u, fsck.Options{Report: func(string) {}, Save: save, Found: func(f fsck.Finding) {
		if f.What == last {
			stop()
		}
	}})
	// It may have come to the end of the next page before it heard of it.
	if !errors.Is(err, context.Canceled) || at == nil || at.Nars < 512 || at.Bad[0] != first {
		t.Fatalf("%v, %+v", err, at)
	}
	read := at.Nars
	var lines []string
	r, err := fsck.Run(t.Context(), w.u, fsck.Options{Report: func(l string) { lines = append(lines, l) }, From: at, Save: save})
	text := strings.Join(lines, "\n")
	if err != nil || at != nil || r.Nars != 600 || r.Damage != 2 {
		t.Fatalf("%v, %+v, %+v\n%s", err, at, r, text)
	}
	for _, want := range []string{"going on from", fmt.Sprintf("%d of 600", read), "damaged: " + first, "damaged: " + last} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}
