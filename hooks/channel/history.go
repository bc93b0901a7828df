package channel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"narwharf/cache/root"
	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/narinfo"
	"narwharf/signing"
)

// What history says of a release is stored with it, since it is asked for by anybody, and
// to read a release means to check it:
//
//	hooks/summary  <channel> NUL <seq>  api.HistoryItem
//
// Releases of older servers get one when they are first asked for.
const (
	summaryBucket = "hooks/summary"
	maxSummary    = 8 << 20 // bytes that are stored; larger ones are made each time
	historyBytes  = 1 << 20 // of an answer, and two releases at least
)

func summary(m Meta, head *signing.Head, entries []signing.Entry) ([]byte, error) {
	item := api.HistoryItem{Seq: head.Seq, Promoted: m.of(head).Promoted, By: m.By, Targets: make([]api.HistoryTarget, len(entries)),
		Created: head.Created, Rollback: head.Rollback, Order: head.Order, Meta: head.Meta}
	for i, e := range entries {
		item.Targets[i] = api.HistoryTarget{Target: e.Target, StorePath: e.StorePath, Action: string(e.Action)}
	}
	return json.Marshal(item)
}

func putSummary(tx state.Tx, channel string, seq int64, text []byte) error {
	if len(text) > maxSummary {
		return nil
	}
	return tx.Put(summaryBucket, metaKey(channel, seq), text)
}

// History is up to limit releases of a channel, each an api.HistoryItem, newest first and
// below a seq if that is not 0. next is the seq below which the rest is, 0 if that is all.
func (c *Channels) History(ctx context.Context, name string, limit int, below int64) (items []json.RawMessage, next int64, err error) {
	if now := c.Get(name); now.State.Seq == 0 {
		return nil, 0, now.Absent()
	}
	seqs, metas, err := c.releases(name, limit, below)
	if err != nil {
		return nil, 0, err
	}
	size := 0
	items = make([]json.RawMessage, 0, len(seqs))
	for i, seq := range seqs {
		if size > historyBytes && i >= 2 {
			return items, seqs[i-1], nil
		}
		text, err := c.summary(ctx, name, seq, metas[i])
		if err == nil {
			text, err = c.markCollected(name, seq, text)
		}
		if err != nil {
			return nil, 0, err
		}
		items, size = append(items, text), size+len(text)
	}
	return items, 0, nil
}

// summary is what is stored of a release, or what its file says.
func (c *Channels) summary(ctx context.Context, name string, seq int64, m Meta) (text []byte, err error) {
	err = c.set.View(func(tx state.Reader) (err error) {
		text, err = tx.Get(summaryBucket, metaKey(name, seq))
		return err
	})
	if err != nil || text != nil {
		return text, err
	}
	f, err := c.check(ctx, name, seq)
	if errors.Is(err, fs.ErrNotExist) {
		return json.Marshal(api.HistoryItem{Seq: seq, Promoted: m.Promoted, By: m.By, Targets: []api.HistoryTarget{}})
	}
	if err != nil {
		return nil, err
	}
	if text, err = summary(m, f.head, f.entries); err != nil {
		return nil, err
	}
	return text, c.set.Update(ctx, locks(name), func(tx *mirror.Tx) error { return putSummary(tx, name, seq, text) })
}

// markCollected says in a summary whether the paths of a release are gone. Of one that has
// roots they are not.
func (c *Channels) markCollected(name string, seq int64, text []byte) ([]byte, error) {
	var paths []narinfo.Path
	err := c.set.View(func(tx state.Reader) (err error) {
		paths, err = root.Owner(tx, RootOwner(name, seq))
		return err
	})
	if err != nil || len(paths) > 0 {
		return text, err
	}
	var item api.HistoryItem
	if err := json.Unmarshal(text, &item); err != nil {
		return nil, fmt.Errorf("summary of release %d of %s: %w", seq, name, err)
	}
	for _, t := range item.Targets {
		e := signing.Entry{StorePath: t.StorePath}
		p, err := e.Path()
		if err != nil {
			continue
		}
		if here, err := c.Has(p); err != nil {
			return nil, err
		} else if !here {
			item.Collected = true
			return json.Marshal(item)
		}
	}
	return text, nil
}

// check reads and checks a release, one at a time: anybody may ask for that.
func (c *Channels) check(ctx context.Context, name string, seq int64) (*releaseFile, error) {
	select {
	case c.checking <- struct{}{}:
		defer func() { <-c.checking }()
		return readRelease(c.files, name, seq)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// releases returns the seqs of a channel with their metas, newest first, below a seq if
// that is not 0.
func (c *Channels) releases(name string, limit int, below int64) (seqs []int64, metas []Meta, err error) {
	prefix := name + "\x00"
	r := state.Prefix(prefix)
	if below > 0 {
		r.To = metaKey(name, below)
	}
	r.Reverse, r.Limit = true, limit
	err = c.set.Scan(metaBucket, r, func(page []state.Entry) error {
		for _, e := range page {
			var m Meta
			if err := json.Unmarshal(e.Value, &m); err != nil {
				return fmt.Errorf("release %q: %w", e.Key, err)
			}
			seqs = append(seqs, int64(state.Uint64(e.Key[len(prefix):])))
			metas = append(metas, m)
		}
		return nil
	})
	return seqs, metas, err
}

// maxBetween bounds how many heads stand in one answer.
const maxBetween = 32

// Between are heads on the way from one seq to another, each at most a jump above the one
// before: as few as lead there, or as far as they lead.
func (c *Channels) Between(name string, from, to int64) (heads []*signing.Envelope, err error) {
	for to-from > signing.MaxSeqJump && len(heads) < maxBetween {
		head, ok := c.heads.Get(metaKey(name, from))
		if !ok {
			f, err := c.within(name, from, func([]signing.Entry) bool { return true })
			if f == nil || err != nil {
				return heads, err
			}
			head = f.Head
			c.heads.Add(metaKey(name, from), head)
		}
		h, err := signing.ParseHead(head.Payload)
		if err != nil {
			return nil, err
		}
		heads, from = append(heads, head), h.Seq
	}
	return heads, nil
}

// Step is what a target is sent of a release that is at most a jump above a seq, and as far
// as can be; nil if there is none.
func (c *Channels) Step(name string, from int64, target string) (p *signing.Pointer, seq int64, err error) {
	f, err := c.within(name, from, func(entries []signing.Entry) bool { _, ok := signing.Find(entries, target); return ok })
	if f == nil || err != nil {
		return nil, 0, err
	}
	i, _ := signing.Find(f.entries, target)
	p, err = f.Pointer(i)
	return p, f.head.Seq, err
}

// within is the farthest release within a jump from a seq that will do, nil if there is none.
func (c *Channels) within(name string, from int64, will func([]signing.Entry) bool) (*releaseFile, error) {
	seqs, _, err := c.releases(name, signing.MaxSeqJump, from+signing.MaxSeqJump+1)
	for _, seq := range seqs {
		if seq <= from {
			break
		}
		f, err := c.check(context.Background(), name, seq)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case will(f.entries):
			return f, nil
		}
	}
	return nil, err
}

// Past is an earlier release, whole: what a rollback builds on.
func (c *Channels) Past(ctx context.Context, name string, seq int64) (*signing.Release, error) {
	f, err := c.check(ctx, name, seq)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, api.Errorf(api.NotFound, "channel %s has no release %d: narwharf channel history %s lists what there is", name, seq, name)
	}
	if err != nil {
		return nil, err
	}
	return f.Release, nil
}

// Delete takes a channel's release away and returns its seq, which continues
// if the channel is made again. match is the ETag that the caller saw.
func (c *Channels) Delete(ctx context.Context, name, match, by string) (seq int64, err error) {
	defer c.promoting.Lock(name)()
	now := c.Get(name)
	if now.Release == nil {
		return 0, now.Absent()
	}
	if err := precondition(match, now); err != nil {
		return 0, err
	}
	next := now.State
	next.Deleted, next.Current = true, 0
	tomb, err := json.Marshal(next)
	if err != nil {
		return 0, err
	}
	err = c.change(ctx, now, nil, func(tx *mirror.Tx) {
		// Without this file Restore would bring the channel back.
		tx.Keep(c.files.Write(deletedName(name), tomb))
		audit.Note(tx, api.Event{Kind: "channel.deleted", By: by, Channel: name, Seq: next.Seq, Text: fmt.Sprintf("deleted %s after seq %d; its hosts keep what they run", name, next.Seq)})
		c.states.Put(tx, name, &next)
	})
	if errors.Is(err, ErrMoved) {
		return 0, raceLost(c.Get(name), match)
	}
	return next.Seq, err
}
