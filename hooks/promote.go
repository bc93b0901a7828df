package hooks

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"narwharf/hooks/api"
	"narwharf/signing"
	"narwharf/signing/access"
)

// maxPromotion bounds the body of a promote in bytes.
const maxPromotion = 128 << 20

// promote is PUT /channels/{c}: all checks of a release, and then the roll-out.
//
// The order of the checks is that of what a person can do about them: the
// request, the right, the race, the signatures, the closures.
func (s *Server) promote(c *call) error {
	name := c.param("channel")
	if err := signing.CheckChannel(name); err != nil {
		return api.Errorf(api.BadRequest, "%v", err)
	}
	if err := c.need(access.Scope{Kind: access.Promote, Glob: name}); err != nil {
		return err
	}
	var p api.Promotion
	if err := readJSON(c, maxPromotion, &p); err != nil {
		return err
	}
	if p.Head == nil || len(p.Entries) == 0 {
		return api.Errorf(api.BadRequest, "a promote needs a head and its entries: see docs/formats.md, or use narwharf promote")
	}
	head, entries, err := p.Check()
	if err != nil {
		return api.Errorf(api.Invalid, "%v", err)
	}
	if head.Channel != name {
		return api.Errorf(api.Invalid, "the release is of the channel %q and was sent to %q", head.Channel, name)
	}
	dryRun := c.req.URL.Query().Get("dry_run") == "1"

	defer s.promoting.Lock(name)()
	now := s.channel(name)
	next, err := s.rules(c, now, &p, head)
	if err != nil {
		return err
	}
	if now.release != nil && now.release.Same(&p.Release) {
		return s.again(c, now, &p, dryRun)
	}
	if err := s.precondition(c, now); err != nil {
		return err
	}
	if err := checkSeq(now, head); err != nil {
		return err
	}
	closures, err := s.checkClosures(entries)
	if err != nil {
		return err
	}
	if next.Kind == api.KindNixOS {
		if err := s.checkSystems(entries); err != nil {
			return err
		}
	}
	if dryRun {
		answer := s.plan(now, head, entries, closures)
		answer.DryRun = true
		writeJSON(c.w, http.StatusOK, answer)
		return nil
	}
	adopted, err := s.adopt(c, name, closures)
	if err != nil {
		return err
	}
	if adopted > 0 { // it took a while: what is kept now must be what was signed
		if closures, err = s.checkClosures(entries); err != nil {
			return err
		}
	}
	if err := s.commit(c, now, next, &p, head, entries, closures); err != nil {
		return err
	}
	// Hosts do not wait for what is said to the promoter.
	answer := s.plan(now, head, entries, closures)
	s.metrics.promoted.WithLabelValues(name).Inc()
	s.log.Info("promoted", "channel", name, "seq", head.Seq, "targets", len(entries), "changed", len(answer.Changed), "by", c.who.Name)
	c.w.Header().Set("Etag", etagOf(head.Seq))
	writeJSON(c.w, http.StatusOK, answer)
	return nil
}

func etagOf(seq int64) string { return `"` + strconv.FormatInt(seq, 10) + `"` }

// rules works out by which keys the release must be signed, and verifies it.
// The first promote sets them; changing them takes the scope admin.
func (s *Server) rules(c *call, now *live, p *api.Promotion, head *signing.Head) (channelState, error) {
	next := now.state
	first := len(next.Keys) == 0
	if p.Threshold < 0 || p.Threshold > len(p.Keys) {
		return next, api.Errorf(api.Invalid, "a threshold of %d does not go with %d keys", p.Threshold, len(p.Keys))
	}
	if p.Kind != "" && p.Kind != api.KindNixOS && p.Kind != api.KindPath {
		return next, api.Errorf(api.Invalid, "kind %q is neither nixos nor path", p.Kind)
	}
	sent := slices.Sorted(slices.Values(p.Keys))
	sent = slices.Compact(sent)
	threshold := max(p.Threshold, 1)
	changes := !first && (len(sent) > 0 && (!slices.Equal(sent, next.Keys) || threshold != next.Threshold) || p.Kind != "" && p.Kind != next.Kind)
	if changes {
		if err := c.need(access.Scope{Kind: access.Admin}); err != nil {
			return next, fmt.Errorf("the keys, threshold or kind of channel %s would change: %w", now.name, err)
		}
	}
	if first && len(sent) == 0 {
		return next, api.Errorf(api.Invalid, "the first promote of a channel says by which keys its releases are signed: send keys (narwharf promote does)")
	}
	if first || changes {
		if len(sent) > 0 {
			next.Keys, next.Threshold = sent, threshold
		}
		if p.Kind != "" {
			next.Kind = p.Kind
		}
	}
	if next.Kind == "" {
		next.Kind = api.KindNixOS
	}
	if next.Origin == "" {
		next.Origin = head.Origin
	} else if next.Origin != head.Origin {
		return next, api.Errorf(api.Invalid, "the release is of the origin %q, this channel's is %q", head.Origin, next.Origin)
	}
	keys, need, err := (&live{name: now.name, state: next}).trust()
	if err != nil {
		return next, api.Errorf(api.Invalid, "%v", err)
	}
	if _, err := p.Head.Open(signing.HeadKind, keys, need); err != nil {
		return next, api.Errorf(api.BadSignature, "channel %s: %v", now.name, err)
	}
	return next, nil
}

// again answers a promote of what is there already; new signatures are added.
func (s *Server) again(c *call, now *live, p *api.Promotion, dryRun bool) error {
	merged := signing.Envelope{Payload: now.release.Head.Payload, Signatures: slices.Clone(now.release.Head.Signatures)}
	added, err := merged.Merge(s.good(now, p.Head))
	if err != nil {
		return api.Errorf(api.Invalid, "%v", err)
	}
	if added && !dryRun {
		release := &signing.Release{Head: &merged, Entries: now.release.Entries}
		if err := s.writeRelease(now.name, now.head.Seq, release, &now.state); err != nil {
			return err
		}
		s.setChannel(&live{name: now.name, state: now.state, release: release, head: now.head, entries: now.entries, meta: now.meta})
		s.polls.Notify(channelTopic(now.name))
	}
	c.w.Header().Set("Etag", etagOf(now.head.Seq))
	writeJSON(c.w, http.StatusOK, &api.Promoted{
		Channel: now.name, Seq: now.head.Seq, Already: true, DryRun: dryRun,
		Changed: []api.TargetPlan{}, Removed: []string{}, Unchanged: len(now.entries),
	})
	return nil
}

// good is an envelope with those signatures alone that a key of the channel made.
func (s *Server) good(now *live, e *signing.Envelope) *signing.Envelope {
	only := &signing.Envelope{Payload: e.Payload, Signatures: []signing.Signature{}}
	keys, _, err := now.trust()
	if err != nil {
		return only
	}
	for _, sig := range e.Signatures {
		one := signing.Envelope{Payload: e.Payload, Signatures: []signing.Signature{sig}}
		if len(one.Signers(signing.HeadKind, keys)) > 0 {
			only.Signatures = append(only.Signatures, sig)
		}
	}
	return only
}

// precondition makes promoters say what they saw.
func (s *Server) precondition(c *call, now *live) error {
	match := c.req.Header.Get("If-Match")
	if match == "" {
		return api.Errorf(api.NoPrecondition, `send If-Match with the channel's ETag, %s now: else two promoters would overwrite each other`, etagOf(now.state.Seq))
	}
	for item := range strings.SplitSeq(match, ",") {
		if strings.TrimSpace(item) == etagOf(now.state.Seq) {
			return nil
		}
	}
	e := api.Errorf(api.RaceLost, "channel %s is at seq %d, not at %s: somebody else promoted; look at it and promote again", now.name, now.state.Seq, match)
	e.Channel = s.describe(now)
	return e
}

func checkSeq(now *live, head *signing.Head) error {
	if head.Seq <= now.state.Seq {
		return api.Errorf(api.SeqConflict, "seq %d is not above %d, the channel's last: a seq is used once, also after a rollback", head.Seq, now.state.Seq)
	}
	if head.Seq > now.state.Seq+signing.MaxSeqJump {
		return api.Errorf(api.SeqConflict, "seq %d is more than %d above %d, the channel's last", head.Seq, signing.MaxSeqJump, now.state.Seq)
	}
	if o := now.state.Order; o != nil && head.Order != nil && *head.Order < *o && !head.Rollback {
		return api.Errorf(api.OrderBackwards, "order %d is below %d, that of the last release: an older job ran again; to go back on purpose use narwharf rollback", *head.Order, *o)
	}
	return nil
}

// plan says what a release changes.
func (s *Server) plan(now *live, head *signing.Head, entries []signing.Entry, closures map[signing.Digest]*closure) *api.Promoted {
	p := &api.Promoted{Channel: now.name, Seq: head.Seq, Changed: []api.TargetPlan{}, Removed: []string{}}
	type step struct{ from, to signing.Digest }
	steps := make(map[step]api.TargetPlan) // many targets may take the same one
	for _, e := range entries {
		old := now.entry(e.Target)
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
			t = s.fetch(old, closures[e.Closure])
			steps[at] = t
		}
		if old != nil {
			t.From = old.StorePath
		}
		t.Target, t.To, t.Action = e.Target, e.StorePath, string(e.Action)
		p.Changed = append(p.Changed, t)
	}
	for _, e := range now.entries {
		if i, ok := signing.Find(entries, e.Target); !ok || entries[i].Target != e.Target {
			p.Removed = append(p.Removed, e.Target)
		}
	}
	return p
}

// fetch counts what a host with the entry old has to download, nil if nothing
// is known of it.
func (s *Server) fetch(old *signing.Entry, next *closure) (t api.TargetPlan) {
	t.Paths = len(next.manifest.Lines)
	var had *signing.Manifest
	if old != nil {
		had = s.manifest(old) // nil if unreadable: then everything counts
	}
	for _, l := range next.manifest.Lines {
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

func (s *Server) manifest(e *signing.Entry) *signing.Manifest {
	root, err := e.Path()
	if err != nil {
		return nil
	}
	text, err := s.files.Read(closureName(e.Closure), signing.MaxManifest)
	if err != nil {
		return nil
	}
	m, err := signing.ParseManifest(text, e.Closure, root)
	if err != nil {
		return nil
	}
	return m
}

func (s *Server) writeRelease(name string, seq int64, r *signing.Release, st *channelState) error {
	text, err := json.Marshal(releaseFile{r, st.Kind, st.Keys, st.Threshold})
	if err != nil {
		return err
	}
	return s.files.Write(releaseName(name, seq), text)
}

// commit makes the release durable, turns the channel to it, wakes the hosts.
func (s *Server) commit(c *call, now *live, next channelState, p *api.Promotion, head *signing.Head, entries []signing.Entry, closures map[signing.Digest]*closure) error {
	for digest, cl := range closures {
		if cl.stored {
			continue
		}
		if err := s.files.Write(closureName(digest), cl.manifest.Text()); err != nil {
			return err
		}
	}
	next.Seq, next.Current, next.Deleted = head.Seq, head.Seq, false
	if head.Order != nil {
		next.Order = head.Order
	}
	release := &p.Release
	if err := s.writeRelease(now.name, head.Seq, release, &next); err != nil {
		return err
	}
	at := s.clock()
	meta := releaseMeta{Promoted: at.UTC(), By: c.who.Name}
	text := fmt.Sprintf("promoted %s to seq %d", now.name, head.Seq)
	if len(entries) == 1 {
		text += ": " + entries[0].StorePath
	} else {
		text += fmt.Sprintf(": %d targets", len(entries))
	}
	if head.Rollback {
		text += " (rollback)"
	}
	_, err := s.store.update(at, func(ch *change) error {
		ch.note(api.Event{Kind: "channel.promoted", By: c.who.Name, Channel: now.name, Seq: head.Seq, Text: text, Data: head.Meta})
		if err := ch.putRelease(now.name, head.Seq, meta); err != nil {
			return err
		}
		return ch.putChannel(now.name, &next)
	})
	if err != nil {
		return err
	}
	s.setChannel(&live{name: now.name, state: next, release: release, head: head, entries: entries, meta: meta})
	s.noted(now.name, channelTopic(now.name))
	return nil
}
