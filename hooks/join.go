package hooks

import (
	"net/http"

	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/host"
	"narwharf/hooks/longpoll"
	"narwharf/hooks/reply"
	"narwharf/signing"
	"narwharf/signing/access"
)

// join makes the token of a host for a join token.
func (s *Server) join(c *call) error {
	var j api.Join
	if err := s.readJSON(c, 4<<10, &j); err != nil {
		return err
	}
	if err := host.CheckJoin(&j); err != nil {
		return err
	}
	if err := c.About(j.Channel); err != nil {
		return err
	}
	secret, err := s.hosts.Join(c.ctx(), c.caller(), &j)
	if err != nil {
		return err
	}
	s.hosts.Presence(j.Host).Touch(s.clock(), j.Channel, j.Host)
	s.polls.Notify(audit.Hosts(j.Channel)...)
	reply.JSON(c.w, http.StatusCreated, api.Joined{Host: j.Host, Channel: j.Channel, Token: secret})
	return nil
}

// BootstrapRequest is what a first boot's script is asked for with, where hosts
// trust the server.
type BootstrapRequest struct {
	Channel, Origin string
	Keys            []string // of the channel
	Threshold       int
	Seq             int64  // that the channel is at
	Token           string // the join token of the request
	Host, Target    string // may be ""
	Action          string // "", switch or boot
	CloudConfig     bool
}

// getBootstrap makes a script for a new host, for those who trust this server as
// they trust a promoter. It has the join token that it is asked for with in it,
// and so nobody gets more by it than he has.
func (s *Server) getBootstrap(c *call, name string) error {
	if s.bootstrap == nil {
		return api.Errorf(api.NotFound,
			"this server makes no scripts for hosts, since they would have to trust it: narwharf bootstrap %s makes one where your keys are ([bootstrap] trust in the server's configuration turns this on)", name)
	}
	q := c.req.URL.Query()
	if q.Get("trust") != "server" {
		return api.Errorf(api.BadRequest,
			"a host that runs a script of this server trusts it with everything: say so by ?trust=server, or use narwharf bootstrap %s", name)
	}
	l := s.channels.Get(name)
	if l.Release == nil {
		return l.Absent()
	}
	// An admin may make join tokens; his own has no business on a new machine.
	if t, err := s.tokens.Lookup(c.req.Context(), c.Who.TokenID); err != nil || t.Uses == 0 {
		return api.Errorf(api.BadRequest,
			"the script holds the token that it is asked for with, and so that has to be a join token: narwharf token new --join %s makes one", name)
	}
	r := BootstrapRequest{
		Channel: name, Origin: l.State.Origin, Keys: l.State.Keys, Threshold: l.State.Threshold, Seq: l.Head.Seq,
		Token: access.Presented(c.req), Host: q.Get("host"), Target: q.Get("target"), Action: q.Get("action"),
	}
	if r.Host == "" {
		r.Host = c.Who.Host
	}
	if r.Action != "" && r.Action != string(signing.Switch) && r.Action != string(signing.Boot) {
		return api.Errorf(api.BadRequest, "action %q is neither switch nor boot", r.Action)
	}
	contentType := "text/x-shellscript; charset=utf-8"
	switch q.Get("format") {
	case "", "script":
	case "cloud-config":
		r.CloudConfig, contentType = true, "text/cloud-config; charset=utf-8"
	default:
		return api.Errorf(api.BadRequest, "format %q is neither script nor cloud-config", q.Get("format"))
	}
	text, err := s.bootstrap(r)
	if err != nil {
		return api.Errorf(api.BadRequest, "%v", err)
	}
	c.w.Header().Set("Content-Type", contentType)
	longpoll.WriteJSON(c.w, http.StatusOK, []byte(text))
	return nil
}
