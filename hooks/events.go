package hooks

import (
	"encoding/json"
	"net/http"
	"strconv"

	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/channel"
	"narwharf/hooks/longpoll"
	"narwharf/signing"
)

const eventPage = 500

// getEvents reads the audit log from ?since=ID on. With a wait it parks until
// there is something; the ETag is the id to go on from.
func (s *Server) getEvents(c *call) error {
	q := c.req.URL.Query()
	of := q.Get("channel")
	if of != "" {
		if err := signing.CheckChannel(of); err != nil {
			return api.Errorf(api.BadRequest, "%v", err)
		}
	}
	if err := c.operateOr(of); err != nil {
		return err
	}
	since := int64(1)
	if v := q.Get("since"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 0 {
			return api.Errorf(api.BadRequest, "since %q is not the id of an event", v)
		}
		since = n
	}
	// Whoever waits has seen everything before since: no If-None-Match needed.
	if longpoll.Wait(c.req) > 0 && c.req.Header.Get("If-None-Match") == "" {
		c.req.Header.Set("If-None-Match", channel.ETag(since))
	}
	return s.poll(c, longpoll.Poll{Topics: []string{audit.Events}, Look: func() (longpoll.Answer, error) {
		list, next, err := audit.Since(s.set, since, eventPage, func(e *api.Event) bool {
			return of == "" || e.Channel == of
		})
		if err != nil {
			return longpoll.Answer{}, err
		}
		if list == nil {
			list = []api.Event{} // events of other channels: next moves on all the same
		}
		text, err := json.Marshal(map[string]any{"events": list, "next": next})
		return longpoll.Answer{Status: http.StatusOK, ETag: channel.ETag(next), Body: append(text, '\n')}, err
	}})
}
