// Package rights decides whether a request may be answered, by the needs of its route, before
// anything of its body is read.
//
// Whoever has no right of the kind at all is told so, and nothing of what there is. Whoever has one
// for other channels is told which is missing: names of channels are no secret among those who may
// act on some, and that of a host leads to its channel then. Lists are cut down to what one may see.
package rights

import (
	"cmp"
	"net/url"
	"strings"

	"narwharf/hooks/api"
	"narwharf/signing"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

// Request is what of a request its needs are about.
type Request struct {
	Who   access.Principal
	Param func(name string) string // of the path; "" if it is not there
	Query url.Values
	// ChannelOf is the channel that a host follows, "" if none is known. The error of a host
	// that was never heard of says so.
	ChannelOf func(host string) (string, error)
	Proofs    bool // of who a machine is are taken here

	// What Meet found: the need that was met, and what it came to.
	Need   scope.Need
	Right  scope.Scope
	Proves bool // the caller has to prove in the body who he is
}

// Meet checks that one of the needs is met; a denial tells of the first that applies.
func (r *Request) Meet(needs scope.Needs) (err error) {
	for _, n := range needs {
		if name, value, _ := strings.Cut(n.With, "="); r.Query.Get(name) != value {
			continue
		}
		denied := r.meet(n)
		if denied == nil {
			return nil
		}
		err = cmp.Or(err, denied)
	}
	return cmp.Or(err, error(access.Refuse(403, "this is open to nobody: its route names no scope, which is a bug in narwharf")))
}

func (r *Request) meet(n scope.Need) error {
	if n.Public {
		return nil
	}
	if n.OrProof && r.Proofs && r.Who.Credential == access.None {
		r.Need, r.Proves = n, true
		return nil
	}
	right, err := r.right(n)
	if err != nil {
		return err
	}
	if part, ok := r.Who.Scopes.Part(right); n.Part && ok {
		right = part
	}
	r.Need, r.Right = n, right
	return r.May(right)
}

// May checks that the caller has a right, as the host in the path where the route says so.
func (r *Request) May(right scope.Scope) error {
	as := r.Who.Host
	if r.Need.AsHost {
		as = r.Param("host")
	}
	if d := r.Who.DenyAs(right, as); d != nil {
		return d
	}
	return nil
}

// right is what the caller has to have to meet a need.
func (r *Request) right(n scope.Need) (scope.Scope, error) {
	right := scope.Scope{Kind: n.Kind}
	if n.Where == scope.None {
		return right, nil
	}
	// Who has no right of the kind at all is told so, and nothing of what there is.
	some, ok := r.Who.Scopes.Some(n.Kind)
	channel, err := r.channel(n, ok)
	if channel == "" && ok {
		return some, err
	}
	right.Glob = cmp.Or(channel, "*")
	return right, err
}

// channel is the one that a request is about, "" if that is not to be known yet. some is
// that the caller has a right of the kind.
func (r *Request) channel(n scope.Need, some bool) (string, error) {
	query := r.Query.Get("channel")
	bad := signing.CheckChannel(query)
	switch n.Where {
	case scope.InPath:
		return r.Param("channel"), nil
	case scope.InQuery:
		if bad != nil {
			return "", api.Errorf(api.BadRequest, "add ?channel=NAME: %v", bad)
		}
		return query, nil
	case scope.OfHost:
		if !some {
			return "", nil
		}
		of, err := r.ChannelOf(r.Param("host"))
		if r.Who.Scopes.Allows(scope.Scope{Kind: n.Kind, Glob: "*"}) {
			err = nil // what is wrong comes up later, and the body before it
		}
		return cmp.Or(of, "*"), err // a host of none is for those who may act on all
	case scope.InBody, scope.AnyChannel, scope.OfAlarm:
		if bad != nil || some {
			query = "" // it is for the words alone: older clients do not say it
		}
		return query, nil
	}
	switch {
	case query != "" && bad != nil:
		return "", api.Errorf(api.BadRequest, "%v", bad)
	case query == "" && n.Where == scope.OfHostLog && some:
		of, err := r.ChannelOf(r.Param("host"))
		if err == nil && of != "" {
			return of, nil
		}
		return "", api.Errorf(api.BadRequest, "report a status first, or add ?channel=NAME")
	case query == "" && n.Where == scope.OfAll:
		return "*", nil
	}
	return query, nil
}

// About checks the channel in a body that was read, or in a part of it.
func (r *Request) About(channel string) error {
	return r.May(scope.Scope{Kind: r.Need.Kind, Glob: channel})
}

// Sees tells whether a list may show what is of a channel, "" for what is of none.
func (r *Request) Sees() func(channel string) bool {
	scopes := r.Who.Scopes
	return func(channel string) bool {
		return scopes.Allows(scope.Scope{Kind: scope.Read, Glob: cmp.Or(channel, "*")})
	}
}

// Targets says of the targets of a channel whether the caller may change them, nil if he may
// change all of the channel.
func (r *Request) Targets(channel string) func(target string, test bool) error {
	if r.Who.Scopes.Allows(scope.Scope{Kind: scope.Promote, Glob: channel}) {
		return nil
	}
	return func(target string, test bool) error {
		return r.May(scope.Scope{Kind: scope.Promote, Glob: channel, Target: target, Test: test})
	}
}
