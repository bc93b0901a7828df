package hooks

import (
	"net/http"

	"narwharf/hooks/api"
	"narwharf/hooks/desired"
	"narwharf/hooks/host"
	"narwharf/signing/access"
)

// operatedHost is the host that an operator's request is about.
func operatedHost(c *call) (string, error) {
	name, err := hostParam(c)
	if err != nil {
		return "", err
	}
	return name, c.need(access.Scope{Kind: access.Operate})
}

// patchHost sets labels and hold.
func (s *Server) patchHost(c *call) error {
	name, err := operatedHost(c)
	if err != nil {
		return err
	}
	var p host.Patch
	if err := readJSON(c, 64<<10, &p); err != nil {
		return err
	}
	if err := p.Check(); err != nil {
		return err
	}
	if err := s.hosts.Patch(c.req.Context(), c.caller(), name, &p); err != nil {
		return err
	}
	return s.answerHost(c, name)
}

func (s *Server) deleteHost(c *call) error {
	name, err := operatedHost(c)
	if err != nil {
		return err
	}
	if err := s.fleet.Remove(c.req.Context(), c.caller(), name); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// approveHost says which machine has a host's name.
func (s *Server) approveHost(c *call) error {
	name, err := operatedHost(c)
	if err != nil {
		return err
	}
	var p struct {
		Instance *string `json:"instance"`
	}
	if err := readJSON(c, 4<<10, &p); err != nil {
		return err
	}
	if p.Instance == nil || host.CheckSelf(api.Self{Instance: *p.Instance}) != nil {
		return api.Errorf(api.BadRequest, `send {"instance":"…"}, 32 hex digits: narwharf host show %s lists the machines that claim the name`, name)
	}
	d, err := s.fleet.Describe(name)
	if err != nil {
		return err
	}
	if err := s.hosts.Approve(c.req.Context(), c.caller(), name, d.Channel, *p.Instance); err != nil {
		return err
	}
	return s.answerHost(c, name)
}

// retryHost asks a host to try its entry again that failed.
func (s *Server) retryHost(c *call) error { return s.direct(c, desired.Retry) }

// revertHost asks a host to leave a release for the last system that it found
// well before.
func (s *Server) revertHost(c *call) error { return s.direct(c, desired.Revert) }

func (s *Server) direct(c *call, what string) error {
	name, seq, err := operatedSeq(c)
	if err != nil {
		return err
	}
	if err := s.fleet.Direct(c.req.Context(), c.caller(), name, what, seq); err != nil {
		return err
	}
	return s.answerHost(c, name)
}

// releaseHost takes the reboot slot of a host that will not come back.
func (s *Server) releaseHost(c *call) error {
	name, seq, err := operatedSeq(c)
	if err != nil {
		return err
	}
	if err := s.fleet.Release(c.req.Context(), c.caller(), name, seq); err != nil {
		return err
	}
	return s.answerHost(c, name)
}

// operatedSeq reads a body {"seq":N}: about which release an operator speaks of a
// host, since there may be another meanwhile.
func operatedSeq(c *call) (name string, seq int64, err error) {
	if name, err = operatedHost(c); err != nil {
		return "", 0, err
	}
	var body struct {
		Seq int64 `json:"seq"`
	}
	if err := readJSON(c, 1<<10, &body); err != nil {
		return "", 0, err
	}
	if body.Seq < 1 {
		return "", 0, api.Errorf(api.BadRequest, `send {"seq":N}, the release that is meant`)
	}
	return name, body.Seq, nil
}
