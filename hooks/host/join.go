package host

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/signing/access"
)

// Join makes the token of a host for a join token, and the machine the owner of its
// name. A token that is for this host alone does so whoever was: that is what it was
// made for. With others the name has to be free: who holds one may become a host, and
// not take the place of one.
func (h *Hosts) Join(ctx context.Context, who Caller, j *api.Join) (secret string, err error) {
	self := api.Self{Instance: j.Instance, Machine: j.Machine}
	was := h.Former(self.Instance, j.Host)
	var taken error
	err = h.set.Update(ctx, append(Locks(j.Host, self.Instance), TokenLocks()...), func(tx *mirror.Tx) (err error) {
		tokens := h.tokens.In(tx)
		if taken = nil; who.Host != j.Host {
			if taken, err = h.taken(tx, tokens, who, j, self); taken != nil || err != nil {
				return err
			}
		}
		var fresh access.Token
		if secret, fresh, err = access.NewHost(j.Host, j.Channel, tx.Time); err != nil {
			return err
		}
		fresh.By = "join token " + who.Name
		switch err := tokens.Redeem(who.TokenID, self.Instance, fresh); {
		case errors.As(err, new(*access.JoinError)):
			return api.Errorf(api.Forbidden, "%v", err)
		case errors.Is(err, access.ErrExists):
			return api.Errorf(api.IdentityConflict, "the host's token would be named %s, and there is one of that name which no join made: first narwharf token revoke %[1]s", fresh.Name)
		case err != nil:
			return err
		}
		h.joined(tx, who, j, fresh, was)
		return nil
	})
	if err == nil && taken != nil {
		h.log.Warn("a join by the name of a host that is here", "host", j.Host, "by", who.Name, "address", who.Address)
		return "", taken
	}
	return secret, err
}

// joined makes the machine of a join the owner of its name.
func (h *Hosts) joined(tx *mirror.Tx, who Caller, j *api.Join, token access.Token, was string) {
	self := api.Self{Instance: j.Instance, Machine: j.Machine}
	f := h.factsIn(tx, j.Host, self)
	o, next := f.owner, h.newOwner(tx, self, was)
	text := fmt.Sprintf("%s joined %s by the join token %s", j.Host, j.Channel, who.Name)
	switch {
	case f.otherMachine(j.Host, self, who):
		text += fmt.Sprintf(", in place of the machine that had the name (%s)", instanceText(o.Instance))
		h.clearReport(tx, j.Host)
		h.sighted.Put(tx, sightKey(j.Host, self.Instance), nil)
	case o != nil && o.Instance == self.Instance:
		next.Since, next.Was, next.Claims = o.Since, o.Was, o.Claims
	}
	next.Token = token.Name
	_, err := h.short.In(tx).RevokeHost(j.Host, "") // it had some by another identity
	tx.Keep(err)
	tx.Notify(audit.Host(j.Host))
	audit.Note(tx, api.Event{Kind: "host.joined", By: who.Name, Channel: j.Channel, Host: j.Host, Text: text,
		Data: map[string]string{"instance": self.Instance, "machine": self.Machine, "address": who.Address, "token": token.ID}})
	h.owners.Put(tx, j.Host, next)
}

// taken is the answer to a join by a token for hosts of any name where the name is not
// free: somebody has it, or a token of its own. An instance is no secret, so to say the
// owner's proves nothing, but for a repetition with the very token.
func (h *Hosts) taken(tx *mirror.Tx, tokens access.Change, who Caller, j *api.Join, self api.Self) (taken, err error) {
	o := h.owners.In(tx, j.Host)
	again, err := tokens.Repeats(who.TokenID, self.Instance, j.Host, tx.Time)
	if err != nil || again && (o == nil || o.Instance == self.Instance) {
		return nil, err
	}
	if o != nil && o.Instance != self.Instance {
		h.noteClaim(tx, o, who, j.Host, j.Channel, self)
		return conflict(o, j.Host, self), nil
	}
	bound, err := tokens.Bound(j.Host)
	if err != nil {
		return nil, err
	}
	own := slices.ContainsFunc(bound, func(t access.Token) bool { return t.Active(tx.Time) })
	// Some have no owner, by an agent, or a server, from before instances.
	if r := h.In(tx, j.Host); o == nil && !own && (r == nil || r.Status == nil) {
		return nil, nil
	}
	return api.Errorf(api.IdentityConflict,
		"%s is here already. If this machine is to have the name: narwharf token new --join %s --host %[1]s makes a join token for it, or narwharf host remove %[1]s forgets the other. If not, give it a name of its own (host in the agent's configuration)",
		j.Host, j.Channel), nil
}
