package api

import (
	"fmt"
	"regexp"
	"slices"
	"time"
)

// ChannelPolicy is the body of GET and PUT /api/v1/channels/{c}/policy: when
// hosts of a channel may act, and how many of them may reboot at a time. It is
// replaced as a whole; what is left out is as if it had never been said.
type ChannelPolicy struct {
	// Windows are the times in which hosts may start on a release and reboot;
	// none: always. What a host has begun it ends.
	Windows []Window `json:"windows,omitempty"`
	// RebootSlots is how many hosts of a group may be rebooting; 0: any number for
	// releases with the action reboot, and none for auto, which then leaves it to
	// people. A host's group is its label reboot_group, and without one its channel.
	RebootSlots int `json:"reboot_slots,omitempty"`
	// RebootTimeout is after how many seconds a host that was let reboot and has
	// not come back is an alarm; 0: 900.
	RebootTimeout int64 `json:"reboot_timeout_s,omitempty"`
	// MinAgent is the oldest version of an agent that may act; "": any.
	MinAgent string `json:"min_agent,omitempty"`
	Policy
}

// Policy tightens what the host's configuration says; zero values do nothing.
type Policy struct {
	ConfirmTimeout int64 `json:"confirm_timeout_s,omitempty"`
	ProbationMin   int64 `json:"probation_min_s,omitempty"`
}

// Window is a time of the day on some days of the week. With To not after From
// it lasts into the next day; with both the same, for a day. It opens at the first
// moment at which the zone's clocks show From or later, and closes likewise: of a
// time that the clocks show twice the first counts, and a window that lies within
// an hour that they skip does not open that day.
type Window struct {
	Days []string `json:"days,omitempty"` // on which it opens: "mon" to "sun"; none: each
	From string   `json:"from"`           // "22:00"
	To   string   `json:"to"`             // "04:00"
	Zone string   `json:"zone,omitempty"` // as "Europe/Berlin"; UTC if empty
}

// Weekdays are the names of Window.Days, by time.Weekday.
var Weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// maxTightening bounds what a policy may ask of hosts, in seconds; agents obey
// no more.
const maxTightening = 3600

var (
	clockGrammar   = regexp.MustCompile(`^(?:[01]\d|2[0-3]):[0-5]\d$`)
	versionGrammar = regexp.MustCompile(`^v?\d{1,9}\.\d{1,9}(?:\.\d{1,9})?(?:[-+].*)?$`)
)

// Check says what is wrong with a policy.
func (p *ChannelPolicy) Check() error {
	if len(p.Windows) > 50 {
		return fmt.Errorf("%d windows are more than 50", len(p.Windows))
	}
	for _, w := range p.Windows {
		if err := w.check(); err != nil {
			return err
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
	return nil
}

func (w *Window) check() error {
	for i, d := range w.Days {
		if !slices.Contains(Weekdays, d) || slices.Contains(w.Days[:i], d) {
			return fmt.Errorf("day %q of a window is none of mon, tue, wed, thu, fri, sat, sun, or is there twice", d)
		}
	}
	for _, t := range []string{w.From, w.To} {
		if !clockGrammar.MatchString(t) {
			return fmt.Errorf("%q of a window is not a time like 22:00", t)
		}
	}
	if w.Zone == "Local" {
		return fmt.Errorf("zone Local is another on every machine: name one, as Europe/Berlin")
	}
	if _, err := time.LoadLocation(w.Zone); err != nil {
		return fmt.Errorf("zone %q of a window: %w", w.Zone, err)
	}
	return nil
}

// DefaultRebootTimeout is that of a policy which names none.
const DefaultRebootTimeout = 15 * time.Minute

// RebootPatience is the policy's reboot_timeout_s, or the default.
func (p *ChannelPolicy) RebootPatience() time.Duration {
	if p.RebootTimeout == 0 {
		return DefaultRebootTimeout
	}
	return time.Duration(p.RebootTimeout) * time.Second
}
