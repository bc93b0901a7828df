package credentials

import (
	"net/http"

	"narwharf/hooks/api"
	"narwharf/hooks/call"
	"narwharf/hooks/intake"
	"narwharf/hooks/longpoll"
	"narwharf/signing/access"
)

// Bootstrap makes a script for a new host, for those who trust this server as
// they trust a promoter. It has the join token that it is asked for with in it,
// and so nobody gets more by it than he has.
func (h *Handlers) Bootstrap(c *call.Call, name string) error {
	if h.Script == nil {
		return api.Errorf(api.NotFound,
			"this server makes no scripts for hosts, since they would have to trust it: narwharf bootstrap %s makes one where your keys are ([bootstrap] trust in the server's configuration turns this on)", name)
	}
	r, contentType, err := intake.ReadBootstrap(name, c.Req.URL.Query())
	if err != nil {
		return err
	}
	l := h.Channels.Get(name)
	if l.Release == nil {
		return l.Absent()
	}
	// An admin may make join tokens; his own has no business on a new machine.
	if t, err := h.Tokens.Lookup(c.Req.Context(), c.Who.TokenID); err != nil || t.Uses == 0 {
		return api.Errorf(api.BadRequest,
			"the script holds the token that it is asked for with, and so that has to be a join token: narwharf token new --join %s makes one", name)
	}
	r.Origin, r.Keys, r.Threshold, r.KeysVersion = l.State.Origin, l.State.Keys, l.State.Threshold, l.State.KeysVersion
	r.Seq, r.Token = l.Head.Seq, access.Presented(c.Req)
	if r.Host == "" {
		r.Host = c.Who.Host
	}
	text, err := h.Script(r)
	if err != nil {
		return api.Errorf(api.BadRequest, "%v", err)
	}
	c.W.Header().Set("Content-Type", contentType)
	longpoll.WriteJSON(c.W, http.StatusOK, []byte(text))
	return nil
}
