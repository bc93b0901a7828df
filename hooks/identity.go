package hooks

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"narwharf/hooks/api"
	"narwharf/signing/access"
)

// Which machine a host is. A host name belongs to the instance that reported by
// it first; another that uses the name is refused and is an alarm, until a
// person says which of them it shall be (docs/design/012-host-identity.md).
//
// Two tables below the bucket "hooks" say so:
//
//	owner     <host>      -> owner
//	instance  <instance>  -> sightings, under "name/"<host> where it is ""
//
// The owner of a name changes only while reporting has the name locked.
var (
	ownerBucket    = []byte("owner")
	instanceBucket = []byte("instance")
)

// owner is the machine that has a host's name, and those that would have it.
type owner struct {
	api.Identity
	Claims []claim `json:"claims,omitempty"`
}

type claim struct {
	api.Claim
	TokenID string `json:"token_id,omitempty"` // that it came with
	// Withdrawn is when the machine spoke by the name that it has, zero if it
	// has not since. While a system with another host name is on trial, its
	// probe and the agent that runs take turns.
	Withdrawn time.Time `json:"withdrawn,omitzero"`
}

// maxClaims bounds what is kept of a name; whoever can follow a channel can draw
// instances as he likes. A claim that was withdrawn and comes back within
// claimPause is the same one, and no other alarm.
const (
	maxClaims  = 8
	claimPause = time.Hour
)

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

// identities are both tables in memory. Values are replaced, never changed.
type identities struct {
	mu      sync.RWMutex
	owners  map[string]*owner
	sighted map[string]*sightings
	latest  map[string]string // the host name that an instance took last
	claims  map[string]string // a host name that an instance claims
}

func sightKey(host, instance string) string {
	if instance == "" {
		return "name/" + host
	}
	return instance
}

// loadIdentities reads the tables, and makes them in an older database.
func loadIdentities(db *bbolt.DB) (*identities, error) {
	ids := &identities{owners: make(map[string]*owner), sighted: make(map[string]*sightings), latest: make(map[string]string), claims: make(map[string]string)}
	err := db.Update(func(tx *bbolt.Tx) error {
		root := tx.Bucket(rootBucket)
		for _, name := range [][]byte{ownerBucket, instanceBucket} {
			if _, err := root.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		if err := root.Bucket(ownerBucket).ForEach(func(k, v []byte) error {
			o := new(owner)
			if err := json.Unmarshal(v, o); err != nil {
				return fmt.Errorf("owner of host %s: %w", k, err)
			}
			ids.set(string(k), o)
			return nil
		}); err != nil {
			return err
		}
		return root.Bucket(instanceBucket).ForEach(func(k, v []byte) error {
			sg := new(sightings)
			if err := json.Unmarshal(v, sg); err != nil {
				return fmt.Errorf("instance %s: %w", k, err)
			}
			if len(sg.Seen) > 0 {
				ids.sighted[string(k)] = sg
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("open identities of hosts: %w", err)
	}
	return ids, nil
}

// set puts an owner into memory, nil for none; for mu's holder.
func (ids *identities) set(host string, o *owner) {
	old := ids.owners[host]
	if old != nil {
		for _, c := range old.Claims {
			if ids.claims[c.Instance] == host {
				delete(ids.claims, c.Instance)
			}
		}
		if ids.latest[old.Instance] == host {
			delete(ids.latest, old.Instance)
		}
	}
	if o == nil {
		delete(ids.owners, host)
		return
	}
	ids.owners[host] = o
	for _, c := range o.Claims {
		if c.Withdrawn.IsZero() {
			ids.claims[c.Instance] = host
		}
	}
	if now := ids.owners[ids.latest[o.Instance]]; o.Instance != "" && (now == nil || now.Since.Before(o.Since)) {
		ids.latest[o.Instance] = host
	}
}

func (ids *identities) owner(host string) *owner {
	ids.mu.RLock()
	defer ids.mu.RUnlock()
	return ids.owners[host]
}

// names adds the host names that have an owner.
func (ids *identities) names(set map[string]bool) {
	ids.mu.RLock()
	defer ids.mu.RUnlock()
	for n := range ids.owners {
		set[n] = true
	}
}

func (ids *identities) sightings(host, instance string) *sightings {
	ids.mu.RLock()
	defer ids.mu.RUnlock()
	return ids.sighted[sightKey(host, instance)]
}

// putOwner stores an owner, and removes it if it is nil.
func (s *Server) putOwner(ch *change, host string, o *owner) error {
	ch.done = append(ch.done, func() {
		s.identities.mu.Lock()
		s.identities.set(host, o)
		s.identities.mu.Unlock()
	})
	if o == nil {
		return ch.tx.Bucket(ownerBucket).Delete([]byte(host))
	}
	return putJSON(ch.tx.Bucket(ownerBucket), []byte(host), o)
}

// putSightings stores the sightings of an instance, and removes them if sg is nil.
func (s *Server) putSightings(ch *change, key string, sg *sightings) error {
	ch.done = append(ch.done, func() {
		s.identities.mu.Lock()
		defer s.identities.mu.Unlock()
		if sg == nil {
			delete(s.identities.sighted, key)
		} else {
			s.identities.sighted[key] = sg
		}
	})
	if sg == nil {
		return ch.tx.Bucket(instanceBucket).Delete([]byte(key))
	}
	return putJSON(ch.tx.Bucket(instanceBucket), []byte(key), sg)
}

// selfOf is which machine a poll or log is of.
func selfOf(req *http.Request) (api.Self, error) {
	q := req.URL.Query()
	self := api.Self{Instance: q.Get("instance"), Machine: q.Get("machine"), BootID: q.Get("boot")}
	return self, checkSelf(self)
}

func checkSelf(self api.Self) error {
	if self.Instance != "" && !api.ValidInstance(self.Instance) {
		return api.Errorf(api.BadRequest, "instance %q is not 32 hex digits", self.Instance)
	}
	if len(self.Machine) > 64 || len(self.BootID) > 64 {
		return api.Errorf(api.BadRequest, "machine and boot have 64 characters at most")
	}
	return nil
}

// foreign tells whether a machine that acts as host is not the one that has the
// name. Agents from before instances are taken for the owner where they show
// that they are: by a token of the host's own, or by a boot that the owner was
// seen with, after a host went back to its older agent.
func (s *Server) foreign(o *owner, host string, self api.Self, who access.Principal) bool {
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
		r := s.store.host(host)
		return r == nil || r.Status == nil || r.Status.Instance != ""
	}
	sg := s.identities.sightings(host, o.Instance)
	return sg == nil || !slices.ContainsFunc(sg.Seen, func(x sighting) bool { return x.Boot == self.BootID })
}

// admit refuses a machine that is not host, and notes that it tried. The name is
// to be locked.
func (s *Server) admit(c *call, host, channel string, self api.Self) error {
	o := s.identities.owner(host)
	if !s.foreign(o, host, self, c.who) {
		return nil
	}
	if err := s.noteClaim(c, o, host, channel, self); err != nil {
		return err
	}
	return conflict(o, host, self)
}

// admitPoll is admit for requests that hold no lock, and change nothing.
func (s *Server) admitPoll(c *call, host, channel string, self api.Self) error {
	if s.foreign(s.identities.owner(host), host, self, c.who) {
		defer s.reporting.Lock(host)()
		return s.admit(c, host, channel, self)
	}
	return s.sightPoll(host, channel, self)
}

// conflict does not tell all of the owner's instance: the claimant need not know.
func conflict(o *owner, host string, self api.Self) error {
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

// noteClaim keeps who claims a name, and rings once for each.
func (s *Server) noteClaim(c *call, o *owner, host, channel string, self api.Self) error {
	now := s.clock().UTC()
	next := *o
	next.Claims = slices.DeleteFunc(slices.Clone(o.Claims), func(x claim) bool {
		return !x.Withdrawn.IsZero() && now.Sub(x.Withdrawn) >= claimPause
	})
	is := claim{Claim: api.Claim{Instance: self.Instance, Machine: self.Machine, Since: now, Address: remoteAddress(c.req)}, TokenID: c.who.TokenID}
	at := slices.IndexFunc(next.Claims, func(x claim) bool { return x.Instance == self.Instance })
	known := at >= 0
	switch {
	case !known && len(next.Claims) >= maxClaims:
		return nil
	case !known:
		next.Claims = append(next.Claims, is)
	default:
		is.Since = next.Claims[at].Since
		if is.Machine == "" {
			is.Machine = next.Claims[at].Machine
		}
		if is == next.Claims[at] {
			return nil
		}
		next.Claims[at] = is
	}
	_, err := s.store.update(now, func(ch *change) error {
		if !known {
			ch.note(api.Event{Kind: "host.identity", By: c.who.Name, Channel: channel, Host: host, Alarm: true,
				Text: fmt.Sprintf("another machine claims to be %s: %s, from %s; it gets nothing until narwharf host approve %s --instance %s",
					host, instanceText(self.Instance), is.Address, host, instanceFlag(self.Instance)),
				Data: map[string]string{"instance": self.Instance, "machine": self.Machine, "address": is.Address, "owner": o.Instance}})
		}
		return s.putOwner(ch, host, &next)
	})
	if err != nil {
		return err
	}
	s.noted(channel)
	return nil
}

// remoteAddress is where a request came from, without the port.
func remoteAddress(req *http.Request) string {
	host, _, err := net.SplitHostPort(req.RemoteAddr)
	if err != nil {
		return req.RemoteAddr
	}
	return host
}

// own makes the machine that reports the owner of its name, if nobody is, and
// keeps what is new of it. The name is to be locked and the machine admitted.
func (s *Server) own(ch *change, host, channel string, self api.Self) error {
	o := s.identities.owner(host)
	event := api.Event{By: host, Channel: channel, Host: host, Data: map[string]string{"instance": self.Instance, "machine": self.Machine}}
	next := new(owner)
	switch {
	case o == nil:
		*next = *s.newOwner(host, self)
		if next.Was != "" {
			event.Kind, event.Text = "host.renamed", fmt.Sprintf("%s is the machine that was %s, by its instance", host, next.Was)
		}
	case o.Instance == "" && self.Instance != "":
		*next = *o
		next.Instance, next.Machine = self.Instance, self.Machine
		event.Kind, event.Text = "host.identified", fmt.Sprintf("%s says which machine it is, since its agent is a newer one: %s", host, instanceText(self.Instance))
	case self.Instance != "" && self.Machine != o.Machine:
		*next = *o
		next.Machine = self.Machine
		event.Kind, event.Text = "host.machine", fmt.Sprintf("%s has another machine id, as hosts have after each boot that do not keep theirs", host)
	default:
		return s.sight(ch, host, channel, self)
	}
	if event.Kind != "" {
		ch.note(event)
	}
	if err := s.putOwner(ch, host, next); err != nil {
		return err
	}
	return s.sight(ch, host, channel, self)
}

// newOwner is a machine to which a name comes now.
func (s *Server) newOwner(host string, self api.Self) *owner {
	o := &owner{Identity: api.Identity{Instance: self.Instance, Machine: self.Machine, Since: s.clock().UTC()}}
	s.identities.mu.RLock()
	defer s.identities.mu.RUnlock()
	if was := s.identities.latest[self.Instance]; self.Instance != "" && was != host {
		o.Was = was
	}
	return o
}

// sight keeps which boot of which machine was seen, and rings once if it is one
// that was over.
func (s *Server) sight(ch *change, host, channel string, self api.Self) error {
	key, is := sightKey(host, self.Instance), sighting{self.BootID, self.Machine}
	if known := s.identities.sightings(host, self.Instance); known != nil && (!known.Cloned.IsZero() || known.Seen[len(known.Seen)-1] == is) {
		return nil
	}
	// Another name of the same instance may have written in between.
	old := new(sightings)
	if v := ch.tx.Bucket(instanceBucket).Get([]byte(key)); v != nil {
		if err := json.Unmarshal(v, old); err != nil {
			return fmt.Errorf("instance %s: %w", key, err)
		}
	}
	next := &sightings{Seen: slices.Clone(old.Seen), Cloned: old.Cloned}
	switch at := slices.Index(next.Seen, is); {
	case !old.Cloned.IsZero() || at >= 0 && at == len(next.Seen)-1:
	case at >= 0:
		last := next.Seen[len(next.Seen)-1]
		next.Cloned = s.clock().UTC()
		ch.note(api.Event{Kind: "host.cloned", By: host, Channel: channel, Host: host, Alarm: true,
			Text: fmt.Sprintf("%s is two machines that take turns (boots %s and %s): was a disk copied with the agent's state? On the copy stop the agent, remove instance from its state_dir, and give it a host name of its own; then narwharf host approve %s --instance %s",
				host, is.Boot, last.Boot, host, instanceFlag(self.Instance)),
			Data: map[string]string{"instance": self.Instance, "boot": is.Boot, "machine": is.Machine, "other_boot": last.Boot, "other_machine": last.Machine}})
	default:
		next.Seen = append(next.Seen, is)
		next.Seen = next.Seen[max(len(next.Seen)-maxSightings, 0):]
	}
	return s.putSightings(ch, key, next)
}

// sightPoll looks whether a poll is of a boot that was over. A boot that is not
// known yet is left to its first report.
func (s *Server) sightPoll(host, channel string, self api.Self) error {
	sg := s.identities.sightings(host, self.Instance)
	is := sighting{self.BootID, self.Machine}
	if self.BootID == "" || sg == nil || !sg.Cloned.IsZero() || sg.Seen[len(sg.Seen)-1] == is || !slices.Contains(sg.Seen, is) {
		return nil
	}
	_, err := s.store.update(s.clock(), func(ch *change) error { return s.sight(ch, host, channel, self) })
	if err == nil {
		s.noted(channel)
	}
	return err
}

// withdraw notes that an instance claims another name no more than the one it
// has now. No name is to be locked.
func (s *Server) withdraw(instance, has, channel string) error {
	s.identities.mu.RLock()
	host, ok := s.identities.claims[instance]
	s.identities.mu.RUnlock()
	if !ok || host == has {
		return nil
	}
	defer s.reporting.Lock(host)()
	o := s.identities.owner(host)
	if o == nil {
		return nil
	}
	next := *o
	next.Claims = slices.Clone(o.Claims)
	for i := range next.Claims {
		if next.Claims[i].Instance == instance {
			next.Claims[i].Withdrawn = s.clock().UTC()
		}
	}
	_, err := s.store.update(s.clock(), func(ch *change) error { return s.putOwner(ch, host, &next) })
	if err == nil {
		s.noted(channel)
	}
	return err
}

// describeIdentity puts into h which machine it is, and who else would be.
func (s *Server) describeIdentity(h *api.Host) {
	o := s.identities.owner(h.Host)
	if o == nil {
		return
	}
	id := o.Identity
	if sg := s.identities.sightings(h.Host, id.Instance); sg != nil {
		id.Cloned = !sg.Cloned.IsZero()
	}
	h.Identity = &id
	for _, c := range o.Claims {
		if c.Withdrawn.IsZero() {
			h.Conflict = append(h.Conflict, c.Claim)
		}
	}
}

// forgetIdentity lets the name have a new owner. The name is to be locked.
func (s *Server) forgetIdentity(ch *change, host string) error {
	o := s.identities.owner(host)
	if o == nil {
		return nil
	}
	if err := s.putSightings(ch, sightKey(host, o.Instance), nil); err != nil {
		return err
	}
	return s.putOwner(ch, host, nil)
}
