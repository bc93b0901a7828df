package host

import (
	"context"
	"fmt"

	"narwharf/cache/root"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
)

// Approve says which machine has a host's name: one that claims it, or the one
// that has it already, after which the others are forgotten, and that it was
// cloned. channel is that of the host.
func (h *Hosts) Approve(ctx context.Context, who Caller, host, channel, instance string) error {
	was := h.Former(instance, host)
	return h.set.Update(ctx, append(Locks(host, instance), TokenLocks()...), func(tx *mirror.Tx) error {
		o := h.owners.In(tx, host)
		if o == nil {
			return Unknown(host)
		}
		if err := who.Over(h.In(tx, host)); err != nil {
			return err
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
			next.Identity.Owner, next.Forget = o.Claims[at].Owner, o.Forget
			h.revoke(tx, host, o.Claims[at].TokenID)
		}
		next.Claims = nil
		tx.Notify(audit.Host(host))
		audit.Note(tx, api.Event{Kind: "host.approved", By: who.Name, Channel: channel, Host: host, Text: text, Data: map[string]string{"instance": instance, "was": o.Instance}})
		h.sighted.Put(tx, sightKey(host, instance), nil)
		h.owners.Put(tx, host, next)
		return nil
	})
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
		h.Put(tx, host, &Record{Labels: old.Labels, Hold: old.Hold, Credential: old.Credential})
	}
}

// revoke ends the tokens that joins made for a host, but one.
func (h *Hosts) revoke(tx *mirror.Tx, host, except string) {
	tx.Keep(h.tokens.In(tx).RevokeJoined(host, except, tx.Time))
	_, err := h.short.In(tx).RevokeHost(host, except)
	tx.Keep(err)
}

// Forget takes a host away, with its name, its report, and the tokens that joins made
// for it. The transaction holds TokenLocks.
func (h *Hosts) Forget(tx *mirror.Tx, who Caller, host, channel string) {
	h.revoke(tx, host, "")
	if h.gone != nil {
		h.gone(tx, host)
	}
	if o := h.owners.In(tx, host); o != nil {
		h.sighted.Put(tx, sightKey(host, o.Instance), nil)
		h.owners.Put(tx, host, nil)
	}
	tx.Notify(audit.Host(host))
	audit.Note(tx, api.Event{Kind: "host.removed", By: who.Name, Host: host, Channel: channel, Text: "removed " + host + " from the list of hosts"})
	unmake(tx, host, h.In(tx, host))
	tx.Keep(root.Set(tx, RootOwner(host), nil))
	h.records.Put(tx, host, nil)
}
