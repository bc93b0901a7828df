package hooks

import (
	"net/http"

	"narwharf/hooks/audit"
	"narwharf/hooks/channel"
	"narwharf/hooks/longpoll"
)

// getEvents reads the audit log from ?since=ID on. With a wait it parks until
// there is something; the ETag is the id to go on from.
func (s *Server) getEvents(c *call) error {
	q, err := audit.ParseQuery(c.req.URL.Query().Get)
	if err != nil {
		return err
	}
	q.Sees = c.Sees()
	// Whoever waits has seen everything before since: no If-None-Match needed.
	if longpoll.Wait(c.req) > 0 && c.req.Header.Get("If-None-Match") == "" {
		c.req.Header.Set("If-None-Match", channel.ETag(q.Since))
	}
	return s.poll(c, longpoll.Poll{Topics: []string{audit.Events}, Look: func() (longpoll.Answer, error) {
		text, next, err := q.Page(s.set)
		return longpoll.Answer{Status: http.StatusOK, ETag: channel.ETag(next), Body: text}, err
	}})
}
