package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Selector picks hosts by their labels. As text it is a list of conditions that must
// all hold: "site=fra,role!=db,canary,!old". A name alone is that the label is there.
// No condition picks every host.
type Selector struct {
	conditions []condition
}

type condition struct {
	name, value string
	not         bool // name != value, or no such label
	there       bool // about the label alone
}

var nameGrammar = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._/-]{0,62}$`)

const maxConditions = 10

// ParseSelector reads the text form.
func ParseSelector(text string) (s Selector, err error) {
	if strings.TrimSpace(text) == "" {
		return s, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		c := condition{}
		name, value, equals := strings.Cut(strings.TrimSpace(part), "=")
		c.name, c.value, c.there = name, value, !equals
		if equals {
			c.name, c.not = strings.CutSuffix(name, "!")
		} else {
			c.name, c.not = strings.CutPrefix(name, "!")
		}
		if !nameGrammar.MatchString(c.name) || len(c.value) > 256 || strings.ContainsAny(c.value, "=!\x00\n") {
			return Selector{}, fmt.Errorf("%q of the selector %q is none of label=value, label!=value, label, !label", part, text)
		}
		s.conditions = append(s.conditions, c)
	}
	if len(s.conditions) > maxConditions {
		return Selector{}, fmt.Errorf("the selector %q has more than %d conditions", text, maxConditions)
	}
	return s, nil
}

// MustSelect is ParseSelector of a text that is right.
func MustSelect(text string) Selector {
	s, err := ParseSelector(text)
	if err != nil {
		panic(err)
	}
	return s
}

// Any tells whether it picks every host.
func (s Selector) Any() bool { return len(s.conditions) == 0 }

// IsZero is Any, for JSON.
func (s Selector) IsZero() bool { return s.Any() }

// Matches tells whether it picks a host with these labels.
func (s Selector) Matches(labels map[string]string) bool {
	for _, c := range s.conditions {
		value, there := labels[c.name]
		if holds := there && (c.there || value == c.value); holds == c.not {
			return false
		}
	}
	return true
}

// String is the text form.
func (s Selector) String() string {
	var parts []string
	for _, c := range s.conditions {
		switch {
		case c.there && c.not:
			parts = append(parts, "!"+c.name)
		case c.there:
			parts = append(parts, c.name)
		case c.not:
			parts = append(parts, c.name+"!="+c.value)
		default:
			parts = append(parts, c.name+"="+c.value)
		}
	}
	return strings.Join(parts, ",")
}

// UnmarshalText reads the text form.
func (s *Selector) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSelector(string(text))
	return err
}

// MarshalJSON writes the text form.
func (s Selector) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// excludes tells whether no host can have both conditions.
func (c condition) excludes(d condition) bool {
	if c.name != d.name {
		return false
	}
	switch {
	case !c.not && !d.not:
		return !c.there && !d.there && c.value != d.value
	case c.not && d.not:
		return false
	case c.not:
		c, d = d, c
	}
	// c wants the label, d does not: without any value, or without this one.
	return d.there || !c.there && c.value == d.value
}

// Meets tells whether some host might be picked by both.
func (s Selector) Meets(o Selector) bool {
	for _, c := range s.conditions {
		if slices.ContainsFunc(o.conditions, c.excludes) {
			return false
		}
	}
	return true
}

// checkAfter refuses rules by which hosts would wait for themselves. Two selectors
// that might pick the same host count as if they did.
func (r *Rollout) checkAfter() error {
	if len(r.After) > maxAfter {
		return fmt.Errorf("%d rules of after are more than %d", len(r.After), maxAfter)
	}
	for i, a := range r.After {
		switch {
		case a.First.Any() || a.Then.Any():
			return fmt.Errorf("after %d: first and then have to pick some hosts and not all", i+1)
		case a.First.Meets(a.Then):
			return fmt.Errorf("after %d: a host may be picked by both %q and %q, and would wait for itself; make them exclude each other, as %q", i+1, a.First, a.Then, a.Then.String()+","+negated(a.First))
		}
	}
	const open, done = 1, 2
	seen := make([]int, len(r.After))
	var circle func(i int, path []string) error
	circle = func(i int, path []string) error {
		path = append(path, fmt.Sprintf("%q before %q", r.After[i].First, r.After[i].Then))
		switch seen[i] {
		case open:
			return fmt.Errorf("after is a circle: %s", strings.Join(path, ", "))
		case done:
			return nil
		}
		seen[i] = open
		for j := range r.After {
			if r.After[i].Then.Meets(r.After[j].First) {
				if err := circle(j, path); err != nil {
					return err
				}
			}
		}
		seen[i] = done
		return nil
	}
	for i := range r.After {
		if err := circle(i, nil); err != nil {
			return err
		}
	}
	return nil
}

func negated(s Selector) string {
	c := s.conditions[0]
	c.not = !c.not
	return Selector{[]condition{c}}.String()
}

// Nobody lists, in words, the selectors of a policy that pick none of some hosts, of
// which it is given the labels.
func (p *Policy) Nobody(hosts []map[string]string) (words []string) {
	if p.Rollout == nil {
		return nil
	}
	look := func(where string, s Selector) {
		if !slices.ContainsFunc(hosts, s.Matches) {
			words = append(words, fmt.Sprintf("%s: no host is picked by %q%s", where, s, s.near(hosts)))
		}
	}
	for i, w := range p.Rollout.Waves {
		look(p.Rollout.WaveText(i), w.Select)
	}
	for i, a := range p.Rollout.After {
		look(fmt.Sprintf("after %d, first", i+1), a.First)
		look(fmt.Sprintf("after %d, then", i+1), a.Then)
	}
	return words
}

// near says which values the labels have that a selector asks for.
func (s Selector) near(hosts []map[string]string) string {
	var parts []string
	for _, c := range s.conditions {
		values := make(map[string]bool)
		for _, labels := range hosts {
			if v, ok := labels[c.name]; ok {
				values[v] = true
			}
		}
		some := slices.Sorted(maps.Keys(values))
		if len(some) == 0 {
			parts = append(parts, "no host has the label "+c.name)
		} else {
			parts = append(parts, fmt.Sprintf("%s is %s", c.name, strings.Join(some[:min(len(some), 5)], ", ")))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, "; ") + ")"
}
