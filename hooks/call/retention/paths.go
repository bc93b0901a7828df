package retention

import (
	"net/http"
	"strings"

	"narwharf/hooks/api"
	"narwharf/hooks/call"
	"narwharf/narinfo"
)

// Why is GET /why?path=P: what keeps a store path.
func (h *Handlers) Why(c *call.Call) error {
	text := c.Req.URL.Query().Get("path")
	path, err := narinfo.ParseBase(text[strings.LastIndexByte(text, '/')+1:])
	if err != nil {
		return api.Errorf(api.BadRequest, "path: %v: write /nix/store/… or its name", err)
	}
	why, err := h.Collector.Why(c.Req.Context(), path)
	return c.JSON(http.StatusOK, why, err)
}

// DeletePath is DELETE /paths/{path}, which is a hash part or the name of a store path.
func (h *Handlers) DeletePath(c *call.Call) error {
	text := c.Param("path")
	if len(text) == 32 {
		text += "-x" // the hash part alone
	}
	path, err := narinfo.ParseBase(text)
	if err != nil {
		return api.Errorf(api.BadRequest, "a path is deleted by its hash part or its name: %v", err)
	}
	deleted, err := h.Collector.Delete(c.Ctx(), path.Hash(), c.Who.Name)
	return c.JSON(http.StatusOK, deleted, err)
}
