package hooks

import (
	"narwharf/hooks/longpoll"
)

// poll answers a poll, now or later: when it returns, the poll may have been
// taken off net/http and c is not the caller's any more.
func (s *Server) poll(c *call, topics []string, over func(gone bool), look func() (longpoll.Answer, error)) (err error) {
	c.parked, err = s.polls.Serve(c.w, c.req, longpoll.Poll{Topics: topics, Look: look, Over: over, Route: c.route})
	return err
}
