// Package fleetlock gives reboot slots to machines that are no hosts: those that ask by the
// FleetLock protocol (https://coreos.github.io/zincati/development/fleetlock/protocol/), as
// Zincati of Fedora CoreOS does. They share the slots of hosts (hooks/reboot): a group is
// the channel of that name with its policy, or one of the server's configuration, or both.
//
// # What it promises
//
//   - pre-reboot is answered well after the slot is durable, and again as often as its holder
//     asks. Never more of a group hold one than the smaller of both numbers says.
//   - steady-state is answered well when the machine holds none. It ends the slot that it held.
//   - A closed window of the channel's policy, and a freeze, let nobody take a slot. Who holds
//     one keeps it.
//   - No time ends a slot: a machine that does not come back is down. There is an alarm after
//     the channel's reboot_timeout_s, and a person frees it.
//
// An id is what the machine says of itself. Whoever has a credential for its group may end its
// slot, as with other servers of the protocol.
package fleetlock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/host"
	"narwharf/hooks/policy"
	"narwharf/hooks/reboot"
)

// Header is the one that each request has to have, with the value "true".
const Header = "fleet-lock-protocol"

// MaxBody bounds a request's body.
const MaxBody = 4 << 10

// Machine is who asks.
type Machine struct {
	ID    string `json:"id"`
	Group string `json:"group"`
}

// Read reads the body of a request. Fields that it does not know are nothing to it: the
// protocol may get more.
func Read(body io.Reader) (m Machine, err error) {
	var r struct {
		Params *Machine `json:"client_params"`
	}
	switch err := json.NewDecoder(body).Decode(&r); {
	case err != nil && !isJSON(err):
		return m, err
	case err != nil:
		return m, api.Errorf(api.BadRequest, "the body is not the JSON of FleetLock: %v", err)
	case r.Params == nil:
		return m, api.Errorf(api.BadRequest, `the body has no client_params: send {"client_params":{"id":"…","group":"…"}}`)
	}
	if err := reboot.CheckID(r.Params.ID); err != nil {
		return m, api.Errorf(api.BadRequest, "%v", err)
	}
	if err := reboot.CheckGroup(r.Params.Group); err != nil {
		return m, api.Errorf(api.BadRequest, "%v", err)
	}
	return *r.Params, nil
}

// Options are what Locks are made of.
type Options struct {
	Set      *mirror.Set
	Slots    *reboot.Slots
	Policies *policy.Policies
	Groups   map[string]int // of the configuration: how many may reboot at a time
	// Frozen says why nothing may change now, "" if it may; nil: it always may.
	Frozen func() string
}

// Locks are the slots of machines that are no hosts.
type Locks struct{ o Options }

// New makes Locks.
func New(o Options) *Locks {
	if o.Frozen == nil {
		o.Frozen = func() string { return "" }
	}
	return &Locks{o}
}

// Limit is how many of a group may reboot at a time by what its channel's policy and the
// configuration say, 0 if neither says anything.
func (l *Locks) Limit(group string) int { return l.limit(group, l.o.Policies.Of(group)) }

func (l *Locks) limit(group string, p *policy.Policy) int {
	switch n := l.o.Groups[group]; {
	case n == 0:
		return p.RebootSlots
	case p.RebootSlots == 0:
		return n
	default:
		return min(n, p.RebootSlots)
	}
}

// update changes the slot of a machine under the locks of both groups that it may be about.
func (l *Locks) update(ctx context.Context, m Machine, fn func(tx *mirror.Tx, name string, sl *reboot.Slot) error) error {
	name := reboot.Foreign(m.ID)
	locks := []string{host.Lock(name), reboot.Lock(m.Group), state.Shared(policy.Lock(m.Group))}
	return l.o.Set.Update(ctx, locks, func(tx *mirror.Tx) error {
		sl := l.o.Slots.In(tx, name)
		if sl != nil && sl.Group != m.Group {
			return api.Errorf(api.IdentityConflict, "the machine %s holds a reboot slot of the group %s, and asks about %s: if it was moved, free it with narwharf reboots free %[2]s %[1]s; if these are two machines, they need two ids", m.ID, sl.Group, m.Group)
		}
		return fn(tx, name, sl)
	})
}

// PreReboot gives a machine a slot, if it does not hold it already. by is whose credential it
// shows. It fails with api.SlotTaken if there is none, with api.NotNow if a window is closed
// or a freeze is on, and with api.NotFound for a group that has no slots.
func (l *Locks) PreReboot(ctx context.Context, m Machine, by string) error {
	return l.update(ctx, m, func(tx *mirror.Tx, name string, sl *reboot.Slot) error {
		if sl != nil {
			return nil
		}
		p := l.o.Policies.In(tx, m.Group)
		limit := l.limit(m.Group, p)
		if limit == 0 {
			return unknown(m.Group)
		}
		if why := l.o.Frozen(); why != "" {
			return api.Errorf(api.NotNow, "%s", why)
		}
		if open, next := p.Open(tx.Time); !open {
			return api.Errorf(api.NotNow, "the windows of %s are closed: %s", m.Group, p.Opens(next))
		}
		if !l.o.Slots.Take(tx, name, &reboot.Slot{Channel: m.Group, Group: m.Group, Granted: tx.Time.UTC(), By: by}, limit) {
			return api.Errorf(api.SlotTaken, "%s", l.o.Slots.Full(m.Group, limit))
		}
		return nil
	})
}

func unknown(group string) error {
	return api.Errorf(api.NotFound, "the group %s has no reboot slots: give it some in fleetlock.groups of the server's configuration, or as reboot_slots in the policy of the channel %[1]s", group)
}

// SteadyState ends the slot that a machine holds, if it holds one.
func (l *Locks) SteadyState(ctx context.Context, m Machine, by string) error {
	if l.o.Slots.Of(reboot.Foreign(m.ID)) == nil && l.Limit(m.Group) == 0 {
		return unknown(m.Group) // said at its start, and not first when it wants to reboot
	}
	return l.update(ctx, m, func(tx *mirror.Tx, name string, sl *reboot.Slot) error {
		if sl != nil {
			l.o.Slots.End(tx, name, sl, by, fmt.Sprintf("the machine %s is in its steady state: its reboot slot of the group %s is free", m.ID, m.Group))
		}
		return nil
	})
}

// Free takes the slot of a machine that will not come back.
func (l *Locks) Free(ctx context.Context, m Machine, by string) error {
	return l.update(ctx, m, func(tx *mirror.Tx, name string, sl *reboot.Slot) error {
		if sl == nil {
			return api.Errorf(api.NotFound, "the machine %s holds no reboot slot of the group %s: narwharf reboots list shows them; that of a host is taken with narwharf host release", m.ID, m.Group)
		}
		l.o.Slots.End(tx, name, sl, by, fmt.Sprintf("the reboot slot of the machine %s in the group %s was taken away", m.ID, m.Group))
		return nil
	})
}

// isJSON tells an error of the JSON from one of reading it.
func isJSON(err error) bool {
	return errors.As(err, new(*json.SyntaxError)) || errors.As(err, new(*json.UnmarshalTypeError)) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
