package reply

import (
	"cmp"
	"crypto/rand"
	"net/http"
	"regexp"
	"strings"

	"narwharf/hooks/api"
	"narwharf/signing/access"
)

const requestID = "X-Request-Id"

// A token or a JWT does not fit.
var wellFormed = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$`)

// Identify gives a request an id, that which its caller or a proxy gave it if that has the
// form of one. The answer says it in its header, errors in their body, the audit log and the
// server's log beside what was done.
func Identify(w http.ResponseWriter, req *http.Request) {
	id := req.Header.Get(requestID)
	if !wellFormed.MatchString(id) {
		id = strings.ToLower(rand.Text()[:16])
	}
	w.Header()[requestID] = []string{id}
}

// RequestID is the id of the request that w answers.
func RequestID(w http.ResponseWriter) string { return w.Header().Get(requestID) }

// Actor is who makes a request, for the audit log.
func Actor(who *access.Principal) api.Actor {
	a := api.Actor{Credential: "none", Address: who.Address}
	switch who.Credential {
	case access.Valid:
		a.Credential, a.Name = cmp.Or(who.Grant.Kind, "token"), who.Name
	case access.Revoked, access.Expired:
		a.Credential, a.Name = "token", who.Former
	default:
		return a
	}
	a.Subject = who.Grant.Subject
	if who.Grant.Kind == "" || access.IsShort(who.TokenID) {
		a.Token = who.TokenID
	}
	return a
}
