package intake

import (
	"net/url"

	"narwharf/hooks/api"
	"narwharf/signing"
)

// BootstrapRequest is what a first boot's script is asked for with, where hosts
// trust the server.
type BootstrapRequest struct {
	Channel, Origin string
	Keys            []string // of the channel
	Threshold       int
	KeysVersion     int64  // of the statement that Keys are of
	Seq             int64  // that the channel is at
	Token           string // the join token of the request
	Host, Target    string // may be ""
	Action          string // "", switch or boot
	CloudConfig     bool
}

// ReadBootstrap reads the query of one, and says of which type the answer is.
func ReadBootstrap(channel string, q url.Values) (r BootstrapRequest, contentType string, err error) {
	if q.Get("trust") != "server" {
		return r, "", api.Errorf(api.BadRequest,
			"a host that runs a script of this server trusts it with everything: say so by ?trust=server, or use narwharf bootstrap %s", channel)
	}
	r = BootstrapRequest{Channel: channel, Host: q.Get("host"), Target: q.Get("target"), Action: q.Get("action")}
	if r.Action != "" && r.Action != string(signing.Switch) && r.Action != string(signing.Boot) {
		return r, "", api.Errorf(api.BadRequest, "action %q is neither switch nor boot", r.Action)
	}
	switch q.Get("format") {
	case "", "script":
		return r, "text/x-shellscript; charset=utf-8", nil
	case "cloud-config":
		r.CloudConfig = true
		return r, "text/cloud-config; charset=utf-8", nil
	}
	return r, "", api.Errorf(api.BadRequest, "format %q is neither script nor cloud-config", q.Get("format"))
}
