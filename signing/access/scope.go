package access

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"narwharf/narinfo/clip"
)

// Kind is the verb of a scope. The zero Kind is none: it grants nothing and, as a
// need, is never met, so a route that forgot to name its scope is closed.
type Kind uint8

// The kinds, in the order in which scopes are sorted.
const (
	Pull    Kind = iota + 1 // read the cache, channels, store paths, closure manifests
	Push                    // upload to the cache
	Promote                 // promote:<glob>, write the channels that the glob matches
	Follow                  // follow:<glob>, be a host of them: desired, status, log, as itself
	Join                    // join:<glob>, become a host of them: a join token has this alone
	Operate                 // hosts, roll-outs, pins
	Metrics                 // /metrics
	Admin                   // the rest, and all of the above
)

var kindNames = [...]string{Pull: "pull", Push: "push", Promote: "promote", Follow: "follow", Join: "join", Operate: "operate", Metrics: "metrics", Admin: "admin"}

const validScopes = "pull, push, promote:<channel glob>, follow:<channel glob>, operate, metrics, admin"

// maxGlob bounds a glob or channel name, in bytes.
const maxGlob = 128

// String returns the word of the kind, "kind(N)" for one that does not exist.
func (k Kind) String() string {
	if k < Pull || k > Admin {
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
	return kindNames[k]
}

func (k Kind) hasGlob() bool { return k == Promote || k == Follow || k == Join }

// Scope is one right. As a grant, Glob is a channel glob; as a need it is the name of the
// one channel in question (or a glob: all that it matches). Most kinds have none.
type Scope struct {
	Kind Kind
	Glob string
}

// ParseScope reads one scope as [Scope.String] writes it, without leniency. The error
// lists what would be valid.
func ParseScope(s string) (Scope, error) {
	word, glob, colon := strings.Cut(s, ":")
	kind := Kind(slices.Index(kindNames[:], word)) // index 0 is "", no kind
	switch {
	case kind < Pull || kind > Admin:
		return Scope{}, fmt.Errorf("scope %s is not one of %s", quote(s), validScopes)
	case kind.hasGlob() && glob == "":
		return Scope{}, fmt.Errorf("scope %s lacks a channel: write %s:* for all channels, or %[2]s:web for one", quote(s), word)
	case kind.hasGlob():
		if err := checkGlob(glob); err != nil {
			return Scope{}, fmt.Errorf("scope %s: %w", quote(s), err)
		}
	case colon:
		return Scope{}, fmt.Errorf("scope %s: %s takes no channel, write it alone; valid are %s", quote(s), word, validScopes)
	}
	return Scope{Kind: kind, Glob: glob}, nil
}

// String writes the scope as [ParseScope] reads it: "pull", "promote:web-*".
func (s Scope) String() string {
	if s.Kind.hasGlob() {
		return s.Kind.String() + ":" + s.Glob
	}
	return s.Kind.String()
}

// MarshalText is String for JSON and TOML; a Scope that ParseScope would not
// return is an error.
func (s Scope) MarshalText() ([]byte, error) {
	if !s.valid() {
		return nil, fmt.Errorf("write scope: %s is not one of %s", quote(s.String()), validScopes)
	}
	return []byte(s.String()), nil
}

// UnmarshalText is ParseScope for JSON and TOML.
func (s *Scope) UnmarshalText(text []byte) (err error) {
	*s, err = ParseScope(string(text))
	return err
}

func (s Scope) valid() bool {
	if s.Kind.hasGlob() {
		return checkGlob(s.Glob) == nil
	}
	return s.Kind >= Pull && s.Kind <= Admin && s.Glob == ""
}

// allows reports whether the single grant s meets need.
func (s Scope) allows(need Scope) bool {
	if !s.valid() {
		return false
	}
	switch {
	case s.Kind == Admin:
		// Whatever channel it is about: that a name is no name is for the
		// handler to say, not "forbidden".
		return need.Kind >= Pull && need.Kind <= Admin
	case !need.valid():
		return false
	case s.Kind == need.Kind:
		return !s.Kind.hasGlob() || match(s.Glob, need.Glob)
	case need.Kind == Pull:
		return s.Kind == Push || s.Kind == Promote || s.Kind == Follow || s.Kind == Join
	}
	return false
}

// Scopes is what somebody may do: the union of its elements.
type Scopes []Scope

// ParseScopes reads the values of a repeatable flag or a list in the configuration; each
// may hold several scopes separated by commas, with spaces around them. The result is
// sorted and without duplicates.
func ParseScopes(values []string) (Scopes, error) {
	var scopes Scopes
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			scope, err := ParseScope(strings.Trim(part, " "))
			if err != nil {
				return nil, err
			}
			scopes = append(scopes, scope)
		}
	}
	return scopes.union(nil), nil
}

// Allows reports whether one of the scopes meets need. A need that is a glob is met only
// by a scope that covers all of it, one without a kind by nobody, one whose channel is no
// channel name only by admin.
func (s Scopes) Allows(need Scope) bool {
	return slices.ContainsFunc(s, func(have Scope) bool { return have.allows(need) })
}

// String is as ParseScopes reads it.
func (s Scopes) String() string {
	words := make([]string, len(s))
	for i, scope := range s {
		words[i] = scope.String()
	}
	return strings.Join(words, ",")
}

// union returns a new slice, sorted and without duplicates; nil if it is empty.
func (s Scopes) union(other Scopes) Scopes {
	all := slices.Concat(s, other)
	slices.SortFunc(all, func(a, b Scope) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), strings.Compare(a.Glob, b.Glob))
	})
	return slices.Compact(all)
}

// check returns an error for the first scope that ParseScope would not return.
func (s Scopes) check() error {
	for _, scope := range s {
		if !scope.valid() {
			return fmt.Errorf("scope %s is not one of %s", quote(scope.String()), validScopes)
		}
	}
	return nil
}

var globGrammar = regexp.MustCompile(`^[a-z0-9*][a-z0-9*._-]*$`)

func checkGlob(glob string) error {
	switch {
	case glob == "" || len(glob) > maxGlob:
		return fmt.Errorf("a channel has 1 to %d characters", maxGlob)
	case !globGrammar.MatchString(glob) || strings.Contains(glob, "**"):
		return fmt.Errorf("%s is no channel glob: a-z and 0-9, then also . _ -, and single * for any run of characters", quote(glob))
	}
	return nil
}

// match reports whether a glob matches all of name. A * in name is a byte like any
// other that only a * of glob can take; so where name is itself a glob, a match means
// that glob covers everything name does. Neither has anything else that is special to
// path.Match.
func match(glob, name string) bool {
	ok, err := path.Match(glob, name)
	return ok && err == nil
}

// quote quotes what a person typed, cut to a length that fits a line. Of a token
// pasted in the wrong place nothing after the id is shown.
func quote(s string) string {
	if i := strings.Index(s, secretPrefix); i >= 0 && len(s) > i+len(secretPrefix)+idLen {
		s = s[:i+len(secretPrefix)+idLen] + "…"
	}
	return clip.Quote(s, 56)
}
