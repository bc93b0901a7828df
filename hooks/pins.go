package hooks

import (
	"net/http"

	"narwharf/hooks/api/retention"
	"narwharf/hooks/retain"
)

// ofPin is an endpoint about the pin in its path.
func ofPin(serve func(c *call, name string) error) endpoint {
	return func(c *call) error {
		name := c.Param("pin")
		if err := retain.CheckPin(name); err != nil {
			return err
		}
		return serve(c, name)
	}
}

func (s *Server) listPins(c *call) error {
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
	p, err := s.Retain.SetPin(ctx, &ask, c.Who.Name)
	return answerJSON(c, http.StatusOK, p, err)
}

func (s *Server) deletePin(c *call, name string) error {
	if err := s.Retain.Unpin(c.ctx(), name, c.Who.Name); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
