package check

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"narwharf/hooks/rollout"
)

// Bake is a wave that bakes, and what is to be asked of it meanwhile.
type Bake struct {
	About
	Since time.Time // when the bake began
	Names []string
}

// Rollouts is who knows what bakes, and is told the answers.
type Rollouts interface {
	// Bakes are the waves of running roll-outs that bake now and have checks. It is called
	// every second, and answers from memory. What it returns is not changed any more.
	Bakes() []Bake
	// Checked takes an answer. An error is that it could not be stored; the next answer
	// is told in any case.
	Checked(ctx context.Context, c rollout.Checked) error
}

const (
	look  = time.Second // between two looks at what bakes
	atAll = 16          // checks that are asked at once
)

// Loop asks the checks of all bakes again and again, each at its interval, the first time
// at once.
type Loop struct {
	Checks   *Set
	Rollouts Rollouts
	Log      *slog.Logger
	Clock    func() time.Time // of the roll-outs; nil: time.Now

	room chan struct{}
}

// key is one check of one bake.
type key struct {
	channel string
	seq     int64
	wave    int
	since   time.Time
	name    string
}

// Run asks until ctx ends.
func (l *Loop) Run(ctx context.Context) {
	l.room = make(chan struct{}, atAll)
	if l.Clock == nil {
		l.Clock = time.Now
	}
	var asking sync.WaitGroup
	defer asking.Wait()
	stops := make(map[key]context.CancelFunc)
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		now := make(map[key]bool)
		for _, b := range l.Rollouts.Bakes() {
			for _, name := range b.Names {
				k := key{b.Channel, b.Seq, b.Wave, b.Since.UTC().Round(0), name}
				now[k] = true
				if stops[k] != nil {
					continue
				}
				baking, stop := context.WithCancel(ctx)
				stops[k] = stop
				asking.Go(func() { l.through(baking, name, &b.About) })
			}
		}
		for k, stop := range stops {
			if !now[k] {
				stop()
				delete(stops, k)
			}
		}
		select {
		case <-ctx.Done():
			for _, stop := range stops {
				stop()
			}
			return
		case <-tick.C:
		}
	}
}

// through asks a check until its bake is over, which ends ctx.
func (l *Loop) through(ctx context.Context, name string, about *About) {
	log := l.Log.With("check", name, "channel", about.Channel, "seq", about.Seq, "wave", about.Wave)
	nos, before := 0, Said("")
	for {
		is := rollout.Checked{Channel: about.Channel, Seq: about.Seq, Wave: about.Wave, Name: name, Asked: l.Clock(),
			None: true, Detail: "it is not in this server's configuration any more"}
		wait := Interval
		if c := l.Checks.Get(name); c != nil {
			wait = c.Interval
			a, ok := l.ask(ctx, c, about)
			if !ok {
				return
			}
			if a.Said != No {
				nos = -1
			}
			nos++
			is.OK, is.None, is.Detail, is.Stands = a.Said == Yes, a.Said == None, a.Detail, c.stands()
			if a.Said == No && nos < c.Failures {
				is.None, is.Detail = true, fmt.Sprintf("it says no (%d of %d times): %s", nos, c.Failures, a.Detail)
			}
			if a.Said != before {
				log.Info("a check answers", "said", a.Said, "detail", a.Detail)
				before = a.Said
			}
		}
		if err := l.Rollouts.Checked(ctx, is); err != nil && ctx.Err() == nil {
			log.Error("the answer of a check was not stored", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// stands is for how long an answer counts: until the next is surely there, also if the one
// between was none.
func (c *Check) stands() time.Duration { return 2*(c.Interval+c.Timeout) + 10*time.Second }

// ask asks when there is room. ok is false when the bake is over: then it says nothing.
func (l *Loop) ask(ctx context.Context, c *Check, about *About) (a Answer, ok bool) {
	select {
	case l.room <- struct{}{}:
	case <-ctx.Done():
		return a, false
	}
	defer func() { <-l.room }()
	a = c.Ask(ctx, about)
	return a, ctx.Err() == nil
}
