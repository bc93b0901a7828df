package hooks

import (
	"net/http"

	"narwharf/hooks/api"
	"narwharf/hooks/call"
	"narwharf/hooks/keys"
	"narwharf/signing/access/scope"
)

// getKeys answers with the keys of a channel, and what led there.
func (s *Server) getKeys(c *call.Call, name string) error {
	k, err := s.keys.Describe(name)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, k, nil)
}

// putKeys takes one statement or revocation, or the names of recovery keys.
func (s *Server) putKeys(c *call.Call, name string) error {
	var change api.KeysChange
	if err := c.ReadJSON(keys.MaxChange, &change); err != nil {
		return err
	}
	if err := s.keys.Change(c.Ctx(), name, &change, c.Who.Name, c.May(scope.Scope{Kind: scope.Admin})); err != nil {
		return err
	}
	return s.getKeys(c, name)
}
