package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync/atomic"
	"time"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/host"
	"narwharf/signing/access/hostkey"
	"narwharf/signing/access/shortlived"
)

// The rules by which a key is a host's.
const (
	ruleListed   = "known_hosts"
	ruleApproved = "approved"
)

// Approved is a key that an operator has said is a host's.
type Approved struct {
	Host    string    `json:"host"`
	Channel string    `json:"channel"` // that it may follow, and no other
	By      string    `json:"by"`
	At      time.Time `json:"at"`
}

// Ask is a machine that has proved to have a key which is nobody's here.
type Ask struct {
	api.Ask
	Last time.Time `json:"last"`
}

// lock is held by whoever changes keys or asks.
const lock = "host-keys"

// Bounds of asks: whoever reaches the server can make some.
const (
	maxAsks  = 256
	askLasts = 24 * time.Hour
	askAgain = 10 * time.Minute // so much later one is noted again
)

// list is the known_hosts file, as it was read last.
type list struct{ atomic.Pointer[hostkey.List] }

// SetList makes keys those of a known_hosts file; nil are none. A host whose key does not stand any more
// is cut off.
func (i *Identities) SetList(ctx context.Context, l *hostkey.List) error {
	i.list.Store(l)
	for _, t := range i.o.Short.List() {
		if g := t.Grant; g.Kind != "ssh" || i.stands(g.Host, g.Subject) {
			continue
		}
		err := i.o.Set.Update(ctx, []string{shortlived.Lock}, func(tx *mirror.Tx) error {
			_, err := i.o.Short.In(tx).Revoke(t.ID)
			if errors.Is(err, shortlived.ErrNotFound) {
				return nil
			}
			tx.Notify(audit.Host(t.Grant.Host))
			audit.Note(tx, api.Event{Kind: "host.cut", By: "server", Host: t.Grant.Host, Text: t.Grant.Host + " is cut off: its SSH key is not listed any more"})
			return err
		})
		if err != nil {
			return fmt.Errorf("cut %s off: %w", t.Grant.Host, err)
		}
	}
	return nil
}

// stands tells whether a key is still a host's.
func (i *Identities) stands(host, fingerprint string) bool {
	rule, err := i.whose(host, fingerprint)
	return err == nil && rule != ""
}

// whose tells by which rule a key is a host's, "" if nobody has said whose it is. The error
// is that it is another's, or nobody's any more.
func (i *Identities) whose(host, fingerprint string) (rule string, err error) {
	approved := i.keys.Get(fingerprint)
	switch standing := i.list.Load().Look(host, fingerprint); {
	case standing == hostkey.Revoked:
		return "", api.Errorf(api.Forbidden, "the key %s is revoked (@revoked in known_hosts): make another with ssh-keygen -A, and list that", fingerprint)
	case standing == hostkey.Listed:
		return ruleListed, nil
	case standing == hostkey.Another, approved != nil && approved.Host != host:
		return "", api.Errorf(api.Forbidden, "the key %s is another host's: was a disk copied with /etc/ssh? Make keys for %s with rm /etc/ssh/ssh_host_* && ssh-keygen -A", fingerprint, host)
	case approved != nil:
		return ruleApproved, nil
	}
	return "", nil
}

// ask notes that a machine asks with its key.
func (i *Identities) ask(ctx context.Context, j *api.Join, fingerprint, address string) error {
	now := i.o.Clock()
	if a := i.asks.Get(fingerprint); a != nil && a.Host == j.Host && now.Sub(a.Last) < askAgain {
		return nil
	}
	return i.o.Set.Update(ctx, []string{lock}, func(tx *mirror.Tx) error {
		is := &Ask{Ask: api.Ask{Host: j.Host, Key: fingerprint, Channel: j.Channel, Instance: j.Instance, Address: address, Since: tx.Time.UTC()}, Last: tx.Time.UTC()}
		all := i.asks.AllIn(tx)
		if was := all[fingerprint]; was != nil && was.Host == j.Host {
			is.Since = was.Since
			if was.Channel == j.Channel {
				is.RefusedBy = was.RefusedBy
			}
		}
		delete(all, fingerprint)
		for _, key := range over(all, tx.Time) {
			i.asks.Put(tx, key, nil)
		}
		tx.Notify(append(audit.Hosts(j.Channel), audit.Host(j.Host))...)
		i.asks.Put(tx, fingerprint, is)
		return nil
	})
}

// over are the asks that are old, or one too many when another comes.
func over(all map[string]*Ask, now time.Time) (keys []string) {
	rest := make([]string, 0, len(all))
	for key, a := range all {
		if now.Sub(a.Last) >= askLasts {
			keys = append(keys, key)
		} else {
			rest = append(rest, key)
		}
	}
	slices.SortFunc(rest, func(a, b string) int { return cmp.Or(all[a].Last.Compare(all[b].Last), cmp.Compare(a, b)) })
	return append(keys, rest[:max(len(rest)-maxAsks+1, 0)]...)
}

// Asks are the keys with which machines ask to be a host, the oldest first.
func (i *Identities) Asks(host string) (asks []api.Ask) {
	return i.List(func(a *api.Ask) bool { return a.Host == host })
}

// List is what machines ask that keep says yes to, the oldest first. What is older than a day is not in it.
func (i *Identities) List(keep func(a *api.Ask) bool) (asks []api.Ask) {
	now := i.o.Clock()
	for _, a := range i.asks.All() {
		if keep(&a.Ask) && now.Sub(a.Last) < askLasts {
			asks = append(asks, a.Ask)
		}
	}
	slices.SortFunc(asks, func(a, b api.Ask) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Key, b.Key)) })
	return asks
}

var fingerprintGrammar = regexp.MustCompile(`^SHA256:[A-Za-z0-9+/]{43}$`)

// Approve says that a key is a host's, whose machine has asked with it. may tells whether the
// caller may say that of a channel.
func (i *Identities) Approve(ctx context.Context, by, name, fingerprint string, may func(channel string) error) error {
	switch {
	case i.o.SSH == nil:
		return api.Errorf(api.BadRequest, "keys of hosts are not taken here: [access.ssh] in the server's configuration turns that on")
	case !fingerprintGrammar.MatchString(fingerprint):
		return api.Errorf(api.BadRequest, "key is not a fingerprint like SHA256:… of 50 characters, as ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub prints it on the host")
	}
	if standing := i.list.Load().Look(name, fingerprint); standing == hostkey.Revoked || standing == hostkey.Another {
		_, err := i.whose(name, fingerprint)
		return err
	}
	return i.o.Set.Update(ctx, []string{lock, host.Lock(name)}, func(tx *mirror.Tx) error {
		if was := i.keys.In(tx, fingerprint); was != nil && was.Host != name {
			return api.Errorf(api.IdentityConflict, "the key %s is that of %s: first narwharf host remove %[2]s, or give %s a key of its own", fingerprint, was.Host, name)
		}
		a, err := i.asked(tx, name, fingerprint, may)
		if err != nil {
			return err
		}
		i.keys.Put(tx, fingerprint, &Approved{Host: name, Channel: a.Channel, By: by, At: tx.Time.UTC()})
		i.asks.Put(tx, fingerprint, nil)
		tx.Notify(audit.Host(name))
		audit.Note(tx, api.Event{Kind: "host.approved", By: by, Channel: a.Channel, Host: name,
			Text: fmt.Sprintf("the SSH key %s is that of %s", fingerprint, name), Data: map[string]string{"key": fingerprint}})
		return nil
	})
}

// asked is what a machine asks with a key, if the caller may answer it.
func (i *Identities) asked(tx *mirror.Tx, name, fingerprint string, may func(channel string) error) (*Ask, error) {
	a := i.asks.In(tx, fingerprint)
	if a == nil || a.Host != name {
		return nil, api.Errorf(api.NotFound, "no machine asks to be %s with the key %s: narwharf host asks lists those that do", name, fingerprint)
	}
	return a, may(a.Channel)
}

// Refuse says that a key is not a host's, whose machine has asked with it. The machine is told so while it goes on to
// ask, and for a day after; Approve takes it back.
func (i *Identities) Refuse(ctx context.Context, by, name, fingerprint string, may func(channel string) error) error {
	if !fingerprintGrammar.MatchString(fingerprint) {
		return api.Errorf(api.BadRequest, "key is not a fingerprint like SHA256:… of 50 characters: narwharf host asks lists those that ask")
	}
	return i.o.Set.Update(ctx, []string{lock}, func(tx *mirror.Tx) error {
		was, err := i.asked(tx, name, fingerprint, may)
		if err != nil {
			return err
		}
		is := *was
		is.RefusedBy = by
		i.asks.Put(tx, fingerprint, &is)
		tx.Notify(audit.Host(name))
		audit.Note(tx, api.Event{Kind: "host.refused", By: by, Channel: is.Channel, Host: name,
			Text: fmt.Sprintf("the SSH key %s is not to be that of %s", fingerprint, name), Data: map[string]string{"key": fingerprint}})
		return nil
	})
}

// Forget takes away what was approved for a host.
func (i *Identities) Forget(tx *mirror.Tx, host string) {
	if len(i.keys.All()) == 0 {
		return
	}
	for key, a := range i.keys.AllIn(tx) {
		if a.Host == host {
			i.keys.Put(tx, key, nil)
		}
	}
}
