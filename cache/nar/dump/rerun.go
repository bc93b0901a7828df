package dump

import (
	"narwharf/cache/nar"
)

// rerun is the source of a range: it goes through what Measure has found, from the first step that
// has bytes in the range to the last, and opens the directories of these steps alone.
type rerun struct {
	tree     *Tree
	from, to int64

	begun bool
	pos   int64 // where the next step starts
	in    []rerunDir
}

type rerunDir struct {
	node *nar.Node
	next int
	// folder is nil until something in it is to be opened.
	folder *folder
}

func (r *rerun) fill(b *batch, steps int) (more bool, err error) {
	if !r.begun {
		r.begun = true
		err = r.enter(b, r.tree.root)
	}
	for err == nil && len(r.in) > 0 && r.pos < r.to && !b.full(steps) {
		top := &r.in[len(r.in)-1]
		if top.next == len(top.node.Entries) {
			root := len(r.in) == 1
			r.add(b, step{typ: endOfDir, root: root, want: top.node}, tailSize(top.node, root))
			if top.folder != nil {
				top.folder.release()
			}
			r.in = r.in[:len(r.in)-1]
			continue
		}
		top.next++
		err = r.enter(b, &top.node.Entries[top.next-1])
	}
	return err == nil && len(r.in) > 0 && r.pos < r.to, err
}

// enter adds the step for a node, if it is asked for.
func (r *rerun) enter(b *batch, n *nar.Node) (err error) {
	s := step{typ: n.Type, want: n, name: n.Name, root: len(r.in) == 0}
	size := headSize(n, s.root)
	if n.Type == nar.Directory {
		r.add(b, s, size)
		r.in = append(r.in, rerunDir{node: n})
		return nil
	}
	s.skip = min(max(r.from-r.pos-size, 0), n.Size)
	size += n.Size + tailSize(n, s.root)
	switch {
	case r.pos+size <= r.from:
	case s.root:
		s.in, s.name = r.tree.above, r.tree.path
	default:
		s.in, err = r.folder(len(r.in) - 1)
	}
	if err != nil {
		return err
	}
	r.add(b, s, size)
	return nil
}

// add adds a step of so many bytes, unless it ends before the range.
func (r *rerun) add(b *batch, s step, size int64) {
	start := r.pos
	r.pos += size
	if r.pos <= r.from {
		return
	}
	if len(b.steps) == 0 {
		b.pos = start
	}
	b.add(s)
}

// folder opens the i-th directory that the walk is in.
func (r *rerun) folder(i int) (*folder, error) {
	d := &r.in[i]
	if d.folder != nil {
		return d.folder, nil
	}
	up, name := r.tree.above, r.tree.path
	if i > 0 {
		name = d.node.Name
		var err error
		if up, err = r.folder(i - 1); err != nil {
			return nil, err
		}
	}
	var err error
	d.folder, err = up.open(name)
	return d.folder, err
}

func (r *rerun) close() {
	for _, d := range r.in {
		if d.folder != nil {
			d.folder.release()
		}
	}
	r.in = nil
}
