package graph

// Spread finds, for every path, whether a root reaches it and when it or anything that
// refers to it was last of use. Paths that refer to each other in a cycle are one.
//
// It is Pearce's form of Tarjan's algorithm ("A space-efficient algorithm for finding
// strongly connected components", 2016), from a path to its referrers: so each cycle is
// found after all that refers to it, and order has them in this order.
func (g *Graph) Spread() {
	n := uint32(len(g.flags))
	g.Part, g.Depth, g.Order = make([]uint32, n), make([]uint32, n), make([]uint32, 0, n)
	w := walk{g: g, next: 1, part: ^uint32(0)}
	for v := range n {
		if g.Part[v] == 0 {
			w.from(v)
		}
	}
}

// walk is a depth-first walk. While it is at work, part has when a path was met, or the
// earliest that is reached from it; then the number of its cycle, which is larger.
type walk struct {
	g          *Graph
	next, part uint32
	path       []step
	waiting    []uint32 // paths of cycles that are not complete
}

// step is a path on the way, and which of its referrers comes next.
type step struct{ v, i uint32 }

func (w *walk) from(v uint32) {
	w.enter(v)
	for len(w.path) > 0 {
		top := &w.path[len(w.path)-1]
		r, ok := w.g.referrer(top.v, top.i)
		switch {
		case !ok:
			w.leave()
		case w.g.Part[r] == 0:
			w.enter(r) // and looked at again when it is left
		default:
			top.i++
			w.meet(top.v, r)
		}
	}
}

func (w *walk) enter(v uint32) {
	w.g.Part[v] = w.next
	w.next++
	w.path = append(w.path, step{v, 0})
}

// meet notes that r is reached from v.
func (w *walk) meet(v, r uint32) {
	if w.g.Part[r] < w.g.Part[v] {
		w.g.Part[v] = w.g.Part[r]
		w.g.flags[v] |= inner
	}
}

func (w *walk) leave() {
	g := w.g
	v := w.path[len(w.path)-1].v
	w.path = w.path[:len(w.path)-1]
	if g.flags[v]&inner != 0 {
		w.waiting = append(w.waiting, v)
		return
	}
	from := len(w.waiting)
	for from > 0 && g.Part[v] <= g.Part[w.waiting[from-1]] {
		from--
	}
	whole := len(g.Order)
	g.Order = append(append(g.Order, v), w.waiting[from:]...)
	w.waiting = w.waiting[:from]
	for _, m := range g.Order[whole:] {
		g.Part[m] = w.part
	}
	w.part--
	g.settle(g.Order[whole:])
}

// settle gives the paths of a cycle, which mostly is one path, what they have of
// themselves and of their referrers.
func (g *Graph) settle(cycle []uint32) {
	is, used, depth := uint8(0), uint32(0), uint32(0)
	for _, v := range cycle {
		is, used = is|g.flags[v], max(used, g.Used[v])
		for i := uint32(0); ; i++ {
			r, ok := g.referrer(v, i)
			if !ok {
				break
			}
			is, used = is|g.flags[r]&kept, max(used, g.Used[r])
			if g.Part[r] != g.Part[cycle[0]] {
				depth = max(depth, g.Depth[r]+1)
			}
		}
	}
	if is&named != 0 {
		is |= kept
	}
	for _, v := range cycle {
		g.flags[v] = g.flags[v]&^inner | is&kept
		g.Used[v], g.Depth[v] = used, depth
	}
}
