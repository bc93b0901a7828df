package scope

import (
	"cmp"
	"slices"
	"strings"
)

// Set is what somebody may do: the union of its elements.
type Set []Scope

// ParseSet reads the values of a repeatable flag or a list in the configuration; each
// may hold several scopes separated by commas, with spaces around them. The result is
// sorted and without duplicates.
func ParseSet(values []string) (Set, error) {
	var set Set
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			scope, err := Parse(strings.Trim(part, " "))
			if err != nil {
				return nil, err
			}
			set = append(set, scope)
		}
	}
	return set.Union(nil), nil
}

// Allows reports whether one of the scopes meets need. A need that is a glob is met only
// by a scope that covers all of it, one without a kind by nobody, one whose channel is no
// channel name only by admin.
func (s Set) Allows(need Scope) bool {
	for i := range s {
		if s[i].allows(need) {
			return true
		}
	}
	return false
}

// Some returns a need of a kind that the scopes meet, for whatever channel and targets.
func (s Set) Some(kind Kind) (need Scope, ok bool) {
	for _, have := range s {
		need = Scope{Kind: kind}
		if kind.hasGlob() {
			need.Glob = cmp.Or(have.Glob, "*")
		}
		if kind == Promote {
			need.Target, need.Test = have.Target, have.Test
		}
		if have.allows(need) {
			return need, true
		}
	}
	return Scope{}, false
}

// Part returns a need for targets of a channel that the scopes meet, where they do not meet that for
// all of it.
func (s Set) Part(whole Scope) (need Scope, ok bool) {
	for _, have := range s {
		if need = whole; have.Kind == need.Kind && have.Target != "" {
			need.Target, need.Test = have.Target, have.Test
			if have.allows(need) && !s.Allows(whole) {
				return need, true
			}
		}
	}
	return Scope{}, false
}

// String is as ParseSet reads it.
func (s Set) String() string {
	words := make([]string, len(s))
	for i, scope := range s {
		words[i] = scope.String()
	}
	return strings.Join(words, ",")
}

// Union returns a new set, sorted and without duplicates; nil if it is empty.
func (s Set) Union(other Set) Set {
	all := slices.Concat(s, other)
	slices.SortFunc(all, compare)
	return slices.Compact(all)
}

func compare(a, b Scope) int {
	order := cmp.Or(cmp.Compare(a.Kind, b.Kind), strings.Compare(a.Glob, b.Glob), strings.Compare(a.Target, b.Target))
	switch {
	case order == 0 && !a.Test && b.Test:
		return -1
	case order == 0 && a.Test && !b.Test:
		return 1
	}
	return order
}

// Check returns an error for the first scope that Parse would not return.
func (s Set) Check() error {
	for _, scope := range s {
		if err := scope.Check(); err != nil {
			return err
		}
	}
	return nil
}
