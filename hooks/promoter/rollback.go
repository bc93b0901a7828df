package promoter

import (
	"context"
	"fmt"

	"narwharf/signing"
)

// Rollback takes the entries of an earlier release, the last but one if to is 0.
// Its promoters must be trusted.
func (p *Promoter) Rollback(ctx context.Context, to int64) (*Release, error) {
	if err := p.readBase(ctx, false); err != nil {
		return nil, err
	}
	if p.baseHead == nil {
		return nil, fmt.Errorf("channel %s has no release that your keys signed, so there is nothing to go back from", p.Channel)
	}
	if to == 0 {
		list, err := p.Client.History(ctx, p.Channel, 2)
		if err != nil {
			return nil, err
		}
		if len(list) < 2 {
			return nil, fmt.Errorf("channel %s has only one release", p.Channel)
		}
		to = list[1].Seq
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
		return nil, fmt.Errorf("release %d of %s: %w", to, p.Channel, err)
	}
	entries, err := readLeaves(r.Entries)
	return &Release{entries: entries, rollback: true}, err
}
