// Package policy is the policy of a channel as it goes over the wire, and the calls about it.
package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/rollout/policy"
	"narwharf/hooks/window"
)

// Channel is the body of GET and PUT /api/v1/channels/{c}/policy: when
// hosts of a channel may act, and how many of them may reboot at a time. It is
// replaced as a whole; what is left out is as if it had never been said.
type Channel struct {
	// Windows are the times in which hosts may start on a release and reboot;
	// none: always. What a host has begun it ends.
	Windows []window.Window `json:"windows,omitempty"`
	// RebootSlots is how many hosts of a group may be rebooting; 0: any number for
	// releases with the action reboot, and none for auto, which then leaves it to
	// people. A host's group is its label reboot_group, and without one its channel.
	RebootSlots int `json:"reboot_slots,omitempty"`
	// RebootTimeout is after how many seconds a host that was let reboot and has
	// not come back is an alarm; 0: 900.
	RebootTimeout int64 `json:"reboot_timeout_s,omitempty"`
	// MinAgent is the oldest version of an agent that may act; "": any.
	MinAgent string `json:"min_agent,omitempty"`
	// Rollout is how hosts take a release; nil: everyone at once. Requires is what a release
	// has to have shown on another channel.
	Rollout  *policy.Rollout  `json:"rollout,omitempty"`
	Requires *policy.Requires `json:"requires,omitempty"`
	api.Policy
}

// maxTightening bounds what a policy may ask of hosts, in seconds; agents obey
// no more.
const maxTightening = 3600

var versionGrammar = regexp.MustCompile(`^v?\d{1,9}\.\d{1,9}(?:\.\d{1,9})?(?:[-+].*)?$`)

// Check says what is wrong with a policy, and writes days in lower case.
func (p *Channel) Check() error {
	if len(p.Windows) > 50 {
		return fmt.Errorf("%d windows are more than 50", len(p.Windows))
	}
	for i := range p.Windows {
		w := &p.Windows[i]
		if err := w.Check(); err != nil {
			return err
		}
		if w.Zone == "Local" {
			return errors.New("zone Local is another on every machine: name one, as Europe/Berlin")
		}
	}
	switch {
	case p.RebootSlots < 0 || p.RebootSlots > 1_000_000:
		return fmt.Errorf("reboot_slots %d is not from 0 (any number) to 1000000", p.RebootSlots)
	case p.RebootTimeout < 0 || p.RebootTimeout > 7*24*3600 || p.RebootTimeout > 0 && p.RebootTimeout < 60:
		return fmt.Errorf("reboot_timeout_s %d is not from 60 to a week's 604800, or 0 for 900", p.RebootTimeout)
	case p.ConfirmTimeout < 0 || p.ConfirmTimeout > maxTightening:
		return fmt.Errorf("confirm_timeout_s %d is not from 0 to %d", p.ConfirmTimeout, maxTightening)
	case p.ProbationMin < 0 || p.ProbationMin > maxTightening:
		return fmt.Errorf("probation_min_s %d is not from 0 to %d", p.ProbationMin, maxTightening)
	case p.MinAgent != "" && (len(p.MinAgent) > 64 || !versionGrammar.MatchString(p.MinAgent)):
		return fmt.Errorf("min_agent %q is not a version like 0.5.1", p.MinAgent)
	}
	return (&policy.Policy{Rollout: p.Rollout, Requires: p.Requires}).Check()
}

// DefaultRebootTimeout is that of a policy which names none.
const DefaultRebootTimeout = 15 * time.Minute

// RebootPatience is the policy's reboot_timeout_s, or the default.
func (p *Channel) RebootPatience() time.Duration {
	if p.RebootTimeout == 0 {
		return DefaultRebootTimeout
	}
	return time.Duration(p.RebootTimeout) * time.Second
}

// Set is the answer to a PUT: the policy, and what of it may not be meant.
type Set struct {
	Channel
	Warnings []string `json:"warnings,omitempty"`
}

// Of reads a channel's policy, after replacing it by set if that is not nil. The server says what
// is wrong with it.
func Of(ctx context.Context, c *api.Client, channel string, set json.RawMessage) (*Set, error) {
	call := api.Call{Path: "/api/v1/channels/" + url.PathEscape(channel) + "/policy"}
	if set != nil {
		call.Method, call.Body = http.MethodPut, set
	}
	a, err := c.Do(ctx, call)
	if err != nil {
		return nil, err
	}
	p := new(Set)
	return p, a.Decode(p)
}
