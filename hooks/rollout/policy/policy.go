// Package policy is the rules of a channel's roll-outs: in which waves hosts take a
// release, how many at a time, what stops it, and what has to be proven before.
//
// A policy is JSON, replaced as a whole. Parse is strict: a key that is misspelt
// would be a rule that nobody keeps. What the rules mean when a roll-out runs is in
// hooks/rollout/engine.
package policy

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Policy is the part of a channel's policy that is about roll-outs.
type Policy struct {
	Rollout  *Rollout  `json:"rollout,omitempty"` // nil: everyone at once
	Requires *Requires `json:"requires,omitempty"`
}

// Rollout says how hosts take a release. What is left out has the default that the
// method of its name tells.
type Rollout struct {
	Waves []Wave `json:"waves,omitempty"` // none: one with all hosts
	// MaxConcurrency bounds hosts in flight: a share of all that have to change.
	MaxConcurrency *Amount `json:"max_concurrency,omitempty"`
	// MaxErrors is how many hosts may end badly before the roll-out halts.
	MaxErrors *Amount `json:"max_errors,omitempty"`
	// SuccessThreshold is which share of a wave's hosts has to be well; nil: all but
	// those that ended badly.
	SuccessThreshold *Amount  `json:"success_threshold,omitempty"`
	Bake             Duration `json:"bake,omitempty"` // of waves that say none
	// AttemptTimeout is from the grant to the host's end; longer is an error.
	AttemptTimeout Duration `json:"attempt_timeout,omitempty"`
	OfflineAfter   Duration `json:"offline_after,omitempty"` // unheard of for so long is offline
	Timeout        Duration `json:"timeout,omitempty"`       // of a wave, until enough hosts are well
	After          []After  `json:"after,omitempty"`
	OnFailure      string   `json:"on_failure,omitempty"`
	OnSupersede    string   `json:"on_supersede,omitempty"`
	Prefetch       *bool    `json:"prefetch,omitempty"`
	// QuarantineAfter is how many hosts have to go back from a system by themselves for
	// it to be given to nobody; nil: one more than max_errors, 0: never.
	QuarantineAfter *int      `json:"quarantine_after,omitempty"`
	Rollback        *Rollback `json:"rollback,omitempty"`
}

// Wave is hosts that take a release before those of the next wave.
type Wave struct {
	Name   string   `json:"name,omitempty"`
	Select Selector `json:"select,omitzero"` // none: all hosts
	// Max is how many of them that have to change and are in no earlier wave; nil: all.
	Max     *Amount   `json:"max,omitempty"`
	Bake    *Duration `json:"bake,omitempty"`
	Checks  []string  `json:"checks,omitempty"`  // names of the server's [[check]] sections
	Approve bool      `json:"approve,omitempty"` // somebody has to say advance
}

// After holds back hosts until others are well.
type After struct {
	First     Selector `json:"first"`
	Then      Selector `json:"then"`
	IfOffline string   `json:"if_offline,omitempty"` // "wait" (default) or "skip": what an offline one of the first means
}

// Rollback is what differs for a release that goes back.
type Rollback struct {
	Bake           *Duration `json:"bake,omitempty"` // of all waves
	MaxConcurrency *Amount   `json:"max_concurrency,omitempty"`
}

// Requires is what a release has to have shown on another channel.
type Requires struct {
	Channel string   `json:"channel"`
	Baked   Duration `json:"baked,omitempty"` // since it was completed there
}

// The words of on_failure and on_supersede.
const (
	Halt       = "halt"
	RevertWave = "revert_wave"
	RevertAll  = "revert_all"

	Replace = "replace"
	Queue   = "queue"
	Reject  = "reject"

	Wait = "wait"
	Skip = "skip"
)

// Bounds of a policy: what an engine has to look at for each host.
const (
	maxWaves  = 50
	maxAfter  = 20
	maxChecks = 20
	maxText   = 64
	longest   = Duration(30 * 24 * time.Hour)
)

// Parse reads and checks a policy.
func Parse(text []byte) (*Policy, error) {
	p := new(Policy)
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil {
		return nil, fmt.Errorf("the policy: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if d.More() {
		return nil, errors.New("the policy: something follows its closing brace")
	}
	if err := p.Check(); err != nil {
		return nil, fmt.Errorf("the policy: %w", err)
	}
	return p, nil
}

// Check says in words what is wrong with a policy.
func (p *Policy) Check() error {
	if r := p.Requires; r != nil {
		switch {
		case r.Channel == "":
			return errors.New("requires names no channel")
		case r.Baked < 0 || r.Baked > longest:
			return fmt.Errorf("requires.baked %s is not from 0s to 30d", r.Baked)
		}
	}
	if p.Rollout == nil {
		return nil
	}
	return p.Rollout.Check()
}

// Check says in words what is wrong with the rules of roll-outs.
func (r *Rollout) Check() error {
	for _, check := range []func() error{r.checkWaves, r.checkTimes, r.checkAmounts, r.checkWords, r.checkAfter} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (r *Rollout) checkWaves() error {
	if len(r.Waves) > maxWaves {
		return fmt.Errorf("%d waves are more than %d", len(r.Waves), maxWaves)
	}
	for i := range r.Waves {
		w := &r.Waves[i]
		last := i == len(r.Waves)-1
		switch {
		case len(w.Name) > maxText:
			return fmt.Errorf("the name of wave %d is longer than %d bytes", i+1, maxText)
		case w.All() && !last:
			return fmt.Errorf("wave %d takes all hosts that are left, so nobody is left for wave %d: leave it out, or say max", i+1, i+2)
		case !w.All() && last:
			return fmt.Errorf(`the last wave, %s, does not take the hosts that are left: end with {"max": "100%%"}`, r.WaveText(i))
		case len(w.Checks) > maxChecks:
			return fmt.Errorf("wave %d has %d checks, more than %d", i+1, len(w.Checks), maxChecks)
		case w.Bake != nil && (*w.Bake < 0 || *w.Bake > longest):
			return fmt.Errorf("the bake %s of wave %d is not from 0s to 30d", *w.Bake, i+1)
		case w.Max != nil && !w.Max.Percent && w.Max.N == 0, w.Max != nil && w.Max.N == 0:
			return fmt.Errorf("max 0 of wave %d: a wave without hosts never passes", i+1)
		}
		for j, name := range w.Checks {
			if name == "" || len(name) > maxText || slices.Contains(w.Checks[:j], name) {
				return fmt.Errorf("the check %q of wave %d is empty, too long, or there twice", name, i+1)
			}
		}
	}
	return nil
}

func (r *Rollout) checkTimes() error {
	for _, t := range []struct {
		name     string
		d, least Duration
	}{
		{"bake", r.Bake, 0}, {"attempt_timeout", r.AttemptTimeout, Duration(time.Minute)},
		{"offline_after", r.OfflineAfter, Duration(time.Minute)}, {"timeout", r.Timeout, Duration(time.Minute)},
	} {
		if t.d != 0 && (t.d < t.least || t.d > longest) {
			return fmt.Errorf("%s %s is not from %s to 30d", t.name, t.d, t.least)
		}
	}
	if b := r.Rollback; b != nil && b.Bake != nil && (*b.Bake < 0 || *b.Bake > longest) {
		return fmt.Errorf("rollback.bake %s is not from 0s to 30d", *b.Bake)
	}
	return nil
}

func (r *Rollout) checkAmounts() error {
	least := func(name string, a *Amount) error {
		if a != nil && a.N == 0 {
			return fmt.Errorf("%s is 0: then no host could ever begin; to stop a roll-out there is narwharf freeze", name)
		}
		return nil
	}
	if err := least("max_concurrency", r.MaxConcurrency); err != nil {
		return err
	}
	if r.Rollback != nil {
		if err := least("rollback.max_concurrency", r.Rollback.MaxConcurrency); err != nil {
			return err
		}
	}
	if t := r.SuccessThreshold; t != nil && !t.Percent {
		return fmt.Errorf("success_threshold %s is no share: say \"95%%\"", t)
	}
	if q := r.QuarantineAfter; q != nil && (*q < 0 || *q > maxAmount) {
		return fmt.Errorf("quarantine_after %d is not from 0 (never) to %d", *q, maxAmount)
	}
	return nil
}

func (r *Rollout) checkWords() error {
	oneOf := func(name, value string, words ...string) error {
		if value == "" || slices.Contains(words, value) {
			return nil
		}
		return fmt.Errorf("%s %q is none of %s", name, value, strings.Join(words, ", "))
	}
	err := oneOf("on_failure", r.OnFailure, Halt, RevertWave, RevertAll)
	if err == nil {
		err = oneOf("on_supersede", r.OnSupersede, Replace, Queue, Reject)
	}
	for i := 0; err == nil && i < len(r.After); i++ {
		err = oneOf(fmt.Sprintf("if_offline of after %d", i+1), r.After[i].IfOffline, Wait, Skip)
	}
	return err
}

// All tells whether a wave takes every host that is left.
func (w *Wave) All() bool {
	return w.Select.Any() && (w.Max == nil || w.Max.Percent && w.Max.N >= whole)
}

// WaveText is a wave for people: its name, or where it stands.
func (r *Rollout) WaveText(i int) string {
	if i < len(r.Waves) && r.Waves[i].Name != "" {
		return r.Waves[i].Name
	}
	return fmt.Sprintf("wave %d", i+1)
}

// All the waves that there are; a policy without any has one.
func (r *Rollout) All() []Wave {
	if len(r.Waves) == 0 {
		return []Wave{{}}
	}
	return r.Waves
}

// Defaults of what a policy leaves out.
const (
	defaultAttempt = Duration(30 * time.Minute)
	defaultOffline = Duration(10 * time.Minute)
	defaultTimeout = Duration(24 * time.Hour)
)

// Attempt is attempt_timeout, 30 minutes if it is not said.
func (r *Rollout) Attempt() time.Duration {
	return time.Duration(cmp.Or(r.AttemptTimeout, defaultAttempt))
}

// Offline is offline_after, 10 minutes if it is not said.
func (r *Rollout) Offline() time.Duration {
	return time.Duration(cmp.Or(r.OfflineAfter, defaultOffline))
}

// WaveTimeout is timeout, a day if it is not said.
func (r *Rollout) WaveTimeout() time.Duration {
	return time.Duration(cmp.Or(r.Timeout, defaultTimeout))
}

// Asked are the names of the checks of all waves, each once. The nil Rollout has none.
func (r *Rollout) Asked() (names []string) {
	if r == nil {
		return nil
	}
	for i := range r.Waves {
		names = append(names, r.Waves[i].Checks...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Failing is on_failure, Halt if it is not said.
func (r *Rollout) Failing() string { return cmp.Or(r.OnFailure, Halt) }

// Superseding is on_supersede, Replace if it is not said.
func (r *Rollout) Superseding() string { return cmp.Or(r.OnSupersede, Replace) }

// Prefetches tells whether hosts are shown a release before their turn.
func (r *Rollout) Prefetches() bool { return r.Prefetch == nil || *r.Prefetch }

// Baking is how long a wave bakes.
func (r *Rollout) Baking(wave int, rollback bool) time.Duration {
	if rollback && r.Rollback != nil && r.Rollback.Bake != nil {
		return time.Duration(*r.Rollback.Bake)
	}
	if waves := r.All(); wave < len(waves) && waves[wave].Bake != nil {
		return time.Duration(*waves[wave].Bake)
	}
	return time.Duration(r.Bake)
}

// Concurrency is how many hosts may be in flight, of total that have to change.
func (r *Rollout) Concurrency(total int, rollback bool) int {
	limit := r.MaxConcurrency
	if rollback && r.Rollback != nil && r.Rollback.MaxConcurrency != nil {
		limit = r.Rollback.MaxConcurrency
	}
	if limit == nil {
		return max(total, 1)
	}
	return max(limit.Up(total), 1)
}

// Errors is how many hosts may end badly, of total that have to change.
func (r *Rollout) Errors(total int) int {
	if r.MaxErrors == nil {
		return 0
	}
	return r.MaxErrors.Up(total)
}

// Enough is how many hosts of those that count have to be well: at least one. Without
// success_threshold it is all but the bad ones, which max_errors bounds.
func (r *Rollout) Enough(count, bad int) int {
	if r.SuccessThreshold == nil {
		return max(count-bad, 1)
	}
	return max(r.SuccessThreshold.Up(count), 1)
}

// Quarantining is after how many hosts a system is given to nobody; 0 is never.
func (r *Rollout) Quarantining(total int) int {
	if r.QuarantineAfter != nil {
		return *r.QuarantineAfter
	}
	return r.Errors(total) + 1
}
