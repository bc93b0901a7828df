package host

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
)

// Owner is the machine that has a host's name, and those that would have it.
type Owner struct {
	api.Identity
	Claims []claim `json:"claims,omitempty"`
	Forget int64   `json:"forget_s,omitempty"` // after so many seconds without a word; 0: as retention says
}

type claim struct {
	api.Claim
	TokenID string `json:"token_id,omitempty"` // that it came with
	Owner   string `json:"owner,omitempty"`    // what it proved to be
	// Withdrawn is when the machine spoke by the name that it has, zero if it
	// has not since. While a system with another host name is on trial, its
	// probe and the agent that runs take turns.
	Withdrawn time.Time `json:"withdrawn,omitzero"`
}

func (c claim) self() api.Self { return api.Self{Instance: c.Instance, Machine: c.Machine} }

// maxClaims bounds what is kept of a name; whoever can follow a channel can draw
// instances as he likes. A claim that was withdrawn and comes back within
// claimPause is the same one, and no other alarm.
const (
	maxClaims  = 8
	claimPause = time.Hour
)

// names tell which host an instance is, or would be. They are in memory and say
// where to look, no more.
type names struct {
	mu      sync.Mutex
	latest  map[string]named  // the name that an instance took last
	claimed map[string]string // a name that an instance claims
}

type named struct {
	host  string
	since time.Time
}

// replace is called with each change of an owner.
func (n *names) replace(host string, was, is *Owner) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if was != nil {
		for _, c := range was.Claims {
			if n.claimed[c.Instance] == host {
				delete(n.claimed, c.Instance)
			}
		}
		if n.latest[was.Instance].host == host {
			delete(n.latest, was.Instance)
		}
	}
	if is == nil {
		return
	}
	for _, c := range is.Claims {
		if c.Withdrawn.IsZero() {
			n.claimed[c.Instance] = host
		}
	}
	if now, ok := n.latest[is.Instance]; is.Instance != "" && (!ok || now.since.Before(is.Since)) {
		n.latest[is.Instance] = named{host, is.Since}
	}
}

// Former is a name that an instance had; others than the host's count.
func (h *Hosts) Former(instance, host string) string {
	h.owners.Fresh()
	h.names.mu.Lock()
	defer h.names.mu.Unlock()
	if was := h.names.latest[instance].host; was != host {
		return was
	}
	return ""
}

// facts are what tells which machine a host is.
type facts struct {
	owner  *Owner     // nil if nobody has the name
	seen   *sightings // of the machine that acts as the host
	owners *sightings // of the machine that has the name
	record func() (*Record, error)
}

func (h *Hosts) facts(host string, self api.Self) facts {
	record := func() (*Record, error) { return h.records.Get(host).record() }
	f := facts{h.owners.Get(host), h.sighted.Get(sightKey(host, self.Instance)), nil, record}
	if f.owner != nil {
		f.owners = h.sighted.Get(sightKey(host, f.owner.Instance))
	}
	return f
}

func (h *Hosts) factsIn(tx *mirror.Tx, host string, self api.Self) facts {
	record := func() (*Record, error) { return h.records.Shared(tx, host).record() }
	f := facts{h.owners.In(tx, host), h.sighted.In(tx, sightKey(host, self.Instance)), nil, record}
	if f.owners = f.seen; f.owner != nil && f.owner.Instance != self.Instance {
		f.owners = h.sighted.In(tx, sightKey(host, f.owner.Instance))
	}
	return f
}

// Expected is what a report of a machine reads.
func (h *Hosts) Expected(host string, self api.Self) []state.Key {
	return []state.Key{h.records.Key(host), h.owners.Key(host), h.sighted.Key(sightKey(host, self.Instance))}
}

// otherMachine tells whether a machine that acts as host is not the one that has the
// name. Agents from before instances are taken for the owner where they show
// that they are: by a token of the host's own, or by a boot that the owner was
// seen with, after a host went back to its older agent.
func (f facts) otherMachine(host string, self api.Self, who Caller) bool {
	o := f.owner
	switch {
	case o == nil, o.Instance == self.Instance:
		return false
	case o.Instance == "":
		return false // the owner's agent is a newer one now
	case self.Instance != "":
		return true
	case who.Host == host:
		return false
	case self.BootID == "": // a poll of such an agent, which has reported or will
		r, err := f.record()
		return err != nil || r == nil || r.Status == nil || r.Status.Instance != ""
	}
	return f.owners == nil || !slices.ContainsFunc(f.owners.Seen, func(x sighting) bool { return x.Boot == self.BootID })
}

// refused is the answer to a machine that has not the name, nil to the one that
// has.
func (f facts) refused(who Caller, host string, self api.Self) error {
	if !f.otherMachine(host, self, who) {
		return nil
	}
	return conflict(f.owner, host, self)
}

// Refused is what to answer to a machine that acts as a host whose name it has
// not, nil to the one that has.
func (h *Hosts) Refused(who Caller, host string, self api.Self) error {
	return h.facts(host, self).refused(who, host, self)
}

// AdmitPoll is for requests that change nothing: it refuses a machine that has not
// the name, and notes that it tried. It also looks whether a poll is of a boot that
// was over. A boot that is not known yet is left to its first report.
func (h *Hosts) AdmitPoll(ctx context.Context, who Caller, host, channel string, self api.Self) error {
	f := h.facts(host, self)
	refused := f.refused(who, host, self)
	if refused != nil {
		if next, _ := f.owner.claimed(who, self, h.clock()); next == f.owner {
			return refused
		}
	} else if !f.seen.isOver(self) {
		return nil
	}
	err := h.set.Update(ctx, Locks(host, self.Instance), func(tx *mirror.Tx) error {
		f := h.factsIn(tx, host, self)
		if refused = f.refused(who, host, self); refused != nil {
			h.noteClaim(tx, f.owner, who, host, channel, self)
		} else if f.seen.isOver(self) {
			h.sight(tx, f.seen, host, channel, self)
		}
		return nil
	})
	if err == nil {
		err = refused
	}
	return err
}

// conflict does not tell all of the owner's instance: the claimant need not know.
func conflict(o *Owner, host string, self api.Self) error {
	return api.Errorf(api.IdentityConflict,
		"another machine has the name %s here: %s, since %s; this one is %s. If this one shall have the name: narwharf host approve %s --instance %s. If not, give it a name of its own (host in the agent's configuration)",
		host, instanceText(o.Instance[:min(len(o.Instance), 8)]), o.Since.UTC().Format(time.DateTime), instanceText(self.Instance), host, instanceFlag(self.Instance))
}

func instanceText(instance string) string {
	if instance == "" {
		return "one whose agent says no instance"
	}
	return "instance " + instance
}

func instanceFlag(instance string) string {
	if instance == "" {
		return "none"
	}
	return instance
}

// claimed is the owner after a machine has claimed the name, o itself if that
// changes nothing, and whether it is the first claim of that machine.
func (o *Owner) claimed(who Caller, self api.Self, now time.Time) (next *Owner, first bool) {
	now = now.UTC()
	next = new(Owner)
	*next = *o
	next.Claims = slices.DeleteFunc(slices.Clone(o.Claims), func(x claim) bool {
		return !x.Withdrawn.IsZero() && now.Sub(x.Withdrawn) >= claimPause
	})
	is := claim{Claim: api.Claim{Instance: self.Instance, Machine: self.Machine, Since: now, Address: who.Address}, TokenID: who.TokenID, Owner: who.Owner}
	at := next.claim(self.Instance)
	switch {
	case at < 0 && len(next.Claims) >= maxClaims:
		return o, false
	case at < 0:
		next.Claims = append(next.Claims, is)
		return next, true
	}
	is.Since = next.Claims[at].Since
	if is.Machine == "" {
		is.Machine = next.Claims[at].Machine
	}
	if is.Owner == "" {
		is.Owner = next.Claims[at].Owner
	}
	if is == next.Claims[at] {
		return o, false
	}
	next.Claims[at] = is
	return next, false
}

// claim is the index of an instance's claim, -1 if it has none.
func (o *Owner) claim(instance string) int {
	return slices.IndexFunc(o.Claims, func(x claim) bool { return x.Instance == instance })
}

// noteClaim keeps who claims a name, and is an alarm once for each.
func (h *Hosts) noteClaim(tx *mirror.Tx, o *Owner, who Caller, host, channel string, self api.Self) {
	next, first := o.claimed(who, self, tx.Time)
	if next == o {
		return
	}
	tx.Notify(audit.Hosts(channel)...)
	if first {
		audit.Note(tx, api.Event{Kind: "host.identity", By: who.Name, Channel: channel, Host: host, Alarm: true,
			Text: fmt.Sprintf("another machine claims to be %s: %s, from %s; it gets nothing until narwharf host approve %s --instance %s",
				host, instanceText(self.Instance), who.Address, host, instanceFlag(self.Instance)),
			Data: map[string]string{"instance": self.Instance, "machine": self.Machine, "address": who.Address, "owner": o.Instance}})
	}
	h.owners.Put(tx, host, next)
}

// claimName makes the machine that reports the owner of its name, if nobody is, and
// keeps what is new of it. The machine is admitted.
func (h *Hosts) claimName(tx *mirror.Tx, f facts, host, channel string, self api.Self, was string) {
	next := new(Owner)
	if f.owner != nil {
		*next = *f.owner
	}
	next.Instance, next.Machine = self.Instance, self.Machine
	event := api.Event{By: host, Channel: channel, Host: host, Data: map[string]string{"instance": self.Instance, "machine": self.Machine}}
	switch o := f.owner; {
	case o == nil:
		if next = h.newOwner(tx, self, was); next.Was != "" {
			event.Kind, event.Text = "host.renamed", fmt.Sprintf("%s is the machine that was %s, by its instance", host, next.Was)
		}
	case o.Instance == "" && self.Instance != "":
		event.Kind, event.Text = "host.identified", fmt.Sprintf("%s says which machine it is, since its agent is a newer one: %s", host, instanceText(self.Instance))
	case self.Instance != "" && self.Machine != o.Machine:
		event.Kind, event.Text = "host.machine", fmt.Sprintf("%s has another machine id, as hosts have after each boot that do not keep theirs", host)
	default:
		next = nil
	}
	if event.Kind != "" {
		audit.Note(tx, event)
	}
	if next != nil {
		h.owners.Put(tx, host, next)
	}
	h.sight(tx, f.seen, host, channel, self)
}

// newOwner is a machine to which a name comes now. was is a name that it had, if
// it still has it.
func (h *Hosts) newOwner(tx *mirror.Tx, self api.Self, was string) *Owner {
	o := &Owner{Identity: api.Identity{Instance: self.Instance, Machine: self.Machine, Since: tx.Time.UTC()}}
	if was == "" {
		return o
	}
	if old := h.owners.In(tx, was); old != nil && old.Instance == self.Instance {
		o.Was = was
	}
	return o
}

// Withdraw notes that an instance claims another name no more than the one it
// has now.
func (h *Hosts) Withdraw(ctx context.Context, instance, has, channel string) error {
	h.owners.Fresh()
	h.names.mu.Lock()
	host, ok := h.names.claimed[instance]
	h.names.mu.Unlock()
	if !ok || host == has {
		return nil
	}
	return h.set.Update(ctx, []string{Lock(host)}, func(tx *mirror.Tx) error {
		o := h.owners.In(tx, host)
		if o == nil || o.openClaim(instance) < 0 {
			return nil
		}
		next := *o
		next.Claims = slices.Clone(o.Claims)
		next.Claims[o.openClaim(instance)].Withdrawn = tx.Time.UTC()
		tx.Notify(audit.Hosts(channel)...)
		if !slices.ContainsFunc(next.Claims, func(c claim) bool { return c.Withdrawn.IsZero() }) {
			audit.Note(tx, api.Event{Kind: "host.withdrawn", By: has, Channel: channel, Host: host, Text: fmt.Sprintf("the machine that claimed to be %s is %s now; nobody else claims the name", host, has)})
		}
		h.owners.Put(tx, host, &next)
		return nil
	})
}

// A sighting is one boot of one machine. None of them comes back once another
// was seen, so if one does, there are two machines.
type sighting struct {
	Boot    string `json:"boot"`
	Machine string `json:"machine,omitempty"`
}

// sightings are those of an instance, the newest last.
type sightings struct {
	Seen   []sighting `json:"seen"`
	Cloned time.Time  `json:"cloned,omitzero"` // since when it is known to be two machines
}

const maxSightings = 8

func sightKey(host, instance string) string {
	if instance == "" {
		return "name/" + host
	}
	return instance
}

// isOver tells whether a machine shows a boot that was followed by another.
func (s *sightings) isOver(self api.Self) bool {
	is := sighting{self.BootID, self.Machine}
	return self.BootID != "" && s != nil && !s.known(is) && slices.Contains(s.Seen, is)
}

// known tells whether a sighting says nothing new: it is the last, or the
// instance is known to be two machines.
func (s *sightings) known(is sighting) bool {
	return !s.Cloned.IsZero() || len(s.Seen) > 0 && s.Seen[len(s.Seen)-1] == is
}

// sight keeps which boot of which machine was seen, and is an alarm once if it is
// one that was over.
func (h *Hosts) sight(tx *mirror.Tx, old *sightings, host, channel string, self api.Self) {
	is := sighting{self.BootID, self.Machine}
	if old == nil {
		old = new(sightings)
	}
	if old.known(is) {
		return
	}
	next := &sightings{Seen: slices.Clone(old.Seen)}
	if slices.Contains(next.Seen, is) {
		last := next.Seen[len(next.Seen)-1]
		next.Cloned = tx.Time.UTC()
		audit.Note(tx, api.Event{Kind: "host.cloned", By: host, Channel: channel, Host: host, Alarm: true,
			Text: fmt.Sprintf("%s is two machines that take turns (boots %s and %s): was a disk copied with the agent's state? On the copy stop the agent, remove instance from its state_dir, and give it a host name of its own; then narwharf host approve %s --instance %s",
				host, is.Boot, last.Boot, host, instanceFlag(self.Instance)),
			Data: map[string]string{"instance": self.Instance, "boot": is.Boot, "machine": is.Machine, "other_boot": last.Boot, "other_machine": last.Machine}})
	} else {
		next.Seen = append(next.Seen, is)
		next.Seen = next.Seen[max(len(next.Seen)-maxSightings, 0):]
	}
	h.sighted.Put(tx, sightKey(host, self.Instance), next)
}
