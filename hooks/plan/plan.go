// Package plan tells beforehand what a release would do to the hosts of a channel: what each
// fetches, which packages become others, whether it reboots and for what, and in which wave.
//
// It reads closures as the cache has them, and what hosts reported last; it decides nothing and
// changes nothing. Hosts that go from one system to the same other are looked at once, and what is
// looked at has a bound in number and in time (package hooks/api/plan).
package plan

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/plan"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/policy"
	"narwharf/narinfo"
	"narwharf/narinfo/clip"
	"narwharf/signing"
)

// Closures reads closures of the cache.
type Closures interface {
	// Manifest is the closure of a path; lost are paths of it that are not here, and then
	// there is none.
	Manifest(root narinfo.Path) (m *signing.Manifest, lost []narinfo.Path, err error)
	// Files are small files of a path, and what links point at; names that are missing are not
	// in the result.
	Files(root narinfo.Path, names []string, limit int64) (map[string][]byte, error)
}

// Ask is what is asked about.
type Ask struct {
	Channel string
	From    int64  // the channel's release now
	Seq     int64  // of the release, 0 for one that was not made
	To      string // the path that was named, "" for a release
	Entries []signing.Entry
	Back    bool            // the release goes back
	Hosts   []api.Host      // of the channel
	Policy  *policy.Rollout // nil: everyone at once
	// Held says why a host with some labels is held by a rule, "" if it is not, and Quarantined
	// why a system is given to nobody. Frozen is why no host begins with anything.
	Held        func(labels map[string]string) string
	Quarantined func(path string) string
	Frozen      string
	ByHand      bool // the policy has no reboot_slots
}

// maxTime is how long closures are read at most.
const maxTime = 20 * time.Second

// Of answers it.
func Of(ctx context.Context, ask *Ask, closures Closures) (*plan.Plan, error) {
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	p := &plan.Plan{Channel: ask.Channel, From: ask.From, Seq: ask.Seq, To: ask.To, Waved: ask.Policy != nil, Frozen: ask.Frozen, ByHand: ask.ByHand, Hosts: len(ask.Hosts), Steps: []plan.Step{}, List: []plan.Host{}}
	changing := ask.sort(p)
	steps := stepsOf(changing)
	if err := look(ctx, closures, steps); err != nil {
		return nil, err
	}
	for _, s := range steps {
		if ask.Quarantined != nil {
			s.Quarantined = ask.Quarantined(s.To)
		}
		if s.Quarantined != "" {
			p.Quarantined += s.Hosts
		}
		if s.Reboot {
			p.Reboots += s.Hosts
		}
		if !s.looked {
			p.MoreSteps++
			continue
		}
		if s.Missing > 0 && p.Refused == nil {
			p.Refused = &plan.Refusal{Kind: string(api.ClosureIncomplete), Message: fmt.Sprintf("the closure of %s is not complete in this cache any more: it lacks %s", s.To, clip.Count(s.Missing, "path"))}
		}
		s.at = len(p.Steps)
		p.Fetch += s.Fetch * int64(s.Hosts)
		p.Steps = append(p.Steps, s.Step)
	}
	ask.waves(p, changing)
	ask.list(p, changing)
	return p, nil
}

// changing is a host that has to change.
type changing struct {
	*api.Host
	entry *signing.Entry
	step  *step
	wave  int
	held  string
}

// sort counts hosts, and returns those that have to change.
func (a *Ask) sort(p *plan.Plan) (list []*changing) {
	for i := range a.Hosts {
		h := &a.Hosts[i]
		if h.Status == nil {
			p.Silent++
			continue
		}
		e := a.entry(h.Status.Target)
		if e == nil {
			p.NotInRelease++
			continue
		}
		want := rollout.Entry{Path: e.StorePath, Action: string(e.Action)}
		if !want.Changes(&rollout.Level{Current: h.Status.Current, Profile: h.Status.Profile}) {
			p.Unchanged++
			continue
		}
		c := &changing{Host: h, entry: e}
		if a.Held != nil {
			c.held = a.Held(h.Labels)
		}
		switch {
		case h.Hold != nil:
			c.held = h.Hold.Reason
		case h.Status.Pause != nil:
			c.held = cmp.Or(c.held, "paused on the host: "+h.Status.Pause.Reason)
		}
		p.Changing++
		if !h.Online {
			p.Offline++
		}
		if c.held != "" {
			p.Held++
		}
		list = append(list, c)
	}
	return list
}

func (a *Ask) entry(target string) *signing.Entry {
	if i, ok := signing.Find(a.Entries, target); ok {
		return &a.Entries[i]
	}
	return nil
}

// list is which hosts change.
func (a *Ask) list(p *plan.Plan, all []*changing) {
	slices.SortFunc(all, func(x, y *changing) int {
		return cmp.Or(cmp.Compare(x.wave, y.wave), strings.Compare(x.Host.Host, y.Host.Host))
	})
	for i, c := range all {
		if i == plan.MaxHosts {
			p.MoreHosts = len(all) - i
			break
		}
		at := -1
		if c.step.looked {
			at = c.step.at
		}
		p.List = append(p.List, plan.Host{Host: c.Host.Host, Step: at, Wave: c.wave, Offline: !c.Online, Held: c.held})
	}
}
