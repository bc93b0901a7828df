package channel

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"narwharf/cache/root"
	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/closure"
	"narwharf/signing"
)

// Promotion is what somebody wants to promote.
type Promotion struct {
	*api.Promotion
	Match  string // the ETag that he saw, as in If-Match
	DryRun bool
	By     string
	// RulesDenied is why he may not change keys, threshold and kind of a channel; nil if he may.
	RulesDenied error
	// May says why he may not change a target, by whatever action or by test; of "", all of
	// the channel. It is nil for who may change any.
	May func(target string, test bool) error
	// Well is the seq of the last release that hosts run well; 0: none is known.
	Well int64
	// Rollouts, if it is not nil, decides on hosts in the transaction of the promote. Gate
	// says beforehand whether it would.
	Rollouts Rollouts
}

// Rollouts is who decides when hosts take a release.
type Rollouts interface {
	// Gate says why a release would not be taken now.
	Gate(ctx context.Context, r *Release) error
	// Promote calls commit, which makes the release under some more locks, and calls also in its
	// transaction. An error says why a release is not taken; commit was not called then.
	Promote(ctx context.Context, r *Release, commit func(locks []string, also func(tx *mirror.Tx)) error) error
}

// Promote makes all checks of a release, and then turns the channel to it.
//
// The order of the checks is that of what a person can do about them: the
// request, the race, the signatures, the closures. It can take minutes; when ctx
// ends, what was adopted stays so.
func (c *Channels) Promote(ctx context.Context, name string, p *Promotion) (*api.Promoted, error) {
	head, entries, err := p.Check()
	if err != nil {
		return nil, api.Errorf(api.Invalid, "%v", err)
	}
	if head.Channel != name {
		return nil, api.Errorf(api.Invalid, "the release is of the channel %q and was sent to %q", head.Channel, name)
	}
	defer c.promoting.Lock(name)()
	now, fresh := c.Again(name) // who lost a race is told so by what is true, not by what is remembered
	if !fresh {
		return nil, state.ErrUnavailable
	}
	next, err := rules(now, p, head)
	if err != nil {
		return nil, err
	}
	if now.Release != nil && now.Release.Release.Same(&p.Release) {
		return c.again(ctx, now, p)
	}
	if err := precondition(p.Match, now); err != nil {
		return nil, err
	}
	if err := restricted(now, p, head, entries); err != nil {
		return nil, err
	}
	if err := checkSeq(now, head); err != nil {
		return nil, err
	}
	r := newRelease(&p.Release, head, entries)
	if p.Rollouts != nil {
		if err := p.Rollouts.Gate(ctx, r); err != nil {
			return nil, err
		}
	}
	if !p.DryRun {
		if err := c.Hold(ctx, rootPaths(entries)); err != nil {
			return nil, err
		}
	}
	closures, err := c.checkContent(entries, next.Kind)
	if err != nil {
		return nil, collectedText(name, head, err)
	}
	if p.DryRun {
		answer := c.plan(now, head, entries, closures)
		answer.DryRun = true
		return answer, nil
	}
	adopted, err := c.Adopt(ctx, "channel "+name, p.By, closure.Paths(closures))
	if err != nil {
		return nil, err
	}
	if adopted > 0 { // it took a while: what is kept now must be what was signed
		if closures, err = c.Check(entries); err != nil {
			return nil, err
		}
	}
	if err := c.commit(ctx, now, next, p, r, closures); err != nil {
		return nil, err
	}
	return c.plan(now, head, entries, closures), nil
}

// checkContent looks whether the cache has what a release names.
func (c *Channels) checkContent(entries []signing.Entry, kind api.ChannelKind) (map[signing.Digest]*closure.Closure, error) {
	closures, err := c.Check(entries)
	if err == nil && kind == api.KindNixOS {
		err = c.CheckSystems(entries)
	}
	return closures, err
}

// collectedText says of a rollback why its closures are not complete.
func collectedText(name string, head *signing.Head, err error) error {
	var e *api.Error
	if errors.As(err, &e) && e.Kind == api.ClosureIncomplete && head.Rollback {
		e.Message = fmt.Sprintf("what this goes back to was collected, since %s has had so many releases since (retention.keep_releases): narwharf channel history %[1]s shows which are still here; or build it again, upload it with nix copy --refresh, and promote that (%[2]s)", name, e.Message)
	}
	return err
}

// again answers a promote of what is there already; new signatures are added.
func (c *Channels) again(ctx context.Context, now *Snapshot, p *Promotion) (*api.Promoted, error) {
	answer := &api.Promoted{
		Channel: now.Name, Seq: now.Head.Seq, Already: true, DryRun: p.DryRun,
		Changed: []api.TargetPlan{}, Removed: []string{}, Unchanged: len(now.Entries),
	}
	for {
		merged := signing.Envelope{Payload: now.Release.Release.Head.Payload, Signatures: slices.Clone(now.Release.Release.Head.Signatures)}
		added, err := merged.Merge(good(now, p.Head))
		if err != nil {
			return nil, api.Errorf(api.Invalid, "%v", err)
		}
		if !added || p.DryRun {
			return answer, nil
		}
		r := newRelease(&signing.Release{Head: &merged, Entries: now.Release.Release.Entries}, now.Head, now.Entries)
		err = c.turn(ctx, now, now.State, r, nil, func(tx *mirror.Tx) { c.putMeta(tx, now.Name, r, now.Meta) })
		if !errors.Is(err, ErrMoved) {
			return answer, err
		}
		if now = c.Get(now.Name); now.Release == nil || !now.Release.Release.Same(&p.Release) {
			return nil, raceLost(now, p.Match)
		}
	}
}

// commit makes the release durable, turns the channel to it, wakes the hosts.
func (c *Channels) commit(ctx context.Context, now *Snapshot, next State, p *Promotion, r *Release, closures map[signing.Digest]*closure.Closure) error {
	if err := c.Store(closures); err != nil {
		return err
	}
	next.Seq, next.Current, next.Deleted, next.Bad = r.Head.Seq, r.Head.Seq, false, 0
	if p.Well > 0 && p.Well <= now.State.Current {
		next.Well = p.Well
	}
	if r.Head.Order != nil {
		next.Order = r.Head.Order
	}
	text := fmt.Sprintf("promoted %s to seq %d", now.Name, r.Head.Seq)
	if len(r.Entries) == 1 {
		text += ": " + r.Entries[0].StorePath
	} else {
		text += fmt.Sprintf(": %d targets", len(r.Entries))
	}
	if r.Head.Rollback {
		text += " (rollback)"
	}
	if now.State.Origin != "" && now.State.Origin != next.Origin {
		text += fmt.Sprintf("; its origin was %s and is %s", now.State.Origin, next.Origin)
	}
	paths := rootPaths(r.Entries)
	turn := func(locks []string, also func(tx *mirror.Tx)) error {
		return c.turn(ctx, now, next, r, append(locks, root.Locks(paths)...), func(tx *mirror.Tx) {
			tx.Keep(root.Set(tx, RootOwner(now.Name, r.Head.Seq), paths))
			audit.Note(tx, api.Event{Kind: "channel.promoted", By: p.By, Channel: now.Name, Seq: r.Head.Seq, Text: text, Data: r.Head.Meta})
			c.putMeta(tx, now.Name, r, Meta{Promoted: tx.Time.UTC(), By: p.By})
			also(tx)
		})
	}
	var err error
	if p.Rollouts == nil {
		err = turn(nil, func(*mirror.Tx) {})
	} else {
		err = p.Rollouts.Promote(ctx, r, turn)
	}
	if errors.Is(err, ErrMoved) {
		return raceLost(c.Get(now.Name), p.Match)
	}
	return err
}

func (c *Channels) putMeta(tx *mirror.Tx, name string, r *Release, m Meta) {
	m.Digest = r.digest
	tx.Keep(state.PutJSON(tx, metaBucket, metaKey(name, r.Head.Seq), m))
	text, err := summary(m, r.Head, r.Entries)
	tx.Keep(err)
	tx.Keep(putSummary(tx, name, r.Head.Seq, text))
}

// ErrMoved is that a channel is another than it was when it was looked at.
var ErrMoved = errors.New("the channel has changed")

// turn makes next the state of a channel, with a release of which it writes the
// file, under some more locks. It is ErrMoved if the channel is not as it was in now.
func (c *Channels) turn(ctx context.Context, now *Snapshot, next State, r *Release, held []string, more func(tx *mirror.Tx)) error {
	c.setWritten(now.Name, r)
	defer c.setWritten(now.Name, nil)
	err := c.change(ctx, now, held, func(tx *mirror.Tx) {
		tx.Keep(c.writeRelease(now.Name, r, &next)) // see doc.go for why here
		more(tx)
		c.states.Put(tx, now.Name, &next)
	})
	if err == nil {
		c.Get(now.Name) // memory has it before it is forgotten here
	}
	return err
}

func (c *Channels) setWritten(name string, r *Release) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.written[name] = r
}

// Change calls fn in a transaction under the channel's lock, if the channel is as it was in
// now; else it is ErrMoved. What fn changes of the rules it puts with Put.
func (c *Channels) Change(ctx context.Context, now *Snapshot, fn func(tx *mirror.Tx)) error {
	return c.change(ctx, now, nil, fn)
}

// Put replaces what is known of a channel.
func (c *Channels) Put(tx *mirror.Tx, name string, st *State) { c.states.Put(tx, name, st) }

// change calls fn in a transaction, under the channel's lock and those in held, if the channel is as it was in now; else it is
// ErrMoved.
func (c *Channels) change(ctx context.Context, now *Snapshot, held []string, fn func(tx *mirror.Tx)) error {
	err := c.set.Update(ctx, append(locks(now.Name), held...), func(tx *mirror.Tx) error {
		is := c.In(tx, now.Name)
		meta, err := readMeta(tx, now.Name, is.Current)
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(*is, now.State) || meta.Digest != now.Meta.Digest {
			return ErrMoved
		}
		tx.Notify(audit.Channel(now.Name))
		fn(tx)
		return nil
	})
	if errors.Is(err, ErrMoved) { // memory may be behind
		c.set.Noticed([]string{c.states.Topic(now.Name)})
	}
	return err
}

func raceLost(now *Snapshot, match string) error {
	e := api.Errorf(api.RaceLost, "channel %s is at seq %d, not at %s: somebody else promoted; look at it and promote again", now.Name, now.State.Seq, match)
	e.Channel = now.Describe()
	return e
}

// precondition makes promoters say what they saw.
func precondition(match string, now *Snapshot) error {
	if match == "" {
		return api.Errorf(api.NoPrecondition, `send If-Match with the channel's ETag, %s now: else two promoters would overwrite each other`, ETag(now.State.Seq))
	}
	for item := range strings.SplitSeq(match, ",") {
		item = strings.TrimSpace(item)
		if seq, _, long := strings.Cut(item, "-"); item == ETag(now.State.Seq) || long && seq+`"` == ETag(now.State.Seq) {
			return nil
		}
	}
	return raceLost(now, match)
}

func checkSeq(now *Snapshot, head *signing.Head) error {
	if head.Seq <= now.State.Seq {
		return api.Errorf(api.SeqConflict, "seq %d is not above %d, the channel's last: a seq is used once, also after a rollback", head.Seq, now.State.Seq)
	}
	if head.Seq > now.State.Seq+signing.MaxSeqJump {
		return api.Errorf(api.SeqConflict, "seq %d is more than %d above %d, the channel's last", head.Seq, signing.MaxSeqJump, now.State.Seq)
	}
	if o := now.State.Order; o != nil && head.Order != nil && *head.Order < *o && !head.Rollback {
		return api.Errorf(api.OrderBackwards, "order %d is below %d, that of the last release: an older job ran again; to go back on purpose use narwharf rollback", *head.Order, *o)
	}
	return nil
}
