package access

import (
	"fmt"
	"net/http"
	"strings"

	"narwharf/narinfo/clip"
)

// Challenge is the WWW-Authenticate header that every answer with status 401 has
// (RFC 9110, 15.5.2). Nix does not look at it; browsers ask for a password then.
const Challenge = `Basic realm="narwharf"`

// Denied is why a request was refused.
type Denied struct {
	// Status is 401 if no good credential came with the request, 403 if a good
	// one lacks the scope, 503 if the credential could not be checked.
	Status int

	Need Scope // the scope that was missing

	text string
}

// Error returns one line of less than 300 bytes for the person at the other end,
// printable ASCII: what is missing, why the credential did not help, what to do.
// (Nix shows a body of less than 1024 bytes.)
func (d *Denied) Error() string { return d.text }

// Deny returns nil if p has the scope need, and otherwise why the request is
// refused. The result is a *Denied, so that its Status can be read: compare it with
// nil before it becomes an error.
func (p Principal) Deny(need Scope) *Denied {
	if p.Scopes.Allows(need) {
		return nil
	}
	if need.Kind < Pull || need.Kind > Admin {
		return &Denied{Status: http.StatusForbidden, Need: need, text: "this is open to nobody: it names no scope, which is a bug in narwharf"}
	}
	d := &Denied{Status: http.StatusUnauthorized, Need: need}
	needs, remedy := describeNeed(need)
	switch p.Credential {
	case Valid:
		d.Status = http.StatusForbidden
		d.text = fmt.Sprintf("%s; the token %q has %s: %s", needs, plain(p.Name, 32), describeScopes(p.Scopes), remedy)
	case Unknown:
		d.text = fmt.Sprintf("%s; the token is not known here: revoked, or of another server; %s", needs, remedy)
	case Revoked:
		d.text = fmt.Sprintf("%s; the token %q was revoked on %s: %s", needs, plain(p.Former, 32), stamp(p.RevokedAt), remedy)
	case Expired:
		d.text = fmt.Sprintf("%s; the token %q expired on %s: %s", needs, plain(p.Former, 32), stamp(p.ExpiredAt), remedy)
	case Malformed:
		d.text = fmt.Sprintf("%s; %s", needs, plain(p.Fault, 120))
	case Unchecked:
		d.Status = http.StatusServiceUnavailable
		d.text = needs + "; the token could not be checked now: try again soon"
	default:
		d.text = needs + "; the request carries no token: give one as the password in netrc, or as Authorization: Bearer"
	}
	return d
}

// DenyAs returns nil if p may act as host with the scope need, and otherwise why
// not. A token that is of one host is refused for every other, whatever else it or
// anybody may do.
func (p Principal) DenyAs(need Scope, host string) *Denied {
	if p.Host != "" && p.Host != host {
		return &Denied{Status: http.StatusForbidden, Need: need, text: fmt.Sprintf(
			"the token %q is that of the host %s and cannot act as %s: give this host a token of its own, or its old name",
			plain(p.Name, 64), plain(p.Host, 64), plain(host, 64))}
	}
	return p.Deny(need)
}

// describeNeed returns the first words of a denial, and what to do about a token
// without that scope.
func describeNeed(need Scope) (needs, remedy string) {
	if !need.valid() {
		return fmt.Sprintf("this needs the scope %s for what is not the name of a channel", need.Kind), "check the name"
	}
	scope := need.String()
	if len(scope) > 48 { // twice would be too long for a line
		return "this needs the scope " + plain(scope, 72), "make one that has it with narwharf token new"
	}
	if need.Kind == Join {
		return "this needs a join token of " + need.Glob, "make one with narwharf token new --join " + need.Glob
	}
	return "this needs the scope " + scope, "make one with narwharf token new --scope " + scope
}

// describeScopes lists what a token has: "pull, follow:web and 3 more only".
func describeScopes(scopes Scopes) string {
	if len(scopes) == 0 {
		return "no scope"
	}
	const limit = 40
	list := plain(scopes[0].String(), limit)
	for i, scope := range scopes[1:] {
		word := plain(scope.String(), limit)
		if len(list)+len(word) > limit {
			return fmt.Sprintf("%s and %d more only", list, len(scopes)-1-i)
		}
		list += ", " + word
	}
	return list + " only"
}

// plain cuts s to at most limit bytes, with dots where something was cut, and
// replaces all but printable ASCII and the characters that %q would double.
func plain(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '?'
		}
		return r
	}, s)
	return strings.ReplaceAll(clip.Text(s, limit), "…", "...")
}
