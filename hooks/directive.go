package hooks

import (
	"fmt"
	"net/http"
	"time"

	"narwharf/hooks/api"
)

// retryHost asks a host to try its entry again that failed.
func (s *Server) retryHost(c *call) error {
	return s.direct(c, "retry", "%s is asked to try seq %d again")
}

// revertHost asks a host to leave a release for the last system that it found
// well before.
func (s *Server) revertHost(c *call) error {
	return s.direct(c, "revert", "%s is asked to leave seq %d")
}

// direct gives a host a directive about the release that is wanted of it. It
// stands until there is another release; a host obeys each once, by its id, and
// none that is older than one that it obeyed, by its serial.
func (s *Server) direct(c *call, what, text string) error {
	name, err := operatedHost(c)
	if err != nil {
		return err
	}
	seq, err := readSeq(c)
	if err != nil {
		return err
	}
	defer s.reporting.Lock(name)()
	record := s.store.host(name)
	if record == nil {
		return unknownHost(name)
	}
	h := s.describeHost(name, record)
	if h.Wanted == "" {
		return api.Errorf(api.NotFound, "there is no release for %s that it could %s", name, what)
	}
	if h.WantedSeq != seq {
		return otherSeq(name, seq, h.WantedSeq)
	}
	now := s.clock()
	serial := nextSerial(now, record, h.channel, seq)
	if serial > api.MaxSerial {
		return api.Errorf(api.SeqConflict, "%s says that it has obeyed directive %d of seq %d, and there is none above it: promote the same again as another seq, and say it of that", name, serial-1, seq)
	}
	next := *record
	next.Directive = &api.Directive{Type: what, Seq: seq, ID: fmt.Sprintf("%s-%d-%x", what, seq, now.UnixNano()), Serial: serial}
	if what == "retry" {
		next.Unused = nil // it is as if it had never been let reboot
	}
	_, err = s.store.update(now, func(ch *change) error {
		ch.note(api.Event{Kind: "host." + what, By: c.who.Name, Host: name, Channel: h.channel, Seq: seq, Text: fmt.Sprintf(text, name, seq)})
		return ch.putHost(name, &next)
	})
	if err != nil {
		return err
	}
	if what == "retry" {
		s.slots.change(name, func(sl *slot) { sl.retried = sl.Seq == seq && sl.lease(now) == 0 })
	}
	s.noted(h.channel, hostTopic(name))
	writeJSON(c.w, http.StatusOK, s.describeHost(name, &next).Host)
	return nil
}

// nextSerial is above all that this server gave the host about a release, and
// above what the host says it obeyed: the clock may have been set back, and the
// database may be an old one. The clock's milliseconds are above what was given
// after that database was saved, and the host has not yet told of.
func nextSerial(now time.Time, r *hostRecord, channel string, seq int64) int64 {
	last := int64(0)
	if d := r.Directive; d != nil && d.Seq == seq {
		last = d.Serial
	}
	if st := r.Status; st != nil && st.Channel == channel && st.HighestSeq == seq {
		last = max(last, st.DirectiveSerial)
	}
	return max(last+1, now.UnixMilli())
}

// readSeq reads a body {"seq":N}: about which release an operator speaks, since
// there may be another meanwhile.
func readSeq(c *call) (int64, error) {
	var body struct {
		Seq int64 `json:"seq"`
	}
	if err := readJSON(c, 1<<10, &body); err != nil {
		return 0, err
	}
	if body.Seq < 1 {
		return 0, api.Errorf(api.BadRequest, `send {"seq":N}, the release that is meant`)
	}
	return body.Seq, nil
}

func otherSeq(host string, asked, is int64) error {
	return api.Errorf(api.SeqConflict, "for %s it is seq %d now, not %d: look at it and say so again if you still mean it", host, is, asked)
}
