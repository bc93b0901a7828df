package hooks

import (
	"net/http"

	"narwharf/hooks/audit"
	"narwharf/hooks/call"
	"narwharf/hooks/channel"
	"narwharf/hooks/longpoll"
)

// getEvents reads the audit log from ?since=ID on. With a wait it parks until
// there is something; the ETag is the id to go on from. ?before=ID reads backwards.
func (s *Server) getEvents(c *call.Call) error {
	q, err := audit.ParseQuery(c.Req.URL.Query().Get)
	if err != nil {
		return err
	}
	q.Sees = c.Sees()
	// Whoever waits has seen everything before since: no If-None-Match needed.
	if q.Before == 0 && longpoll.Wait(c.Req) > 0 && c.Req.Header.Get("If-None-Match") == "" {
		c.Req.Header.Set("If-None-Match", channel.ETag(q.Since))
	}
	return c.Poll(longpoll.Poll{Topics: []string{audit.Events}, Look: func() (longpoll.Answer, error) {
		text, next, err := q.Page(s.set, &s.memory)
		return longpoll.Answer{Status: http.StatusOK, ETag: channel.ETag(next), Body: text}, err
	}})
}
