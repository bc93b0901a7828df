package channel

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/window"
	"narwharf/signing"
)

// Policy is a channel's, ready to ask. It is replaced, never changed.
type Policy struct {
	api.ChannelPolicy
	schedule window.Schedule

	mu          sync.Mutex // of what was last found out about the windows
	open        bool
	since, till time.Time
}

// NewPolicy makes a policy ready to ask.
func NewPolicy(of api.ChannelPolicy) (p *Policy, err error) {
	p = &Policy{ChannelPolicy: of}
	p.schedule, err = window.NewSchedule(of.Windows)
	return p, err
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *Policy) UnmarshalJSON(text []byte) (err error) {
	if err := json.Unmarshal(text, &p.ChannelPolicy); err != nil {
		return err
	}
	p.schedule, err = window.NewSchedule(p.Windows)
	return err
}

// MarshalJSON implements json.Marshaler.
func (p *Policy) MarshalJSON() ([]byte, error) { return json.Marshal(p.ChannelPolicy) }

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

var noPolicy = new(Policy)

// Policy is that of a channel, an empty one if none was set. The name of a
// channel that is not yet there may have one.
func (c *Channels) Policy(channel string) *Policy { return cmp.Or(c.policies.Get(channel), noPolicy) }

// Policies are all that were set.
func (c *Channels) Policies() map[string]*Policy { return c.policies.All() }

// IsPolicy tells whether a topic is of a policy alone.
func (c *Channels) IsPolicy(topic string) bool {
	return strings.HasPrefix(topic, c.policies.Topic(""))
}

// Encode is the policy as it is answered, with its ETag, a hash of it.
func (p *Policy) Encode() (etag string, text []byte) {
	text, err := json.Marshal(p.ChannelPolicy)
	if err != nil {
		panic(err) // numbers and strings always encode
	}
	sum := sha256.Sum256(text)
	return `"` + hex.EncodeToString(sum[:16]) + `"`, append(text, '\n')
}

// SetPolicy replaces a policy, and lets the hosts look anew. matches tells whether
// the ETag is one that the caller wants to replace.
func (c *Channels) SetPolicy(ctx context.Context, name string, p *Policy, matches func(etag string) error, by string) error {
	_, text := p.Encode()
	return c.set.Update(ctx, locks(name), func(tx *mirror.Tx) error {
		_, is := c.In(tx, name)
		if etag, _ := is.Encode(); matches(etag) != nil {
			return matches(etag)
		}
		// Without this file Restore would let hosts act at any time.
		tx.Keep(c.files.Write(policyName(name), text))
		c.putPolicy(tx, name, p, api.Event{By: by, Text: "the policy of " + name + " is now " + p.String(), Data: map[string]string{"policy": strings.TrimSpace(string(text))}})
		return nil
	})
}

func (c *Channels) putPolicy(tx *mirror.Tx, channel string, p *Policy, e api.Event) {
	e.Kind, e.Channel = "channel.policy", channel
	tx.Notify(audit.Channel(channel))
	audit.Note(tx, e)
	c.policies.Put(tx, channel, p)
}

func policyName(channel string) string { return "channels/" + channel + "/policy" }

// restorePolicy takes a channel's policy from its file, if the state has none.
func (c *Channels) restorePolicy(ctx context.Context, channel string) error {
	if c.policies.Get(channel) != nil {
		return nil
	}
	text, err := c.files.Read(policyName(channel), MaxPolicy)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	p := new(Policy)
	if err == nil {
		err = json.Unmarshal(text, p)
	}
	if err == nil {
		err = p.Check()
	}
	if err != nil {
		return fmt.Errorf("restore the policy of channel %s: %w", channel, err)
	}
	return c.set.Update(ctx, locks(channel), func(tx *mirror.Tx) error {
		if c.policies.In(tx, channel) == nil {
			c.putPolicy(tx, channel, p, api.Event{Text: "the policy of " + channel + " was restored from its file: " + p.String()})
		}
		return nil
	})
}

// MaxPolicy bounds the text of a policy.
const MaxPolicy = 64 << 10
