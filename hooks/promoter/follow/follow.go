// Package follow follows a roll-out until it has ended, for those who watch and those who wait.
package follow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/rollouts"
	"narwharf/hooks/rollout"
)

// ErrNone is that a channel has no roll-outs: its policy has none, or the server is older.
var ErrNone = errors.New("the channel has no roll-outs")

// Options say which roll-out is followed: of a release, or with 0 the channel's present one. The functions may
// be nil.
type Options struct {
	Client  rollouts.Client
	Channel string
	Seq     int64
	// See is called with the roll-out each time that it is another, from the first on.
	See func(*rollout.Summary)
	// Lost is called when the server does not answer; it is asked again.
	Lost func(error)
	// Through a halt it goes on: somebody may resume it.
	Through bool
	// AtOnce ends it if the server does not answer the first time: its URL may be wrong.
	AtOnce bool
}

const (
	park  = 30 * time.Second
	again = 2 * time.Second
)

// Run returns the roll-out as it ended, or halted. If ctx is over before, its error comes with the
// last that was seen, which may be nil.
func Run(ctx context.Context, o Options) (last *rollout.Summary, err error) {
	for etag := ""; ; {
		s, next, err := look(ctx, &o, etag)
		var e *api.Error
		switch {
		case ctx.Err() != nil:
			return last, ctx.Err()
		case errors.Is(err, api.ErrNotModified):
			continue
		case errors.Is(err, ErrNone), errors.As(err, &e) && e.Kind != api.Unavailable && e.Kind != api.Internal:
			return last, err
		case err != nil && o.AtOnce && last == nil:
			return nil, err
		case err != nil: // the server restarts, a link is down
			if o.Lost != nil {
				o.Lost(err)
			}
			select {
			case <-time.After(again):
			case <-ctx.Done():
			}
			etag = ""
			continue
		}
		if etag, last = next, s; o.See != nil {
			o.See(s)
		}
		if s.State.Over() || s.State == rollout.Halted && !o.Through {
			return s, nil
		}
	}
}

// look is the roll-out now. One that waits behind another is shown as queued, and one that another
// came before as superseded.
func look(ctx context.Context, o *Options, etag string) (*rollout.Summary, string, error) {
	s, next, err := o.Client.Show(ctx, o.Channel, o.Seq, etag, park)
	var e *api.Error
	if !errors.As(err, &e) || e.Kind != api.NotFound || e.Foreign() {
		return s, next, err
	}
	if o.Seq == 0 {
		return nil, "", fmt.Errorf("%w: %s", ErrNone, e.Message)
	}
	s, next, err = o.Client.Show(ctx, o.Channel, 0, etag, park)
	if errors.As(err, &e) && e.Kind == api.NotFound {
		return nil, "", ErrNone
	}
	if err != nil {
		return nil, next, err
	}
	q := &rollout.Summary{Channel: o.Channel, Seq: o.Seq, State: rollout.Queued, Why: fmt.Sprintf("behind release %d, which is %s", s.Seq, s.State), Waves: []rollout.WaveSummary{}}
	switch {
	case s.Seq > o.Seq || s.Queued > o.Seq:
		q.State, q.Why = rollout.Superseded, fmt.Sprintf("by release %d", max(s.Seq, s.Queued))
	case s.Queued != o.Seq:
		return nil, "", ErrNone
	}
	return q, next, nil
}

// LastWell is the last release of a channel whose roll-out completed well, as the server has it; 0
// if there is none, the server is older, or one may not look.
func LastWell(ctx context.Context, c *api.Client, channel string) (int64, error) {
	s, _, err := rollouts.Client{Client: c}.Show(ctx, channel, 0, "", 0)
	if e := (*api.Error)(nil); errors.As(err, &e) && e.Kind != api.Unavailable && e.Kind != api.Internal {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return s.LastWell, nil
}

// Line is a roll-out in one line: what is done, what waits, who is offline.
func Line(s *rollout.Summary) string {
	parts := []string{fmt.Sprintf("%d of %d hosts run it", s.Well, s.Total)}
	if s.Total == 0 {
		parts[0] = "no host had to change"
	}
	add := func(n int, words string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, words))
		}
	}
	add(s.Armed, "armed, and run it from their next reboot on")
	add(s.InFlight, "on their way")
	if s.Bad > 0 {
		parts = append(parts, fmt.Sprintf("%d ended badly%s", s.Bad, faults(s)))
	}
	add(s.Back, "back on what they ran before")
	add(s.Left, "left on it")
	if len(s.Waits) > 0 {
		var why []string
		for _, kind := range slices.Sorted(maps.Keys(s.Waits)) {
			if kind != api.WaitOffline {
				why = append(why, fmt.Sprintf("%d %s", s.Waits[kind], kind))
			}
		}
		if why != nil {
			parts = append(parts, "waiting: "+strings.Join(why, ", "))
		}
	}
	add(s.Offline, "offline")
	text := strings.Join(parts, "; ")
	if s.Why != "" {
		text += " (" + s.Why + ")"
	}
	return text
}

func faults(s *rollout.Summary) string {
	var list []string
	for _, h := range s.Faults {
		if len(list) == 5 {
			list = append(list, "…")
			break
		}
		list = append(list, h.Host+" "+string(h.Fault))
	}
	if list == nil {
		return ""
	}
	return ": " + strings.Join(list, ", ")
}
