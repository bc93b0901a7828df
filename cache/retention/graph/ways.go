package graph

// Chains returns, for each root that reaches a path, a shortest way from it.
func (g *Graph) Chains(target uint32) (all [][]uint32) {
	next := map[uint32]uint32{target: target} // on the way to the target
	queue := []uint32{target}
	for len(queue) > 0 {
		v := queue[0]
		queue = queue[1:]
		if g.flags[v]&named != 0 {
			chain := []uint32{v}
			for w := v; w != target; {
				w = next[w]
				chain = append(chain, w)
			}
			all = append(all, chain)
		}
		for i := uint32(0); ; i++ {
			r, ok := g.referrer(v, i)
			if !ok {
				break
			}
			if _, seen := next[r]; !seen && g.flags[r]&kept != 0 {
				next[r] = v
				queue = append(queue, r)
			}
		}
	}
	return all
}

// SpreadFrom calls gain(v, r) for each path and each of its referrers, in an order in
// which what a path gains from its referrers is what they have gained themselves. Within
// a cycle all get what one has.
func (g *Graph) SpreadFrom(gain func(v, r uint32)) {
	for from := 0; from < len(g.Order); {
		to := from
		for ; to < len(g.Order) && g.Part[g.Order[to]] == g.Part[g.Order[from]]; to++ {
			first := g.Order[from]
			gain(first, g.Order[to])
			for i := uint32(0); ; i++ {
				r, ok := g.referrer(g.Order[to], i)
				if !ok {
					break
				}
				if g.Part[r] != g.Part[first] {
					gain(first, r)
				}
			}
		}
		for _, v := range g.Order[from:to] {
			gain(v, g.Order[from])
		}
		from = to
	}
}
