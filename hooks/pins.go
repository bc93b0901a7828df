package hooks

import (
	"net/http"

	"narwharf/hooks/api/retention"
	"narwharf/hooks/retain"
	"narwharf/signing/access/scope"
)

// ofPin is an endpoint about the pin in its path, for operators.
func ofPin(serve func(c *call, name string) error) endpoint {
	return func(c *call) error {
		if err := c.need(scope.Scope{Kind: scope.Operate}); err != nil {
			return err
		}
		name := c.param("pin")
		if err := retain.CheckPin(name); err != nil {
			return err
		}
		return serve(c, name)
	}
}

func (s *Server) listPins(c *call) error {
	if err := c.need(scope.Scope{Kind: scope.Operate}); err != nil {
		return err
	}
	return answerJSON(c, http.StatusOK, map[string]any{"pins": s.Retain.Pins()}, nil)
}

func (s *Server) getPin(c *call, name string) error {
	p, err := s.Retain.Pin(name)
	return answerJSON(c, http.StatusOK, p, err)
}

// putPin makes a pin, or replaces the one of that name.
func (s *Server) putPin(c *call, name string) error {
	var ask retention.Pin
	if err := s.readJSON(c, 64<<10, &ask); err != nil {
		return err
	}
	ask.Name = name
	ctx, cancel := s.polls.UntilStop(c.ctx())
	defer cancel()
	p, err := s.Retain.SetPin(ctx, &ask, c.who.Name)
	return answerJSON(c, http.StatusOK, p, err)
}

func (s *Server) deletePin(c *call, name string) error {
	if err := s.Retain.Unpin(c.ctx(), name, c.who.Name); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
