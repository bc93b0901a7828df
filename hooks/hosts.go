package hooks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"narwharf/hooks/api"
	"narwharf/hooks/longpoll"
	"narwharf/signing"
	"narwharf/signing/access"
)

var hostGrammar = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,126}$`)

func hostParam(c *call) (string, error) {
	name := c.param("host")
	if !hostGrammar.MatchString(name) {
		return "", api.Errorf(api.BadRequest, "%q is not a host name", name)
	}
	return name, nil
}

// operatedHost is the host that an operator's request is about.
func operatedHost(c *call) (string, error) {
	name, err := hostParam(c)
	if err != nil {
		return "", err
	}
	return name, c.need(access.Scope{Kind: access.Operate})
}

// getDesired is the agent's poll.
func (s *Server) getDesired(c *call) error {
	host, err := hostParam(c)
	if err != nil {
		return err
	}
	q := c.req.URL.Query()
	channel, target := q.Get("channel"), q.Get("target")
	if err := signing.CheckChannel(channel); err != nil {
		return api.Errorf(api.BadRequest, "add ?channel=NAME: %v", err)
	}
	if target == "" {
		target = host
	}
	if err := signing.CheckTarget(target); err != nil {
		return api.Errorf(api.BadRequest, "%v", err)
	}
	if err := c.needAs(host, access.Scope{Kind: access.Follow, Glob: channel}); err != nil {
		return err
	}
	self, err := selfOf(c.req)
	if err != nil {
		return err
	}
	if err := s.admitPoll(c, host, channel, self); err != nil {
		return err
	}
	if err := s.reviewSlot(host, self.BootID); err != nil {
		return err
	}
	who, ask := c.who, s.tell
	if c.req.Method == http.MethodHead {
		ask = s.desired // which is no agent that would act on it
	}
	p := s.presence(host)
	number, back := p.arrive(s.clock(), channel, target)
	if back {
		s.hostsChanged(channel)
	}
	over := func(gone bool) {
		until := p.leave(s.clock(), number, gone)
		s.wakeAt(until, hostsTopic(channel))
		s.wakeAt(until, hostsTopic(""))
	}
	return s.poll(c, []string{channelTopic(channel), hostTopic(host)}, over, func() (longpoll.Answer, error) {
		if o := s.identities.owner(host); s.foreign(o, host, self, who) {
			return longpoll.Answer{}, conflict(o, host, self) // the name has gone to another since
		}
		d, err := ask(host, channel, target)
		if err != nil {
			return longpoll.Answer{}, err
		}
		return d.answer()
	})
}

const maxStatus = 1 << 20

// putStatus takes a host's report. What it says is stored, if it can be true.
func (s *Server) putStatus(c *call) error {
	host, err := hostParam(c)
	if err != nil {
		return err
	}
	var st api.Status
	if err := readJSON(c, maxStatus, &st); err != nil {
		return err
	}
	if err := checkStatus(&st); err != nil {
		return api.Errorf(api.BadRequest, "%v", err)
	}
	if err := c.needAs(host, access.Scope{Kind: access.Follow, Glob: st.Channel}); err != nil {
		return err
	}
	unlock := s.reporting.Lock(host) // what it is compared with is read before the transaction
	events, err := s.report(c, host, &st)
	unlock()
	if err == nil {
		err = s.withdraw(st.Instance, host, st.Channel)
	}
	if err != nil {
		return err
	}
	s.hostsChanged(st.Channel)
	s.polls.Notify(hostTopic(host)) // what it says may be a question
	if len(events) > 0 {
		s.polls.Notify(eventsTopic)
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// report stores a report, with the host's name locked.
func (s *Server) report(c *call, host string, st *api.Status) ([]api.Event, error) {
	self := api.Self{Instance: st.Instance, Machine: st.Machine, BootID: st.BootID}
	if err := s.admit(c, host, st.Channel, self); err != nil {
		return nil, err
	}
	now := s.clock()
	s.presence(host).touch(now, st.Channel, st.Target)
	if r := s.store.host(host); r != nil && sameJSON(st, r.Status) {
		return nil, nil // said again, since the answer may have been lost
	}
	sl := s.slots.of(host)
	failed := sl != nil && sl.failed(st)
	if sl != nil && !sl.over(st, now) {
		sl = nil
	}
	events, err := s.store.update(now, func(ch *change) error {
		old := s.store.host(host)
		if old == nil {
			old = new(hostRecord)
		}
		if was := old.Status; was != nil && (st.StartID < was.StartID || st.StartID == was.StartID && st.Counter <= was.Counter) {
			e := api.Errorf(api.StaleStatus, "a newer report of %s is here: start %d, counter %d", host, was.StartID, was.Counter)
			e.StartID, e.Counter = was.StartID, was.Counter
			return e
		}
		next := *old
		next.Status, next.Reported, next.By = st, now.UTC(), c.who.Name
		if next.unusedFor() == nil || st.State.Final() && st.State != api.Armed {
			next.Unused = nil
		}
		if err := s.own(ch, host, st.Channel, self); err != nil {
			return err
		}
		s.noteStatus(ch, host, old.Status, st)
		if sl != nil {
			if err := ch.endSlot(host, sl, host, fmt.Sprintf("%s is %s (seq %d): its reboot slot of the group %s is free", host, st.State, st.Seq, sl.Group)); err != nil {
				return err
			}
		}
		return ch.putHost(host, &next)
	})
	if err == nil && sl != nil {
		s.slotEnded(host, sl)
	} else if err == nil && failed {
		s.slots.change(host, func(sl *slot) { sl.said = st.WaitingFor.Detail })
	}
	return events, err
}

func sameJSON(a, b any) bool {
	one, err := json.Marshal(a)
	if err != nil {
		return false
	}
	two, err := json.Marshal(b)
	return err == nil && bytes.Equal(one, two)
}

// checkStatus refuses what cannot be true, however it was arrived at.
func checkStatus(st *api.Status) error {
	if err := signing.CheckChannel(st.Channel); err != nil {
		return err
	}
	if err := signing.CheckTarget(st.Target); err != nil {
		return err
	}
	switch {
	case st.StartID <= 0 || st.Counter <= 0:
		return errors.New("start_id and counter are missing: reports are ordered by them")
	case !slices.Contains(api.States, st.State):
		return fmt.Errorf("state %q is not one of the agent's states", st.State)
	case st.BootID == "":
		return errors.New("boot_id is missing")
	case checkSelf(api.Self{Instance: st.Instance, Machine: st.Machine, BootID: st.BootID}) != nil:
		return errors.New("instance is not 32 hex digits, or machine or boot_id is longer than 64 characters")
	case st.DirectiveSerial < 0 || st.DirectiveSerial > api.MaxSerial:
		return fmt.Errorf("directive_serial %d is not from 0 to %d", st.DirectiveSerial, int64(api.MaxSerial))
	case st.State == api.OK && st.Wanted == "":
		return errors.New("state ok, and wanted is missing: which system is it that is ok?")
	case st.State == api.OK && st.Current != st.Wanted:
		return fmt.Errorf("state ok, but current is %s and wanted is %s", st.Current, st.Wanted)
	case st.State == api.Testing && st.Current != st.Wanted:
		return fmt.Errorf("state testing, but current is %s and wanted is %q", st.Current, st.Wanted)
	case st.State == api.Armed && st.Profile != st.Wanted:
		return fmt.Errorf("state armed, but the profile is %s and wanted is %q", st.Profile, st.Wanted)
	case st.State == api.OK && st.Action != string(signing.Test) && st.Profile != st.Wanted:
		return fmt.Errorf("state ok, but the profile is %s and wanted is %s", st.Profile, st.Wanted)
	case st.State == api.Reverted && st.Wanted != "" && st.Current == st.Wanted:
		return fmt.Errorf("state reverted, but current is still %s", st.Current)
	}
	return nil
}

// noteStatus writes down changes of state, and what ought to wake somebody.
func (s *Server) noteStatus(ch *change, host string, was, is *api.Status) {
	if was == nil || was.State != is.State || was.Seq != is.Seq || was.Attempt != is.Attempt {
		text := fmt.Sprintf("%s is %s", host, is.State)
		if is.Seq > 0 {
			text += fmt.Sprintf(" (seq %d)", is.Seq)
		}
		if is.Error != "" {
			text += ": " + is.Error
		}
		alarm := is.State == api.Failed || is.State == api.Rejected
		ch.note(api.Event{Kind: "host.state", By: host, Channel: is.Channel, Host: host, Seq: is.Seq, Text: text, Alarm: alarm,
			Data: map[string]string{"state": string(is.State), "attempt": is.Attempt, "current": is.Current}})
	}
	if l := s.channel(is.Channel); is.Head != nil && is.HighestSeq > l.state.Seq && (was == nil || was.HighestSeq != is.HighestSeq) {
		keys, threshold, err := l.trust()
		if err != nil || len(keys) == 0 {
			return
		}
		if head, err := signing.VerifyHead(is.Head.Head, signing.Trust{Keys: keys, Threshold: threshold, Origin: l.state.Origin, Channel: l.name}); err == nil && head.Seq == is.HighestSeq {
			ch.note(api.Event{Kind: "channel.behind", Channel: l.name, Host: host, Seq: head.Seq, Alarm: true,
				Text: fmt.Sprintf("%s shows a valid release %d of %s and this server knows %d: was it restored from an old backup?", host, head.Seq, l.name, l.state.Seq)})
		}
	}
}

// ---- operators

// operateOr is the right to look at the hosts of a channel: operators, and
// whoever may promote it and so has to know what became of that.
func (c *call) operateOr(channel string) error {
	if channel == "" {
		channel = "*" // all of them
	}
	return c.need(access.Scope{Kind: access.Operate}, access.Scope{Kind: access.Promote, Glob: channel})
}

func (s *Server) listHosts(c *call) error {
	channel := c.req.URL.Query().Get("channel")
	if channel != "" {
		if err := signing.CheckChannel(channel); err != nil {
			return api.Errorf(api.BadRequest, "%v", err)
		}
	}
	if err := c.operateOr(channel); err != nil {
		return err
	}
	return s.poll(c, []string{hostsTopic(channel)}, nil, func() (longpoll.Answer, error) {
		list, next := s.hosts(channel)
		if !next.IsZero() {
			s.wakeAt(next, hostsTopic(channel))
		}
		return longpoll.JSON(map[string]any{"hosts": list})
	})
}

// hosts are all that reported or polled, of all channels if none is named,
// sorted by name. The time next is when one of them will count as gone.
func (s *Server) hosts(channel string) (list []api.Host, next time.Time) {
	names := make(map[string]bool)
	records := s.store.allHosts()
	for n := range records {
		names[n] = true
	}
	s.mu.RLock()
	for n := range s.seen {
		names[n] = true
	}
	s.mu.RUnlock()
	s.identities.names(names)
	list = make([]api.Host, 0, len(names))
	for n := range names {
		h := s.describeHost(n, records[n])
		if channel != "" && h.channel != channel {
			continue
		}
		list = append(list, h.Host)
		if !h.until.IsZero() && (next.IsZero() || h.until.Before(next)) {
			next = h.until
		}
	}
	slices.SortFunc(list, func(a, b api.Host) int { return strings.Compare(a.Host, b.Host) })
	return list, next
}

type describedHost struct {
	api.Host
	channel string
	until   time.Time // when it counts as gone if nothing is heard; zero: not by that
}

func (s *Server) describeHost(name string, r *hostRecord) describedHost {
	h := describedHost{Host: api.Host{Host: name}}
	s.describeIdentity(&h.Host)
	target := name
	if r != nil {
		h.Reported, h.By, h.Labels, h.Status = r.Reported, r.By, r.Labels, r.Status
		if r.held(s.clock()) {
			h.Hold = r.Hold
		}
		h.LastSeen = r.Reported
		if r.Status != nil {
			h.channel, target = r.Status.Channel, r.Status.Target
		}
	}
	s.mu.RLock()
	p := s.seen[name]
	s.mu.RUnlock()
	if p != nil {
		target = p.describe(&h, s.clock())
	}
	if d, err := s.desired(name, h.channel, target); err == nil {
		h.WaitingFor, h.Directive = d.WaitingFor, d.Directive
		s.wakeFor(d, h.channel, name)
	}
	if sl := s.slots.of(name); sl != nil {
		h.Slot = &api.Slot{Group: sl.Group, Seq: sl.Seq, Granted: sl.Granted, Late: sl.Late}
	}
	l := s.channel(h.channel)
	if e := l.entry(target); e != nil {
		h.WantedSeq, h.Wanted = l.head.Seq, e.StorePath
		h.Converged = h.Status != nil && h.Status.Current == e.StorePath && h.Status.Seq == l.head.Seq && h.Status.State == api.OK
	}
	if st := h.Status; asksReboot(st) && st.Seq == h.WantedSeq {
		// What it waits for is our word, which it may not have heard yet.
	} else if st != nil && st.WaitingFor != nil {
		h.WaitingFor = st.WaitingFor
	} else if st != nil && st.Seq == h.WantedSeq && st.State.Final() {
		h.WaitingFor = nil // it is not waiting, whatever it would have to wait for
	}
	return h
}

func (s *Server) getHost(c *call) error {
	name, err := hostParam(c)
	if err != nil {
		return err
	}
	h := s.describeHost(name, s.store.host(name))
	if err := c.operateOr(h.channel); err != nil {
		return err
	}
	if h.LastSeen.IsZero() && h.Identity == nil {
		return unknownHost(name)
	}
	return s.poll(c, []string{hostsTopic(h.channel), hostTopic(name)}, nil, func() (longpoll.Answer, error) {
		h := s.describeHost(name, s.store.host(name))
		if !h.until.IsZero() {
			s.wakeAt(h.until, hostTopic(name))
		}
		return longpoll.JSON(h.Host)
	})
}

func unknownHost(name string) error {
	return api.Errorf(api.NotFound, "no host %s has polled or reported here", name)
}

// ---- logs of attempts

const (
	maxLog      = 256 << 10 // bytes kept of one attempt
	logsPerHost = 5
)

var attemptGrammar = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,64}$`)

func logKey(host, attempt string) []byte { return []byte(host + "\x00" + attempt) }

// postLog keeps the end of what an attempt printed.
func (s *Server) postLog(c *call) error {
	host, err := hostParam(c)
	if err != nil {
		return err
	}
	q := c.req.URL.Query()
	attempt, channel := q.Get("attempt"), q.Get("channel")
	if !attemptGrammar.MatchString(attempt) {
		return api.Errorf(api.BadRequest, "add ?attempt=ID")
	}
	if channel == "" {
		channel = s.describeHost(host, s.store.host(host)).channel // that of its last report
	}
	if err := signing.CheckChannel(channel); err != nil {
		return api.Errorf(api.BadRequest, "report a status first, or add ?channel=NAME: %v", err)
	}
	if err := c.needAs(host, access.Scope{Kind: access.Follow, Glob: channel}); err != nil {
		return err
	}
	self, err := selfOf(c.req)
	if err != nil {
		return err
	}
	if err := s.admitPoll(c, host, channel, self); err != nil {
		return err
	}
	text, err := io.ReadAll(http.MaxBytesReader(c.w, c.req.Body, 4*maxLog))
	if err != nil {
		return err
	}
	if len(text) > maxLog {
		text = append([]byte("[the beginning was cut off]\n"), text[len(text)-maxLog:]...)
	}
	err = s.store.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(rootBucket).Bucket(logBucket)
		var keys [][]byte
		cur := b.Cursor()
		for k, _ := cur.Seek([]byte(host + "\x00")); k != nil && strings.HasPrefix(string(k), host+"\x00"); k, _ = cur.Next() {
			keys = append(keys, slices.Clone(k))
		}
		// Attempt ids begin with the time, so the first keys are the oldest.
		for len(keys) >= logsPerHost && string(keys[0]) != string(logKey(host, attempt)) {
			if err := b.Delete(keys[0]); err != nil {
				return err
			}
			keys = keys[1:]
		}
		return b.Put(logKey(host, attempt), text)
	})
	if err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// getLog serves the log of an attempt, the last one if none is named.
func (s *Server) getLog(c *call) error {
	host, err := hostParam(c)
	if err != nil {
		return err
	}
	if err := c.operateOr(s.describeHost(host, s.store.host(host)).channel); err != nil {
		return err
	}
	attempt := c.req.URL.Query().Get("attempt")
	var text []byte
	found := false
	err = s.store.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(rootBucket).Bucket(logBucket)
		cur := b.Cursor()
		for k, v := cur.Seek([]byte(host + "\x00")); k != nil && strings.HasPrefix(string(k), host+"\x00"); k, v = cur.Next() {
			if attempt == "" || string(k) == string(logKey(host, attempt)) {
				text, found = slices.Clone(v), true
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !found {
		return api.Errorf(api.NotFound, "there is no such log of %s", host)
	}
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	longpoll.WriteJSON(c.w, http.StatusOK, text)
	return nil
}
