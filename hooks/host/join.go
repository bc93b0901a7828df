package host

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/signing"
	"narwharf/signing/access"
)

// CheckJoin refuses what no machine sends.
func CheckJoin(j *api.Join) error {
	switch err := CheckSelf(api.Self{Instance: j.Instance, Machine: j.Machine}); {
	case !grammar.MatchString(j.Host):
		return api.Errorf(api.BadRequest, "host %q is not a host name", j.Host)
	case j.Instance == "":
		return api.Errorf(api.BadRequest, "instance is missing")
	case err != nil:
		return err
	}
	if err := signing.CheckChannel(j.Channel); err != nil {
		return api.Errorf(api.BadRequest, "%v", err)
	}
	return nil
}

// Join makes the token of a host for a join token. A token that is for this host
// alone makes it the owner of its name, whoever was: that is what it was made
// for. With others the name has to be free, as mayJoin has it: who holds one may
// become a host, and not take the place of one.
//
// Tokens are another table: if the second transaction fails, or its answer is
// lost, the host asks again and gets another token for the same use.
func (h *Hosts) Join(ctx context.Context, who Caller, j *api.Join) (secret string, err error) {
	if h.tokens == nil {
		return "", api.Errorf(api.NotFound, "this server makes no tokens")
	}
	self := api.Self{Instance: j.Instance, Machine: j.Machine}
	defer h.LockTokens(j.Host)()
	if who.Host != j.Host {
		if err := h.mayJoin(ctx, who, j, self); err != nil {
			return "", err
		}
	}
	secret, fresh, err := access.NewHost(j.Host, j.Channel, h.clock())
	if err != nil {
		return "", err
	}
	fresh.By = "join token " + who.Name
	var refused *access.JoinError
	switch err := h.tokens.Redeem(ctx, who.TokenID, self.Instance, fresh); {
	case errors.As(err, &refused):
		return "", api.Errorf(api.Forbidden, "%v", err)
	case errors.Is(err, access.ErrExists):
		return "", api.Errorf(api.IdentityConflict, "the host's token would be named %s, and there is one of that name which no join made: first narwharf token revoke %[1]s", fresh.Name)
	case err != nil:
		return "", err
	}
	was := h.Former(self.Instance, j.Host)
	// Whether or not the host still waits: the tokens it had before are revoked.
	return secret, h.set.Update(context.WithoutCancel(ctx), Locks(j.Host, self.Instance), func(tx *mirror.Tx) error {
		return h.joined(tx, who, j, fresh, was)
	})
}

// joined makes the machine of a join the owner of its name.
func (h *Hosts) joined(tx *mirror.Tx, who Caller, j *api.Join, token access.Token, was string) error {
	self := api.Self{Instance: j.Instance, Machine: j.Machine}
	f := h.factsIn(tx, j.Host, self)
	o, replaces := f.owner, f.foreign(j.Host, self, who)
	if replaces && who.Host != j.Host {
		return conflict(o, j.Host, self) // since mayJoin has looked
	}
	next := h.newOwner(tx, self, was)
	text := fmt.Sprintf("%s joined %s by the join token %s", j.Host, j.Channel, who.Name)
	switch {
	case replaces:
		text += fmt.Sprintf(", in place of the machine that had the name (%s)", instanceText(o.Instance))
		h.clearReport(tx, j.Host)
		h.sighted.Put(tx, sightKey(j.Host, self.Instance), nil)
	case o != nil && o.Instance == self.Instance:
		next.Since, next.Was, next.Claims = o.Since, o.Was, o.Claims
	}
	next.Token = token.Name
	tx.Notify(audit.Host(j.Host))
	audit.Note(tx, api.Event{Kind: "host.joined", By: who.Name, Channel: j.Channel, Host: j.Host, Text: text,
		Data: map[string]string{"instance": self.Instance, "machine": self.Machine, "address": who.Address, "token": token.ID}})
	h.owners.Put(tx, j.Host, next)
	return nil
}

// mayJoin refuses a join by a token for hosts of any name where the name is not
// free. An instance is no secret, so to say the owner's proves nothing, but for a
// repetition with the very token and for an owner that has no token of its own.
func (h *Hosts) mayJoin(ctx context.Context, who Caller, j *api.Join, self api.Self) error {
	token, err := h.tokens.Lookup(ctx, who.TokenID)
	if err != nil {
		return err
	}
	now := h.clock()
	o, r := h.owners.Get(j.Host), h.Record(j.Host)
	for _, u := range token.Used {
		if u.Host == j.Host && u.Instance == self.Instance && now.Sub(u.At) < access.Patience && (o == nil || o.Instance == self.Instance) {
			return nil
		}
	}
	if o != nil && o.Instance != self.Instance {
		err := h.set.Update(ctx, []string{Lock(j.Host)}, func(tx *mirror.Tx) error {
			if o := h.owners.In(tx, j.Host); o != nil {
				h.noteClaim(tx, o, who, j.Host, j.Channel, self)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return conflict(o, j.Host, self)
	}
	list, err := h.tokens.List(ctx)
	if err != nil {
		return err
	}
	taken := slices.ContainsFunc(list, func(t access.Token) bool { return t.Host == j.Host && t.Joined != "" && t.Active(now) })
	if o == nil && r != nil && r.Status != nil {
		taken = true // by an agent, or a server, from before instances
	}
	if !taken {
		return nil
	}
	h.log.Warn("a join by the name of a host that is here", "host", j.Host, "by", who.Name, "address", who.Address)
	return api.Errorf(api.IdentityConflict,
		"%s is here already. If this machine is to have the name: narwharf token new --join %s --host %[1]s makes a join token for it, or narwharf host remove %[1]s forgets the other. If not, give it a name of its own (host in the agent's configuration)",
		j.Host, j.Channel)
}
