package dump

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"narwharf/cache/nar"
)

// walk is the source of a dump: it goes through the tree as it is now, in the order of the
// archive, and reads no directory before its turn has come.
type walk struct {
	above *folder
	root  string

	begun bool
	in    []walkDir
	buf   [16 << 10]byte
}

type walkDir struct {
	*folder
	rest []dirent
}

// dirent is an entry of a directory; its type is 0 if it is not known, or not for a NAR.
type dirent struct {
	name string
	typ  nar.Type
}

func (w *walk) fill(b *batch, steps int) (more bool, err error) {
	if !w.begun {
		w.begun = true
		if err := w.enter(b, w.above, dirent{name: w.root}); err != nil {
			return false, err
		}
	}
	for len(w.in) > 0 && !b.full(steps) {
		top := &w.in[len(w.in)-1]
		if len(top.rest) == 0 {
			b.add(step{typ: endOfDir, root: len(w.in) == 1})
			top.release()
			w.in = w.in[:len(w.in)-1]
			continue
		}
		next := top.rest[0]
		top.rest = top.rest[1:]
		if len(w.in) == nar.MaxDepth {
			return false, top.tooDeep(next.name)
		}
		if err := w.enter(b, top.folder, next); err != nil {
			return false, err
		}
	}
	return len(w.in) > 0, nil
}

// enter adds the step for an entry of f; a directory is also opened and read.
func (w *walk) enter(b *batch, f *folder, e dirent) error {
	if e.typ == 0 {
		var st unix.Stat_t
		if err := f.look(e.name, &st); err != nil {
			return f.fail("lstat", e.name, err)
		}
		if e.typ = typeOf(uint32(st.Mode)); e.typ == 0 {
			return f.refuse(e.name)
		}
	}
	if e.typ != nar.Directory {
		b.add(step{in: f, name: e.name, typ: e.typ, root: f.up == nil})
		return nil
	}
	sub, err := f.open(e.name)
	if err != nil {
		return err
	}
	list, err := sub.list(w.buf[:])
	if err != nil {
		sub.release()
		return err
	}
	b.add(step{name: e.name, typ: nar.Directory, root: f.up == nil})
	w.in = append(w.in, walkDir{sub, list})
	return nil
}

func (w *walk) close() {
	for _, d := range w.in {
		d.release()
	}
	w.in = nil
}

// list gives the entries of f in the order of the archive.
func (f *folder) list(buf []byte) ([]dirent, error) {
	list, err := f.readEntries(nil, buf)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		if err := nar.CheckName(e.name); err != nil {
			return nil, f.fail("dump", e.name, err)
		}
	}
	slices.SortFunc(list, func(a, b dirent) int { return strings.Compare(a.name, b.name) })
	return list, nil
}

func (f *folder) tooDeep(name string) error {
	return f.fail("dump", name, fmt.Errorf("it lies %d directories deep: nix accepts at most %d", nar.MaxDepth, nar.MaxDepth-1))
}
