package main

import (
	"context"
	"errors"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/rollouts"
	"narwharf/hooks/rollout"
)

// An act is a release, and what else goes on meanwhile.
type act struct {
	bad    bool // its hosts go back from it
	queued bool // another release comes while it is under way
	away   int  // so many of a hundred hosts are off
}

// plots are what happens on the channels, again and again.
var plots = map[string][]act{
	"web":    {{}, {bad: true}, {}, {}, {away: 5}},
	"db":     {{queued: true}, {}, {bad: true}, {}},
	"kiosks": {{away: 15}, {}, {bad: true, away: 10}, {}},
}

// A stage is where the acts are played.
type stage struct {
	fleet *fleet
	carol rollouts.Client // who says yes, if nobody else does
	pause time.Duration   // between two releases, and until carol says it
	say   func(format string, args ...any)
}

// play plays a channel's acts until ctx ends. What fails is said, and the next act comes.
func (s *stage) play(ctx context.Context, c *channel) {
	for i := 0; ctx.Err() == nil; i++ {
		if err := s.act(ctx, c, plots[c.name][i%len(plots[c.name])]); err != nil && ctx.Err() == nil {
			s.say("%s: %v", c.name, err)
		}
		s.rest(ctx)
	}
}

func (s *stage) rest(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(s.pause):
	}
}

func (s *stage) act(ctx context.Context, c *channel, a act) error {
	if a.away > 0 {
		s.fleet.away(c.name, max(len(s.fleet.of(c.name))*a.away/100, 1))
		defer s.fleet.back(ctx, c.name) //nolint:errcheck // a host that cannot start says it
	}
	seq, _, err := c.promote(ctx, a.bad)
	if err != nil {
		return err
	}
	s.say("%s: release %d is promoted%s", c.name, seq, map[bool]string{true: ", and is bad"}[a.bad])
	if a.queued {
		s.rest(ctx)
		if seq, _, err = c.promote(ctx, false); err != nil {
			return err
		}
		s.say("%s: release %d is promoted, and waits for its turn", c.name, seq)
	}
	state, err := s.follow(ctx, c, seq)
	if err == nil {
		s.say("%s: release %d is %s", c.name, seq, state)
	}
	return err
}

// follow waits until a release is over or halted, and says yes where nobody else has.
func (s *stage) follow(ctx context.Context, c *channel, seq int64) (rollout.State, error) {
	var asked question
	for tag := ""; ; {
		r, next, err := s.carol.Show(ctx, c.name, 0, tag, 5*time.Second)
		if err == nil {
			tag = next
			if r.Seq >= seq && (r.State.Over() || r.State == rollout.Halted) {
				return r.State, nil
			}
			asked = asked.of(r)
		} else if !errors.Is(err, api.ErrNotModified) {
			return "", err
		}
		if asked.seq != 0 && time.Since(asked.since) > s.pause {
			if _, err := s.carol.Say(ctx, c.name, "advance", 0, &rollouts.Verb{Seq: asked.seq, Reason: "the first one looks well"}); err != nil {
				s.say("%s: %v", c.name, err)
			}
			asked = question{}
		}
	}
}

// A question is that a roll-out waits for somebody's yes.
type question struct {
	seq   int64 // 0: none does
	since time.Time
}

// of is what a roll-out asks now.
func (q question) of(r *rollout.Summary) question {
	for _, w := range r.Waves {
		switch {
		case w.State != rollout.WaveApproval || r.State != rollout.Running:
		case q.seq == r.Seq:
			return q
		default:
			return question{r.Seq, time.Now()}
		}
	}
	return question{}
}
