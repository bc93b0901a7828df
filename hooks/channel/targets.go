package channel

import (
	"bytes"

	"narwharf/hooks/api"
	"narwharf/signing"
)

// restricted refuses a release by somebody who may change some targets of a channel alone, if
// it changes more than those. It compares with the release that is there; that this still is the
// channel's is read again in the transaction that turns it (see change).
func restricted(now *Snapshot, p *Promotion, head *signing.Head, entries []signing.Entry) error {
	if p.May == nil {
		return nil
	}
	if now.Release == nil || len(now.State.Keys) == 0 {
		return p.May("", false) // the first release is of all targets
	}
	switch order := now.State.Order; {
	case head.Origin != now.State.Origin:
		return p.May("", false)
	case head.Rollback:
		return api.Errorf(api.Forbidden, "who may change targets of channel %s alone makes no rollback: set them to what they were (narwharf promote %[1]s --set TARGET=PATH)", now.Name)
	case head.Order != nil && (order == nil || *head.Order != *order):
		return api.Errorf(api.Forbidden, "who may change targets of channel %s alone does not say an order, which is that of all of its releases: promote without --order", now.Name)
	case head.Expires != nil && (now.Head.Expires == nil || !head.Expires.Equal(*now.Head.Expires)):
		return api.Errorf(api.Forbidden, "who may change targets of channel %s alone does not say when a release expires, which is for all of its hosts: promote without --expires", now.Name)
	}
	for i, e := range entries {
		at, ok := exactly(now.Entries, e.Target)
		if ok && bytes.Equal(now.Release.Release.Entries[at], p.Entries[i]) {
			continue
		}
		if err := p.May(e.Target, e.Action == signing.Test); err != nil {
			return err
		}
	}
	for _, e := range now.Entries {
		if _, ok := exactly(entries, e.Target); !ok {
			if err := p.May(e.Target, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// exactly finds the entry of a target, and not that for everyone in its place.
func exactly(entries []signing.Entry, target string) (at int, ok bool) {
	at, ok = signing.Find(entries, target)
	return at, ok && entries[at].Target == target
}
