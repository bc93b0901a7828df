package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
	"narwharf/signing/access/shortlived"
)

// A Proof is what a machine has proved of itself.
type Proof struct {
	access.Grant
	// Certain is that the identity is that of the very host, and of no other.
	Certain bool
	// Confirm says in the transaction whether it is still so. It is an *api.Error if not.
	Confirm func(tx *mirror.Tx) error
}

// tokensOfHost is how many of its short-lived tokens a host has at a time: one is in use, perhaps
// for a long download, when the next is got, and an answer may be lost.
const tokensOfHost = 3

// defaultTTL is how long a token lasts if a rule says nothing.
const defaultTTL = time.Hour

// TokenLocks are the locks of the state that whoever changes tokens of hosts holds.
func TokenLocks() []string { return []string{access.Lock, shortlived.Lock} }

// JoinBy makes the short-lived token of a host for a proof, and the machine the owner of its name,
// which is free or the machine's own: it belongs to the identity and the instance together. To
// renew a token is to join again.
func (h *Hosts) JoinBy(ctx context.Context, address string, j *api.Join, p Proof) (*api.Joined, error) {
	who := Caller{Name: p.Name(), TokenID: p.Owner, Owner: p.Owner, Address: address}
	was := h.Former(j.Instance, j.Host)
	var joined *api.Joined
	var refused error
	locks := slices.Concat(Locks(j.Host, j.Instance), TokenLocks(), []string{MadeLock(who)})
	err := h.set.Update(ctx, locks, func(tx *mirror.Tx) (err error) {
		joined, refused = nil, nil
		if err := p.Confirm(tx); err != nil {
			return err
		}
		o := h.owners.In(tx, j.Host)
		if refused, err = h.mayHave(tx, o, who, j, p); refused != nil || err != nil {
			return err
		}
		next, other, err := h.proven(tx, o, who, j, p, was)
		if err != nil {
			return err
		}
		if joined, err = h.issue(tx, who, j, p, other); err != nil {
			return err
		}
		if next != nil {
			h.owners.Put(tx, j.Host, next)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if refused != nil {
		h.log.Warn("a join by the name of a host that is here", "host", j.Host, "by", who.Name, "owner", who.Owner, "address", address)
		return nil, refused
	}
	return joined, nil
}

// issue makes the token. What others had that were this host ends.
func (h *Hosts) issue(tx *mirror.Tx, who Caller, j *api.Join, p Proof, other bool) (*api.Joined, error) {
	ttl := p.TTL
	if ttl == 0 {
		ttl = defaultTTL
	}
	g := p.Grant
	g.Host, g.Scopes = j.Host, scope.Set{{Kind: scope.Pull}, {Kind: scope.Follow, Glob: j.Channel}}
	tokens := h.short.In(tx)
	secret, t, err := tokens.Issue(g, tx.Time.Add(ttl), "joined from "+who.Address)
	if errors.Is(err, shortlived.ErrFull) {
		return nil, api.Errorf(api.Unavailable, "%v", err)
	}
	if err == nil && other {
		_, err = tokens.RevokeHost(j.Host, t.ID)
	}
	all, err2 := tokens.OfHost(j.Host)
	if err = errors.Join(err, err2); err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b shortlived.Token) int { return a.Created.Compare(b.Created) })
	for _, old := range all[:max(len(all)-tokensOfHost, 0)] {
		if old.ID != t.ID {
			if _, err := tokens.Revoke(old.ID); err != nil {
				return nil, err
			}
		}
	}
	return &api.Joined{Host: j.Host, Channel: j.Channel, Token: secret, ExpiresIn: int(ttl / time.Second)}, nil
}

// mayHave tells why a machine may not have a name.
func (h *Hosts) mayHave(tx *mirror.Tx, o *Owner, who Caller, j *api.Join, p Proof) (refused, err error) {
	self := api.Self{Instance: j.Instance, Machine: j.Machine}
	switch {
	case o == nil && p.Certain:
		return nil, nil
	case o == nil:
		return h.isFree(tx, j)
	case o.Instance == j.Instance && (p.Certain || o.Owner == p.Owner):
		return nil, nil
	case o.Instance == "" && p.Certain: // its agent was an older one
		return nil, nil
	case o.Instance == j.Instance:
		return api.Errorf(api.IdentityConflict, "%s belongs to another identity here (%s). If this machine is to have the name, first narwharf host remove %s; if not, its state directory is a copy", j.Host, ownerText(o), j.Host), nil
	}
	h.noteClaim(tx, o, who, j.Host, j.Channel, self)
	return conflict(o, j.Host, self), nil
}

func ownerText(o *Owner) string {
	if o.Owner == "" {
		return "one with a token"
	}
	return o.Owner
}

// isFree tells whether nobody has a name: some have it without an owner, by a token of their own, or
// an agent from before instances.
func (h *Hosts) isFree(tx *mirror.Tx, j *api.Join) (refused, err error) {
	bound, err := h.tokens.In(tx).Bound(j.Host)
	if err != nil {
		return nil, err
	}
	own := slices.ContainsFunc(bound, func(t access.Token) bool { return t.Active(tx.Time) })
	if r := h.In(tx, j.Host); !own && (r == nil || r.Status == nil) {
		return nil, nil
	}
	return api.Errorf(api.IdentityConflict, "%s is here already, by a token: first narwharf host remove %[1]s, and narwharf token revoke for one that was made for it by hand", j.Host), nil
}

// proven is what becomes of a name's owner, nil if that is the same, and whether others were it.
func (h *Hosts) proven(tx *mirror.Tx, o *Owner, who Caller, j *api.Join, p Proof, was string) (next *Owner, other bool, err error) {
	self := api.Self{Instance: j.Instance, Machine: j.Machine}
	forget := int64(p.Forget / time.Second)
	if o != nil && o.Owner == p.Owner && o.Instance == self.Instance {
		if o.Forget == forget && (self.Machine == "" || o.Machine == self.Machine) {
			return nil, false, nil // a renewal
		}
		next = new(Owner)
		*next = *o
		next.Forget, next.Machine = forget, self.Machine
		return next, false, nil
	}
	next = h.newOwner(tx, self, was)
	next.Identity.Owner, next.Forget = p.Owner, forget
	text := fmt.Sprintf("%s joined %s by %s (%s)", j.Host, j.Channel, who.Name, p.Subject)
	if o == nil {
		r := h.In(tx, j.Host)
		if r == nil {
			r = new(Record)
		}
		if r.Credential == "" && !p.Certain {
			if err := h.make(tx, who, j.Host, r); err != nil {
				return nil, false, err
			}
			h.Put(tx, j.Host, r)
		}
	} else {
		next.Claims = o.Claims
		if o.Instance == self.Instance {
			next.Since, next.Was = o.Since, o.Was
		}
		text += ", which was " + ownerText(o)
	}
	tx.Notify(audit.Host(j.Host))
	audit.Note(tx, api.Event{Kind: "host.joined", By: who.Name, Channel: j.Channel, Host: j.Host, Text: text,
		Data: map[string]string{"instance": self.Instance, "machine": self.Machine, "address": who.Address, "owner": p.Owner}})
	return next, true, h.tokens.In(tx).RevokeJoined(j.Host, "", tx.Time)
}

// Forgets are the hosts that have a time after which they are forgotten, with that.
func (h *Hosts) Forgets() map[string]time.Duration {
	all := make(map[string]time.Duration)
	for name, o := range h.owners.All() {
		if o.Forget > 0 {
			all[name] = time.Duration(o.Forget) * time.Second
		}
	}
	return all
}

// OfOwner is the name that an instance has by an identity, "" if it has none.
func (h *Hosts) OfOwner(instance, owner string) string {
	name := h.Former(instance, "")
	if o := h.owners.Get(name); o != nil && o.Instance == instance && o.Owner == owner {
		return name
	}
	return ""
}
