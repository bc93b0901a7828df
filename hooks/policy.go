package hooks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"narwharf/hooks/api"
	"narwharf/hooks/longpoll"
	"narwharf/hooks/window"
	"narwharf/signing"
	"narwharf/signing/access"
)

// policy is a channel's, ready to ask. It is replaced, never changed.
type policy struct {
	api.ChannelPolicy
	schedule window.Schedule

	mu          sync.Mutex // of what was last found out about the windows
	open        bool
	since, till time.Time
}

// state is that of the windows, which is asked for each host and seldom changes.
func (p *policy) state(now time.Time) (open bool, next time.Time) {
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

func newPolicy(p api.ChannelPolicy) (*policy, error) {
	s, err := window.NewSchedule(p.Windows)
	return &policy{ChannelPolicy: p, schedule: s}, err
}

// loadPolicies reads the table; the name of a channel that is not yet there may
// have one.
func loadPolicies(db *bbolt.DB) (map[string]*policy, error) {
	all := make(map[string]*policy)
	err := db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(rootBucket).Bucket(policyBucket).ForEach(func(k, v []byte) error {
			var a api.ChannelPolicy
			err := json.Unmarshal(v, &a)
			if err == nil {
				all[string(k)], err = newPolicy(a)
			}
			if err != nil {
				return fmt.Errorf("policy of channel %s: %w", k, err)
			}
			return nil
		})
	})
	return all, err
}

var noPolicy = new(policy)

// policy is that of a channel, an empty one if none was set.
func (s *Server) policy(channel string) *policy {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if p := s.policies[channel]; p != nil {
		return p
	}
	return noPolicy
}

func policyName(c *call) (string, error) {
	name := c.param("channel")
	if err := signing.CheckChannel(name); err != nil {
		return "", api.Errorf(api.BadRequest, "%v", err)
	}
	return name, nil
}

// getPolicy answers with an empty policy where none was set.
func (s *Server) getPolicy(c *call) error {
	name, err := policyName(c)
	if err != nil {
		return err
	}
	if err := c.operateOr(name); err != nil {
		return err
	}
	return s.poll(c, []string{channelTopic(name)}, nil, func() (longpoll.Answer, error) {
		return longpoll.JSON(s.policy(name).ChannelPolicy)
	})
}

const maxPolicy = 64 << 10

// putPolicy replaces a policy, and lets the hosts look anew.
func (s *Server) putPolicy(c *call) error {
	name, err := policyName(c)
	if err != nil {
		return err
	}
	if err := c.need(access.Scope{Kind: access.Operate}); err != nil {
		return err
	}
	next, err := readPolicy(c)
	if err != nil {
		return err
	}
	defer s.promoting.Lock(name)()
	now, err := longpoll.JSON(s.policy(name).ChannelPolicy)
	if err != nil {
		return err
	}
	if match := c.req.Header.Get("If-Match"); match != "" && !longpoll.Matches(match, now.ETag) {
		return api.Errorf(api.RaceLost, "the policy of %s is %s, not %s: somebody else changed it; look at it and change it again", name, now.ETag, match)
	}
	set, err := longpoll.JSON(next.ChannelPolicy)
	if err != nil {
		return err
	}
	// Without this file a rebuild would let hosts act at any time.
	if err := s.files.Write(policyFile(name), set.Body); err != nil {
		return err
	}
	_, err = s.store.update(s.clock(), func(ch *change) error {
		ch.note(api.Event{Kind: "channel.policy", By: c.who.Name, Channel: name, Text: "the policy of " + name + " is now " + next.String(),
			Data: map[string]string{"policy": strings.TrimSpace(string(set.Body))}})
		return putJSON(ch.tx.Bucket(policyBucket), []byte(name), next.ChannelPolicy)
	})
	if err != nil {
		return err
	}
	s.setPolicy(name, next)
	s.noted(name, channelTopic(name))
	c.w.Header().Set("Etag", set.ETag)
	longpoll.WriteJSON(c.w, http.StatusOK, set.Body)
	return nil
}

func policyFile(channel string) string { return "channels/" + channel + "/policy" }

func (s *Server) setPolicy(channel string, p *policy) {
	s.mu.Lock()
	s.policies[channel] = p
	s.mu.Unlock()
	s.watchSlots(channel)
}

// restorePolicy takes a channel's policy from its file, if the database has none.
func (s *Server) restorePolicy(channel string) error {
	if s.policy(channel) != noPolicy {
		return nil
	}
	text, err := s.files.Read(policyFile(channel), maxPolicy)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var a api.ChannelPolicy
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	if err == nil {
		err = a.Check()
	}
	if err != nil {
		return fmt.Errorf("restore the policy of channel %s: %w", channel, err)
	}
	p, err := newPolicy(a)
	if err != nil {
		return err
	}
	_, err = s.store.update(s.clock(), func(ch *change) error {
		ch.note(api.Event{Kind: "channel.policy", Channel: channel, Text: "the policy of " + channel + " was restored from its file: " + p.String()})
		return putJSON(ch.tx.Bucket(policyBucket), []byte(channel), a)
	})
	if err == nil {
		s.setPolicy(channel, p)
	}
	return err
}

// readPolicy is strict: a key that is misspelt would be a rule that is not kept.
func readPolicy(c *call) (*policy, error) {
	var raw json.RawMessage
	if err := readJSON(c, maxPolicy, &raw); err != nil {
		return nil, err
	}
	bad := func(err error) error {
		return api.Errorf(api.BadRequest, "the policy: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(raw, &keys); err != nil {
		return nil, bad(err)
	}
	if len(keys) == 0 {
		return nil, bad(errors.New(`it is empty; send {"windows":[]} for one without rules`))
	}
	var p api.ChannelPolicy
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return nil, bad(err)
	}
	if err := p.Check(); err != nil {
		return nil, bad(err)
	}
	next, err := newPolicy(p)
	if err != nil {
		return nil, bad(err)
	}
	return next, nil
}

// String is for the audit log.
func (p *policy) String() string {
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
	if p.MinAgent != "" {
		parts = append(parts, "agents from "+p.MinAgent)
	}
	if len(parts) == 0 {
		return "empty"
	}
	return strings.Join(parts, ", ")
}
