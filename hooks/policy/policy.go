// Package policy is the policies of channels: when hosts may act, and how many may
// reboot at a time.
//
// In the state, as JSON: hooks/policy  <channel>  policy.Channel. The name of a
// channel that is not there yet may have one. Whoever changes a policy holds the
// lock "policy:<channel>", and writes the same to the file channels/<channel>/policy,
// from which Restore makes the table anew: else hosts could act at any time then.
package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/semver"

	"narwharf/hooks/api"
	"narwharf/hooks/api/policy"
	"narwharf/hooks/window"
	"narwharf/signing"
)

// Policy is a channel's, ready to ask. It is replaced, never changed.
type Policy struct {
	policy.Channel
	schedule window.Schedule

	mu          sync.Mutex // of what was last found out about the windows
	open        bool
	since, till time.Time
}

// Parse is strict: a key that is misspelt would be a rule that is not kept.
func Parse(text []byte) (*Policy, error) {
	bad := func(err error) error {
		return api.Errorf(api.BadRequest, "the policy: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(text, &keys); err != nil {
		return nil, bad(err)
	}
	if len(keys) == 0 {
		return nil, bad(errors.New(`it is empty; send {"windows":[]} for one without rules`))
	}
	p := new(Policy)
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(&p.Channel)
	if err == nil {
		err = p.Check()
	}
	if err == nil {
		p.schedule, err = window.NewSchedule(p.Windows)
	}
	if err != nil {
		return nil, bad(err)
	}
	return p, nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *Policy) UnmarshalJSON(text []byte) (err error) {
	if err := json.Unmarshal(text, &p.Channel); err != nil {
		return err
	}
	p.schedule, err = window.NewSchedule(p.Windows)
	return err
}

// MarshalJSON implements json.Marshaler.
func (p *Policy) MarshalJSON() ([]byte, error) { return json.Marshal(p.Channel) }

// Open tells whether a window is open, and when that changes next; zero is never.
// It is asked for each host, and the answer seldom changes.
func (p *Policy) Open(now time.Time) (open bool, next time.Time) {
	if len(p.schedule) == 0 {
		return true, time.Time{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.till.IsZero() || now.Before(p.since) || !now.Before(p.till) {
		p.open, p.till = p.schedule.State(now)
		p.since = now
	}
	return p.open, p.till
}

// Opens says when the next window does, which Open has told.
func (p *Policy) Opens(next time.Time) string { return p.schedule.Opens(next) }

// Unasked tells whether nobody has asked for the reboot of a host: the release
// does not say reboot, and the policy does not say how many may at a time.
// Without that a new kernel would take down all hosts at once.
func (p *Policy) Unasked(st *api.Status) bool {
	return p.RebootSlots == 0 && st.Action != string(signing.Reboot)
}

// TooOld tells whether an agent is of a version below min_agent. A version that is none,
// as of one that a developer built, is new enough, as the agent itself says.
func (p *Policy) TooOld(agent string) bool {
	have, least := semantic(agent), semantic(p.MinAgent)
	return have != "" && least != "" && semver.Compare(have, least) < 0
}

// semantic makes "v0.5.1" of "0.5.1" and of "0.5.1-3-gabcdef", and "" of what is no version.
func semantic(s string) string {
	core, _, _ := strings.Cut(strings.ReplaceAll(strings.TrimSpace(s), "+", "-"), "-")
	return semver.Canonical("v" + strings.TrimPrefix(core, "v"))
}

var none = new(Policy)

// Encode is the policy as it is answered, with its ETag, a hash of it.
func (p *Policy) Encode() (etag string, text []byte) {
	text, err := json.Marshal(p.Channel)
	if err != nil {
		panic(err) // numbers and strings always encode
	}
	sum := sha256.Sum256(text)
	return `"` + hex.EncodeToString(sum[:16]) + `"`, append(text, '\n')
}

// String is a policy in a line, for the audit log.
func (p *Policy) String() string {
	var parts []string
	for _, w := range p.Windows {
		parts = append(parts, "window "+w.String())
	}
	add := func(n int64, format string) {
		if n != 0 {
			parts = append(parts, fmt.Sprintf(format, n))
		}
	}
	add(int64(p.RebootSlots), "%d reboot slots")
	add(p.RebootTimeout, "reboot timeout %d s")
	add(p.ConfirmTimeout, "confirm timeout %d s")
	add(p.ProbationMin, "probation of %d s")
	if r := p.Rollout; r != nil {
		parts = append(parts, fmt.Sprintf("roll-outs in %d waves", len(r.All())))
	}
	if r := p.Requires; r != nil {
		parts = append(parts, "what was proven on "+r.Channel)
	}
	if p.MinAgent != "" {
		parts = append(parts, "agents from "+p.MinAgent)
	}
	if len(parts) == 0 {
		return "empty"
	}
	return strings.Join(parts, ", ")
}
