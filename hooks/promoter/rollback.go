package promoter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/promoter/follow"
	"narwharf/signing"
)

// maxPast is how many releases a rollback looks back.
const maxPast = 200

// Rollback takes the entries of an earlier release. If to is 0 that is the last one that
// at least one host ended well and none badly, as hosts reported; it says which and why.
// The promoters of the release must be trusted.
func (p *Promoter) Rollback(ctx context.Context, to int64) (*Release, error) {
	if err := p.readBase(ctx, false); err != nil {
		return nil, err
	}
	if p.baseHead == nil {
		return nil, fmt.Errorf("channel %s has no release that your keys signed, so there is nothing to go back from", p.Channel)
	}
	to, why, err := p.choose(ctx, to)
	if err != nil {
		return nil, err
	}
	r, err := p.Client.Release(ctx, p.Channel, to)
	if err != nil {
		return nil, err
	}
	head, _, err := r.Check()
	if err != nil {
		return nil, err
	}
	if head.Seq != to {
		return nil, fmt.Errorf("the server answered with seq %d instead of %d", head.Seq, to)
	}
	if _, err := signing.VerifyHead(r.Head, p.trust(p.baseHead.Origin)); err != nil {
		return nil, fmt.Errorf("release %d of %s: %w; if you know that its paths are good, promote them anew", to, p.Channel, err)
	}
	if slices.EqualFunc(r.Entries, p.baseRaw, slices.Equal) && p.Seq == nil {
		return nil, fmt.Errorf("seq %d of %s has what seq %d has: to go back to it changes nothing; narwharf channel history %[2]s lists the others, --to SEQ names one", to, p.Channel, p.base.Seq)
	}
	fmt.Fprintf(p.err, "going back to seq %d of %s, made %s (%s ago): %s\n", to, p.Channel, api.TimeText(head.Created), age(time.Since(head.Created)), why)
	entries, err := readLeaves(r.Entries)
	return &Release{entries: entries, rollback: true}, err
}

// age is a time for people: "3d4h", "2h5m", "40s".
func age(d time.Duration) string {
	switch d = max(d, 0); {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// Refresh takes the entries of the last release as they are.
func (p *Promoter) Refresh(ctx context.Context) (*Release, error) {
	if err := p.readBase(ctx, true); err != nil {
		return nil, err
	}
	if p.baseHead == nil {
		return nil, fmt.Errorf("channel %s has no release that could be signed anew", p.Channel)
	}
	entries, err := readLeaves(p.baseRaw)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Action == signing.Test || e.Action == signing.DryActivate {
			return nil, fmt.Errorf("the release has %s for %s with the action %s, which would be done again: promote what shall stay", e.StorePath, e.Target, e.Action)
		}
	}
	if len(p.Meta) == 0 {
		p.Meta = p.baseHead.Meta
	}
	if p.Order == nil {
		p.Order = p.baseHead.Order
	}
	return &Release{entries: entries}, nil
}

// choose is the release to go back to, and why. One that was named stays.
func (p *Promoter) choose(ctx context.Context, named int64) (to int64, why string, err error) {
	ended, err := p.Client.Ended(ctx, p.Channel)
	var e *api.Error
	if errors.As(err, &e) && (e.Kind == api.Forbidden || e.Kind == api.Unauthorized) {
		ended, err = nil, nil // then nothing is known
	}
	if err != nil {
		return 0, "", err
	}
	if named != 0 {
		return named, "as --to says; " + endsText(ended[named]), nil
	}
	list, err := p.Client.History(ctx, p.Channel, maxPast)
	if err != nil {
		return 0, "", err
	}
	past := earlier(list, p.base.Seq)
	well, err := follow.LastWell(ctx, p.Client, p.Channel)
	if err != nil {
		return 0, "", err
	}
	if slices.ContainsFunc(past, func(i api.HistoryItem) bool { return i.Seq == well && !i.Collected }) {
		return well, "the last release whose roll-out completed well", nil
	}
	if len(past) == 0 {
		return 0, "", fmt.Errorf("channel %s has no earlier release with other systems to go back to: narwharf channel history %[1]s lists what there is, --to SEQ names one", p.Channel)
	}
	var over []string
	known, before := false, int64(0)
	for _, item := range past {
		if item.Collected {
			over = append(over, fmt.Sprintf("seq %d (collected: its paths are gone)", item.Seq))
			continue
		}
		before = cmp.Or(before, item.Seq)
		said := ended[item.Seq]
		bad := said[api.Reverted] + said[api.Failed] + said[api.Rejected]
		if said[api.OK] > 0 && bad == 0 {
			if why = "the last release that hosts ended well and none badly, " + endsText(said); len(over) > 0 {
				why += "; passed over: " + strings.Join(over, ", ")
			}
			return item.Seq, why, nil
		}
		known = known || len(said) > 0
		over = append(over, fmt.Sprintf("seq %d (%s)", item.Seq, endsText(said)))
	}
	if !known && before > 0 {
		why := "the release before; " + endsText(nil)
		if before != past[0].Seq {
			why += "; passed over: " + over[0]
		}
		return before, why, nil
	}
	return 0, "", fmt.Errorf("no release of %s is known to be good: %s; choose one by --to SEQ, or promote another", p.Channel, strings.Join(over, ", "))
}

// earlier are the releases, newest first, that a rollback from seq may go to. What a
// rollback went back from is none of them, or the next would go forth again; neither is
// what has the same systems.
func earlier(list []api.HistoryItem, seq int64) (past []api.HistoryItem) {
	at := slices.IndexFunc(list, func(i api.HistoryItem) bool { return i.Seq == seq })
	if at < 0 {
		return nil
	}
	now := list[at]
	same := func(i api.HistoryItem) bool { return slices.Equal(i.Targets, now.Targets) }
	for list[at].Rollback {
		before := slices.IndexFunc(list[at+1:], same)
		if before < 0 {
			break
		}
		at += 1 + before
	}
	return slices.DeleteFunc(slices.Clone(list[at+1:]), same)
}

// endsText is how a release ended on hosts, as they reported.
func endsText(ended map[api.State]int) string {
	var said []string
	for _, state := range api.States {
		if n := ended[state]; n > 0 {
			said = append(said, fmt.Sprintf("%d %s", n, state))
		}
	}
	if said == nil {
		return "no host has said how it ended"
	}
	return strings.Join(said, ", ")
}
