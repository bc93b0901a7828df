// Package limits is what people set for the roll-outs of all channels: budgets, holds, and
// the freeze.
package limits

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/rows"
)

// Change is what somebody wants to be another.
type Change struct {
	Apply func(l *rollout.Limits)
	Put   func(tx *mirror.Tx) // stores it, with a line in the audit log
}

// maxNamed is how many budgets there may be, and holds.
const maxNamed = 100

var nameGrammar = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$`)

// check looks at the name of what is set, or taken away.
func check(what, name string, is, gone bool, n int) error {
	switch {
	case gone && !is:
		return api.Errorf(api.NotFound, "there is no %s %s", what, name)
	case !nameGrammar.MatchString(name):
		return api.Errorf(api.Invalid, "%q is no name of a %s: 1 to 64 of a-z A-Z 0-9 . _ -, the first a letter or digit", name, what)
	case !is && n >= maxNamed:
		return api.Errorf(api.Invalid, "there are %d %ss, and no more may be: remove one", n, what)
	}
	return nil
}

func kind(noun string, gone bool) string {
	if gone {
		return noun + ".removed"
	}
	return noun + ".set"
}

// Budget sets one, or takes it away if b is nil.
func Budget(r *rows.Rows, name string, b *rollout.Budget, by string) (*Change, error) {
	all := r.Budgets.All()
	if err := check("budget", name, all[name] != nil, b == nil, len(all)); err != nil {
		return nil, err
	}
	text := fmt.Sprintf("the budget %s is taken away", name)
	if b != nil {
		text = fmt.Sprintf("the budget %s lets %s of the hosts %q be unavailable", name, b.MaxUnavailable, b.Select)
	}
	return &Change{
		Apply: func(l *rollout.Limits) {
			if delete(l.Budgets, name); b != nil {
				l.Budgets[name] = *b
			}
		},
		Put: func(tx *mirror.Tx) {
			r.Budgets.Put(tx, name, b)
			audit.Note(tx, api.Event{Kind: kind("budget", b == nil), By: by, Text: text})
		},
	}, nil
}

// Hold sets one, or takes it away if h is nil.
func Hold(r *rows.Rows, name string, h *rollout.Hold, by string) (*Change, error) {
	all := r.Holds.All()
	if err := check("hold", name, all[name] != nil, h == nil, len(all)); err != nil {
		return nil, err
	}
	text := fmt.Sprintf("the hold %s is taken away", name)
	if h != nil {
		if h.By = by; strings.TrimSpace(h.Reason) == "" {
			return nil, api.Errorf(api.Invalid, "a hold needs a reason: people will ask")
		}
		text = fmt.Sprintf("the hold %s keeps the hosts %q where they are: %s", name, h.Select, h.Reason)
	}
	return &Change{
		Apply: func(l *rollout.Limits) {
			if delete(l.Holds, name); h != nil {
				l.Holds[name] = *h
			}
		},
		Put: func(tx *mirror.Tx) {
			r.Holds.Put(tx, name, h)
			audit.Note(tx, api.Event{Kind: kind("hold", h == nil), By: by, Text: text})
		},
	}, nil
}

// Freeze lets nobody begin with anything; nil ends that.
func Freeze(r *rows.Rows, h *rollout.Hold, by string) (*Change, error) {
	e := api.Event{Kind: "freeze.off", By: by, Text: "the freeze is over"}
	switch {
	case h == nil && r.Freeze() == nil:
		return nil, api.Errorf(api.NotFound, "there is no freeze")
	case h == nil:
	case strings.TrimSpace(h.Reason) == "":
		return nil, api.Errorf(api.Invalid, "a freeze needs a reason: people will ask")
	default:
		h.By = by
		e.Kind, e.Text = "freeze.on", "no host begins with anything: "+h.Reason
	}
	return &Change{
		Apply: func(l *rollout.Limits) { l.Freeze = h },
		Put: func(tx *mirror.Tx) {
			r.SetFreeze(tx, h)
			audit.Note(tx, e)
		},
	}, nil
}

// Now is all that is set and has not ended by itself.
func Now(r *rows.Rows, now time.Time) rollout.Limits {
	l := r.Limits()
	maps.DeleteFunc(l.Holds, func(_ string, h rollout.Hold) bool { return !h.On(now) })
	if l.Freeze != nil && !l.Freeze.On(now) {
		l.Freeze = nil
	}
	return l
}

// Frozen is the freeze, nil if there is none now.
func Frozen(r *rows.Rows, now time.Time) *rollout.Hold {
	if f := r.Freeze(); f != nil && f.On(now) {
		return f
	}
	return nil
}

// Held is the hold that is on a host with some labels, nil for none.
func Held(r *rows.Rows, labels map[string]string, now time.Time) *rollout.Hold {
	all := r.Holds.All()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if h := all[name]; h.On(now) && h.Select.Matches(labels) {
			return h
		}
	}
	return nil
}
