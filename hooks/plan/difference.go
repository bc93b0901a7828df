package plan

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"narwharf/hooks/api/plan"
	"narwharf/signing"
)

// Between says what one release has that another has not, by target. manifest is that of an entry, nil if
// it is not here. Only so much is looked at as there is time for, and as an answer holds.
func Between(ctx context.Context, before, after []signing.Entry, manifest func(e *signing.Entry) *signing.Manifest) (changes []plan.Change, unchanged, more int) {
	pairs := pairsOf(before, after)
	for _, p := range pairs {
		switch {
		case p.same():
			unchanged += len(p.targets)
		case len(changes) == plan.MaxChanges || ctx.Err() != nil:
			more++
		default:
			changes = append(changes, p.change(manifest))
		}
	}
	if changes == nil {
		changes = []plan.Change{}
	}
	return changes, unchanged, more
}

// A pair is what some targets had and have; nil is nothing.
type pair struct {
	was, is *signing.Entry
	targets []string
}

func (p *pair) same() bool {
	return p.was != nil && p.is != nil && p.was.StorePath == p.is.StorePath && p.was.Closure == p.is.Closure && p.was.Action == p.is.Action
}

// pairsOf puts targets together that go from one system to the same other, those of the most targets first.
func pairsOf(before, after []signing.Entry) (pairs []*pair) {
	was, is := byTarget(before), byTarget(after)
	by := make(map[string]*pair)
	key := func(e *signing.Entry) string {
		if e == nil {
			return ""
		}
		return e.StorePath + " " + e.Closure.String() + " " + string(e.Action)
	}
	add := func(target string) {
		k := key(was[target]) + "\n" + key(is[target])
		p := by[k]
		if p == nil {
			p = &pair{was: was[target], is: is[target]}
			by[k], pairs = p, append(pairs, p)
		}
		p.targets = append(p.targets, target)
	}
	for i := range after {
		add(after[i].Target)
	}
	for i := range before {
		if is[before[i].Target] == nil {
			add(before[i].Target)
		}
	}
	slices.SortStableFunc(pairs, func(a, b *pair) int {
		return cmp.Or(cmp.Compare(len(b.targets), len(a.targets)), strings.Compare(a.targets[0], b.targets[0]))
	})
	return pairs
}

func byTarget(entries []signing.Entry) map[string]*signing.Entry {
	all := make(map[string]*signing.Entry, len(entries))
	for i := range entries {
		all[entries[i].Target] = &entries[i]
	}
	return all
}

func (p *pair) change(manifest func(e *signing.Entry) *signing.Manifest) plan.Change {
	slices.Sort(p.targets)
	c := plan.Change{Count: len(p.targets), Targets: p.targets[:min(len(p.targets), plan.MaxTargets)], Packages: []plan.Package{}}
	var before, after *signing.Manifest
	if p.was != nil {
		c.Before, before = p.was.StorePath, manifest(p.was)
		c.Was = total(before)
	}
	if p.is != nil {
		c.After, c.Action, after = p.is.StorePath, string(p.is.Action), manifest(p.is)
		c.Is = total(after)
	}
	if c.Unknown = p.was != nil && before == nil || p.is != nil && after == nil; c.Unknown {
		return c
	}
	if after != nil {
		c.FetchPaths, c.Fetch = fetch(before, after)
	}
	if before != nil && after != nil { // else all of it is new, or gone
		list := packages(before, after)
		c.More = max(len(list)-plan.MaxPackages, 0)
		c.Packages = append(c.Packages, list[:len(list)-c.More]...)
	}
	return c
}

// total is the size of a closure.
func total(m *signing.Manifest) (bytes int64) {
	if m != nil {
		for _, l := range m.Lines {
			bytes += l.NarSize
		}
	}
	return bytes
}
