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

// Approve says which machine has a host's name: one that claims it, or the one
// that has it already, after which the others are forgotten, and that it was
// cloned. channel is that of the host.
func (h *Hosts) Approve(ctx context.Context, who Caller, host, channel, instance string) error {
	// Whether or not the operator still waits: the name must not go to one machine
	// while the token of the other stays good, nor be of one without a token.
	ctx = context.WithoutCancel(ctx)
	defer h.LockTokens(host)()
	was := h.Former(instance, host)
	for o := h.owners.Get(host); ; {
		keeps := "" // its token; all others are revoked first
		if o == nil {
			return Unknown(host)
		}
		if at := o.openClaim(instance); at >= 0 {
			keeps = o.Claims[at].TokenID
			if err := h.RevokeJoined(ctx, host, keeps); err != nil {
				return err
			}
		}
		err := h.set.Update(ctx, Locks(host, instance), func(tx *mirror.Tx) error {
			is := h.owners.In(tx, host)
			if is != nil && is.openClaim(instance) >= 0 && (o.openClaim(instance) < 0 || is.Claims[is.openClaim(instance)].TokenID != keeps) {
				o = is
				return errClaimed
			}
			return h.approved(tx, who, host, channel, instance, was)
		})
		if !errors.Is(err, errClaimed) {
			return err
		}
	}
}

// errClaimed is that another claim is there than tokens were revoked for.
var errClaimed = errors.New("the claim has changed")

func (h *Hosts) approved(tx *mirror.Tx, who Caller, host, channel, instance, was string) error {
	o := h.owners.In(tx, host)
	if o == nil {
		return Unknown(host)
	}
	at := o.openClaim(instance)
	if at < 0 && instance != o.Instance {
		return api.Errorf(api.NotFound, "no machine of that instance claims to be %s: narwharf host show %s lists those that do", host, host)
	}
	next := new(Owner)
	*next = *o
	text := fmt.Sprintf("%s is the machine it was (%s), whatever else claimed to be", host, instanceText(instance))
	if at >= 0 {
		next = h.newOwner(tx, o.Claims[at].self(), was)
		text = fmt.Sprintf("%s is another machine now, %s, approved in place of %s", host, instanceText(instance), instanceText(o.Instance))
		h.clearReport(tx, host)
	}
	next.Claims = nil
	tx.Notify(audit.Host(host))
	audit.Note(tx, api.Event{Kind: "host.approved", By: who.Name, Channel: channel, Host: host, Text: text, Data: map[string]string{"instance": instance, "was": o.Instance}})
	h.sighted.Put(tx, sightKey(host, instance), nil)
	h.owners.Put(tx, host, next)
	return nil
}

// openClaim is the index of an instance's claim that was not withdrawn, or -1.
func (o *Owner) openClaim(instance string) int {
	at := o.claim(instance)
	if at >= 0 && !o.Claims[at].Withdrawn.IsZero() {
		return -1
	}
	return at
}

// clearReport forgets what another machine said as this host; what people said
// of the host stays.
func (h *Hosts) clearReport(tx *mirror.Tx, host string) {
	if old := h.In(tx, host); old != nil {
		h.Put(tx, host, &Record{Labels: old.Labels, Hold: old.Hold})
	}
}

// RevokeJoined revokes the tokens that joins made for a host, but one.
func (h *Hosts) RevokeJoined(ctx context.Context, host, except string) error {
	if h.tokens == nil {
		return nil
	}
	list, err := h.tokens.List(ctx)
	if err != nil {
		return err
	}
	mine := func(t access.Token) bool {
		return t.Host == host && t.Joined != "" && t.Revoked.IsZero() && t.ID != except
	}
	for _, t := range slices.DeleteFunc(list, func(t access.Token) bool { return !mine(t) }) {
		if _, err := h.tokens.Revoke(ctx, t.ID, h.clock()); err != nil {
			return err
		}
	}
	return nil
}

// Forget takes a host away, with its name and its report.
func (h *Hosts) Forget(tx *mirror.Tx, who Caller, host, channel string) {
	if o := h.owners.In(tx, host); o != nil {
		h.sighted.Put(tx, sightKey(host, o.Instance), nil)
		h.owners.Put(tx, host, nil)
	}
	tx.Notify(audit.Host(host))
	audit.Note(tx, api.Event{Kind: "host.removed", By: who.Name, Host: host, Channel: channel, Text: "removed " + host + " from the list of hosts"})
	h.records.Put(tx, host, nil)
}
