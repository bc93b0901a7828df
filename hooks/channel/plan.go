package channel

import (
	"narwharf/hooks/api"
	"narwharf/hooks/closure"
	"narwharf/signing"
)

// plan says what a release changes.
func (c *Channels) plan(now *Snapshot, head *signing.Head, entries []signing.Entry, closures map[signing.Digest]*closure.Closure) *api.Promoted {
	p := &api.Promoted{Channel: now.Name, Seq: head.Seq, Changed: []api.TargetPlan{}, Removed: []string{}}
	type step struct{ from, to signing.Digest }
	steps := make(map[step]api.TargetPlan) // many targets may take the same one
	for _, e := range entries {
		old := now.Entry(e.Target)
		if old != nil && *old == e {
			p.Unchanged++
			continue
		}
		var at step
		if at.to = e.Closure; old != nil {
			at.from = old.Closure
		}
		t, ok := steps[at]
		if !ok {
			t = c.fetch(old, closures[e.Closure])
			steps[at] = t
		}
		if old != nil {
			t.From = old.StorePath
		}
		t.Target, t.To, t.Action = e.Target, e.StorePath, string(e.Action)
		p.Changed = append(p.Changed, t)
	}
	if now.Release == nil {
		return p
	}
	for _, e := range now.Entries {
		if i, ok := signing.Find(entries, e.Target); !ok || entries[i].Target != e.Target {
			p.Removed = append(p.Removed, e.Target)
		}
	}
	return p
}

// fetch counts what a host with the entry old has to download; nil is one of
// which nothing is known.
func (c *Channels) fetch(old *signing.Entry, next *closure.Closure) (t api.TargetPlan) {
	t.Paths = len(next.Manifest.Lines)
	var had *signing.Manifest
	if old != nil {
		had = c.Of(old) // nil if unreadable: then everything counts
	}
	for _, l := range next.Manifest.Lines {
		if had != nil {
			if was, ok := had.Find(l.Path); ok && was.NarHash == l.NarHash {
				continue
			}
		}
		t.FetchPaths++
		t.Fetch += l.NarSize
	}
	return t
}
