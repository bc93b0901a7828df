// Package scope is the grammar of rights: what somebody may do, and what a request needs.
//
// A scope is one right, written as a word, and with most words a channel glob after it:
//
//	pull  push  metrics  admin
//	promote:<channel>[/<target>[:test]]
//	follow:<channel>  join:<channel>  read:<channel>
//	operate[:<channel>]  reboot:<group>
//
// A glob is a name in which `*` stands for any run of characters: of a channel
// ([a-z0-9][a-z0-9._-]*), or of a target (letters, digits and . _ : -). A target that itself ends
// in ":test" is written with a * for its last letter.
//
// Implied are:
//
//   - admin allows everything;
//   - push, promote, follow and join imply pull: a stock `nix copy` reads narinfos before it writes,
//     a promoter computes its release from what the cache has, a follower fetches it, and a new host
//     fetches its agent before it can join;
//   - promote and operate imply read of the same channels: who changes hosts has to know what came
//     of it;
//   - operate alone is operate of all channels, and pins, budgets and what else belongs to none.
//
// The group of reboot is one of reboot slots, and has the grammar of a channel's name, which it often
// is. It implies nothing.
//
// operate, read and metrics do not imply pull: who only stops roll-outs needs no closures.
package scope

import (
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
	Promote                 // write the channels that the glob matches, or targets of them
	Follow                  // be a host of them: desired, status, log, as itself
	Join                    // become a host of them: a join token has this alone
	Operate                 // their hosts, policies, roll-outs; without a glob pins and budgets too
	Read                    // look at their hosts, events, logs
	Reboot                  // take and give back reboot slots of the groups that the glob matches, by FleetLock
	Metrics                 // /metrics
	Admin                   // the rest, and all of the above
)

var kindNames = [...]string{Pull: "pull", Push: "push", Promote: "promote", Follow: "follow", Join: "join", Operate: "operate", Read: "read", Reboot: "reboot", Metrics: "metrics", Admin: "admin"}

// Valid lists what a person may write. Join is left out: join tokens are made another way.
const Valid = "pull, push, promote:<channel glob>[/<target glob>[:test]], follow:<channel glob>, operate[:<channel glob>], read:<channel glob>, reboot:<group glob>, metrics, admin"

// MaxGlob bounds a glob, and so the names that one can mean, in bytes.
const MaxGlob = 128

// String returns the word of the kind, "kind(N)" for one that does not exist.
func (k Kind) String() string {
	if !k.exists() {
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
	return kindNames[k]
}

func (k Kind) exists() bool { return k >= Pull && k <= Admin }

// hasGlob reports whether scopes of the kind have a channel glob, which operate may lack.
func (k Kind) hasGlob() bool {
	return k == Promote || k == Follow || k == Join || k == Operate || k == Read || k == Reboot
}

// Scope is one right. As a grant, Glob is a channel glob; as a need it is the name of the
// one channel in question (or a glob: all that it matches). The same holds for Target.
type Scope struct {
	Kind   Kind
	Glob   string
	Target string // of Promote: only releases that change no other targets; "" is any release
	Test   bool   // of a Target: only with the action test
}

// testSuffix says in a scope that a target is only tested.
const testSuffix = ":test"

// Parse reads one scope as [Scope.String] writes it, without leniency. The error
// lists what would be valid.
func Parse(s string) (Scope, error) {
	word, rest, colon := strings.Cut(s, ":")
	kind := Kind(max(0, slices.Index(kindNames[:], word))) // index 0 is "", no kind
	scope := Scope{Kind: kind, Glob: rest}
	switch {
	case !kind.exists():
		return Scope{}, fmt.Errorf("scope %s is not one of %s", Quote(s), Valid)
	case !kind.hasGlob() && colon:
		return Scope{}, fmt.Errorf("scope %s: %s takes no channel, write it alone; valid are %s", Quote(s), word, Valid)
	case kind == Operate && !colon, !kind.hasGlob():
		return Scope{Kind: kind}, nil
	case rest == "":
		return Scope{}, fmt.Errorf("scope %s lacks a channel: write %s:* for all channels, or %[2]s:web for one", Quote(s), word)
	}
	if kind == Promote {
		var slash bool
		if scope.Glob, rest, slash = strings.Cut(rest, "/"); slash {
			scope.Target, scope.Test = strings.CutSuffix(rest, testSuffix)
			if err := checkTarget(scope.Target); err != nil {
				return Scope{}, fmt.Errorf("scope %s: %w", Quote(s), err)
			}
		}
	}
	if err := checkGlob(scope.Glob); err != nil {
		return Scope{}, fmt.Errorf("scope %s: %w", Quote(s), err)
	}
	return scope, nil
}

// String writes the scope as [Parse] reads it: "pull", "promote:prod/web-1:test".
func (s Scope) String() string {
	text := s.Kind.String()
	if s.Kind.hasGlob() && (s.Kind != Operate || s.Glob != "") {
		text += ":" + s.Glob
	}
	if s.Target != "" {
		text += "/" + s.Target
	}
	if s.Test {
		text += testSuffix
	}
	return text
}

// Check returns an error for what Parse would not return.
func (s Scope) Check() error {
	if again, err := Parse(s.String()); err != nil || again != s {
		return fmt.Errorf("scope %s is not one of %s", Quote(s.String()), Valid)
	}
	return nil
}

// MarshalText is String for JSON and TOML; a Scope that Parse would not
// return is an error.
func (s Scope) MarshalText() ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("write scope: %w", err)
	}
	return []byte(s.String()), nil
}

// UnmarshalText is Parse for JSON and TOML.
func (s *Scope) UnmarshalText(text []byte) (err error) {
	*s, err = Parse(string(text))
	return err
}

// Named reports whether a need is one that could be met: what it is about has a name.
func (s Scope) Named() bool {
	switch {
	case !s.Kind.exists(), s.Kind != Promote && s.Target != "", s.Test && s.Target == "":
		return false
	case !s.Kind.hasGlob(), s.Kind == Operate && s.Glob == "":
		return s.Glob == ""
	}
	return checkGlob(s.Glob) == nil && (s.Target == "" || checkTarget(s.Target) == nil)
}

// allows reports whether the single grant s meets need.
func (s Scope) allows(need Scope) bool {
	if !s.Named() {
		return false
	}
	switch {
	case s.Kind == Admin:
		// Whatever channel it is about: that a name is no name is for the
		// handler to say, not "forbidden".
		return need.Kind.exists()
	case !need.Named():
		return false
	case s.Kind == need.Kind:
		return s.coversChannel(need) && s.coversTarget(need)
	case need.Kind == Pull:
		return s.Kind == Push || s.Kind == Promote || s.Kind == Follow || s.Kind == Join
	case need.Kind == Read:
		return (s.Kind == Promote || s.Kind == Operate) && s.coversChannel(need)
	}
	return false
}

func (s Scope) coversChannel(need Scope) bool {
	return s.Glob == "" || need.Glob != "" && match(s.Glob, need.Glob)
}

func (s Scope) coversTarget(need Scope) bool {
	return s.Target == "" || need.Target != "" && match(s.Target, need.Target) && (need.Test || !s.Test)
}

var (
	globGrammar   = regexp.MustCompile(`^[a-z0-9*][a-z0-9*._-]*$`)
	targetGrammar = regexp.MustCompile(`^[a-zA-Z0-9*][a-zA-Z0-9*._:-]*$`)
)

func checkGlob(glob string) error {
	switch {
	case glob == "" || len(glob) > MaxGlob:
		return fmt.Errorf("a channel has 1 to %d characters", MaxGlob)
	case strings.HasSuffix(glob, testSuffix):
		return fmt.Errorf("%s stands after targets: promote:%s/web-1%[1]s", testSuffix, strings.TrimSuffix(glob, testSuffix))
	case !globGrammar.MatchString(glob) || strings.Contains(glob, "**"):
		return fmt.Errorf("%s is no channel glob: a-z and 0-9, then also . _ -, and single * for any run of characters", Quote(glob))
	}
	return nil
}

func checkTarget(glob string) error {
	switch {
	case glob == "" || len(glob) > MaxGlob:
		return fmt.Errorf("a target has 1 to %d characters: promote:prod/web-1, or promote:prod/web-*", MaxGlob)
	case !targetGrammar.MatchString(glob) || strings.Contains(glob, "**"):
		return fmt.Errorf("%s is no target glob: letters and digits, then also . _ : -, and single * for any run of characters", Quote(glob))
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

// Quote quotes what a person typed, cut to a length that fits a line. Of a token
// pasted in the wrong place nothing after its public id is shown.
func Quote(s string) string {
	const public = len("nwt_") + 10
	if i := strings.Index(s, "nwt_"); i >= 0 && len(s) > i+public {
		s = s[:i+public] + "…"
	}
	return clip.Quote(s, 56)
}
