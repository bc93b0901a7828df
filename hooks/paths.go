package hooks

import (
	"net/http"
	"strings"

	"narwharf/hooks/api"
	"narwharf/narinfo"
)

// getWhy is GET /why?path=P: what keeps a store path.
func (s *Server) getWhy(c *call) error {
	text := c.req.URL.Query().Get("path")
	path, err := narinfo.ParseBase(text[strings.LastIndexByte(text, '/')+1:])
	if err != nil {
		return api.Errorf(api.BadRequest, "add ?path=/nix/store/…: %v", err)
	}
	why, err := s.collector.Why(c.req.Context(), path)
	return answerJSON(c, http.StatusOK, why, err)
}

// deletePath is DELETE /paths/{path}, which is a hash part or the name of a store path.
func (s *Server) deletePath(c *call) error {
	text := c.Param("path")
	if len(text) == 32 {
		text += "-x" // the hash part alone
	}
	path, err := narinfo.ParseBase(text)
	if err != nil {
		return api.Errorf(api.BadRequest, "a path is deleted by its hash part or its name: %v", err)
	}
	deleted, err := s.collector.Delete(c.ctx(), path.Hash(), c.Who.Name)
	return answerJSON(c, http.StatusOK, deleted, err)
}
