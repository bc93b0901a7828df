// Package simulate tells beforehand how a roll-out would go: the engine that a server
// has, hosts that download, switch, fail and are away by the odds that they are given,
// and a clock that is a number. The same seed gives the same run.
package simulate

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"narwharf/hooks/rollout/policy"
	"narwharf/hooks/window"
)

// Setup is a fleet and what may happen to it.
type Setup struct {
	Policy  *policy.Policy
	Windows []window.Window
	Hosts   int
	Labels  []Label
	// Fail is the share of hosts that go back from the release by themselves.
	Fail float64
	// Bad picks hosts that all do; nil: none.
	Bad *policy.Selector
	// Offline is the share of hosts that are away when the release comes. They come
	// evenly until Back is over; 0: they do not.
	Offline float64
	Back    time.Duration
	// Download and Switch are how long a host takes for each.
	Download, Switch Span
	// Approve is after how long somebody says yes to a wave that waits for that.
	Approve time.Duration
	Start   time.Time // for windows
}

// Label is one that some hosts have: a number of them, or a share.
type Label struct {
	Name, Value string
	Hosts       policy.Amount
}

// ParseLabel reads "site=fra:25%" and "canary=true:3".
func ParseLabel(text string) (l Label, err error) {
	bad := fmt.Errorf("%q is not a label with its hosts, like site=fra:25%% or canary=true:3", text)
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return l, bad
	}
	l.Name, l.Value, _ = strings.Cut(text[:i], "=")
	s, err := policy.ParseSelector(text[:i])
	if err != nil || l.Value == "" || s.Any() || !s.Matches(map[string]string{l.Name: l.Value}) {
		return Label{}, bad
	}
	if l.Hosts, err = policy.ParseAmount(text[i+1:]); err != nil {
		return Label{}, bad
	}
	return l, nil
}

// Span is a time that differs from host to host: nine of ten lie between Low and High,
// most of them near the lower end.
type Span struct{ Low, High time.Duration }

// ParseSpan reads "30s" and "30s..5m".
func ParseSpan(text string) (s Span, err error) {
	low, high, two := strings.Cut(text, "..")
	if !two {
		high = low
	}
	if s.Low, err = time.ParseDuration(low); err == nil {
		s.High, err = time.ParseDuration(high)
	}
	if err != nil || s.Low <= 0 || s.High < s.Low {
		return Span{}, fmt.Errorf("%q is not a time like 20s, or a span like 30s..5m", text)
	}
	return s, nil
}

// draw is a time of the span: log-normal, with the 5th and 95th percentile at its ends.
func (s Span) draw(r *rand.Rand) time.Duration {
	if s.Low == s.High {
		return s.Low
	}
	low, high := math.Log(float64(s.Low)), math.Log(float64(s.High))
	const ends = 1.6448536269514722 // of the normal distribution
	x := (low+high)/2 + r.NormFloat64()*(high-low)/2/ends
	return time.Duration(min(math.Exp(x), float64(24*time.Hour)))
}

// MaxHosts bounds a fleet: what a machine has memory for.
const MaxHosts = 2_000_000

// Check says what is wrong with a setup.
func (s *Setup) Check() error {
	switch {
	case s.Policy == nil || s.Policy.Rollout == nil:
		return errors.New(`the policy has no "rollout": everyone would begin at once; {"rollout": {}} is one wave with limits`)
	case s.Hosts < 1 || s.Hosts > MaxHosts:
		return fmt.Errorf("%d hosts are not from 1 to %d", s.Hosts, MaxHosts)
	case s.Fail < 0 || s.Fail > 1 || s.Offline < 0 || s.Offline > 1:
		return errors.New("shares of hosts are from 0% to 100%")
	case len(s.Labels) > 60:
		return errors.New("more than 60 labels")
	}
	for _, l := range s.Labels {
		if !l.Hosts.Percent && l.Hosts.N > s.Hosts {
			return fmt.Errorf("%d hosts are to have the label %s=%s, and there are %d", l.Hosts.N, l.Name, l.Value, s.Hosts)
		}
	}
	return s.Policy.Check()
}

// Point is where a run is at a time.
type Point struct {
	At                   time.Duration
	Wave                 int // from 1
	Flight, Well, Faults int
}

// Line is what happened, for people.
type Line struct {
	At   time.Duration
	Text string
}

// Result is how a run went.
type Result struct {
	State string        `json:"state"` // of the roll-out at the end
	Why   string        `json:"why,omitempty"`
	Took  time.Duration `json:"took_ns"`  // until it was completed, or halted
	Ended time.Duration `json:"ended_ns"` // until nothing more was on its way
	Hosts int           `json:"hosts"`
	// Exposed is how many hosts began with the release.
	Exposed   int     `json:"exposed"`
	Well      int     `json:"well"` // at the end
	Faults    int     `json:"faults"`
	Offline   int     `json:"offline"` // at the beginning
	MaxFlight int     `json:"max_in_flight"`
	Lines     []Line  `json:"-"`
	Points    []Point `json:"-"`
	Steps     int     `json:"steps"` // of the engine
}
