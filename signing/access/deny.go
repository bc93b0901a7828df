package access

import (
	"fmt"
	"net/http"
	"strings"

	"narwharf/narinfo/clip"
	"narwharf/signing/access/scope"
)

// Challenge is the WWW-Authenticate header that every answer with status 401 has
// (RFC 9110, 15.5.2). Nix does not look at it; browsers ask for a password then.
const Challenge = `Basic realm="narwharf"`

// maxFault bounds what a Verifier says, in bytes, so that a denial stays a line.
const maxFault = 200

// Denied is why a request was refused.
type Denied struct {
	// Status is 401 if no good credential came with the request, 403 if a good
	// one lacks the scope, 503 if the credential could not be checked; or a Guard's.
	Status int

	text string
}

// Refuse is a Guard's denial.
func Refuse(status int, text string) *Denied { return &Denied{status, clip.ASCII(text, 299)} }

// Error returns one line of less than 800 bytes for the person at the other end,
// printable ASCII: what is missing, why the credential did not help, and a command
// line that helps as it stands. (Nix shows a body of less than 1024 bytes.)
func (d *Denied) Error() string { return d.text }

// Deny returns nil if p has the scope need, and otherwise why the request is refused:
// compare it with nil before it becomes an error.
func (p Principal) Deny(need scope.Scope) *Denied {
	allowed := p.Scopes.Allows(need)
	// Of a token that is worth nothing here is said what is wrong with it.
	if p.barred != nil && need.Kind != scope.Pull && (allowed || p.Credential <= Valid) {
		return p.barred
	}
	if allowed {
		return nil
	}
	if need.Kind < scope.Pull || need.Kind > scope.Admin {
		return &Denied{Status: http.StatusForbidden, text: "this is open to nobody: it names no scope, which is a bug in narwharf"}
	}
	d := &Denied{Status: http.StatusUnauthorized}
	needs, remedy := need.Words()
	switch p.Credential {
	case Valid:
		d.Status = http.StatusForbidden
		d.text = fmt.Sprintf("%s; the token %q has %s: %s", needs, clip.ASCII(p.Name, 32), p.Scopes.Words(), remedy)
	case Unknown:
		d.text = fmt.Sprintf("%s; the token is not known here: revoked, or of another server; %s", needs, remedy)
	case Revoked:
		d.text = fmt.Sprintf("%s; the token %q was revoked on %s: %s", needs, clip.ASCII(p.Former, 32), stamp(p.RevokedAt), remedy)
	case Expired:
		d.text = fmt.Sprintf("%s; the token %q expired on %s: %s", needs, clip.ASCII(p.Former, 32), stamp(p.ExpiredAt), remedy)
	case Malformed:
		d.text = fmt.Sprintf("%s; %s", needs, clip.ASCII(p.Fault, maxFault))
	case Unchecked:
		d.Status = http.StatusServiceUnavailable
		d.text = needs + "; the token could not be checked now: try again soon"
	default:
		if need.Kind != scope.Metrics {
			remedy = "give one as the password in netrc, or as Authorization: Bearer"
		}
		d.text = fmt.Sprintf("%s; the request carries no token: %s", needs, remedy)
	}
	return d
}

// DenyAs returns nil if p may act as host with the scope need, and otherwise why
// not. A token that is of one host is refused for every other, whatever else it or
// anybody may do.
func (p Principal) DenyAs(need scope.Scope, host string) *Denied {
	if p.Host != "" && p.Host != host {
		remedy := "a token of its own"
		if need.Glob != "" && need.Named() && !strings.Contains(need.Glob, "*") {
			remedy += " with narwharf token new --join " + need.Glob + " --host " + clip.ASCII(host, 127)
		}
		return &Denied{Status: http.StatusForbidden, text: fmt.Sprintf(
			"the token %q is that of the host %s and cannot act as %s: give this host its old name, or %s",
			clip.ASCII(p.Name, 64), clip.ASCII(p.Host, 64), clip.ASCII(host, 64), remedy)}
	}
	return p.Deny(need)
}
