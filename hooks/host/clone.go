package host

import (
	"fmt"
	"slices"
	"time"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
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

func sightKey(host, instance string) string {
	if instance == "" {
		return "name/" + host
	}
	return instance
}

// isOver tells whether a machine shows a boot that was followed by another.
func (s *sightings) isOver(self api.Self) bool {
	is := sighting{self.BootID, self.Machine}
	return self.BootID != "" && s != nil && !s.settled(is) && slices.Contains(s.Seen, is)
}

// settled tells whether a sighting says nothing new: it is the last, or the
// instance is known to be two machines.
func (s *sightings) settled(is sighting) bool {
	return !s.Cloned.IsZero() || len(s.Seen) > 0 && s.Seen[len(s.Seen)-1] == is
}

// sight keeps which boot of which machine was seen, and is an alarm once if it is
// one that was over.
func (h *Hosts) sight(tx *mirror.Tx, old *sightings, host, channel string, self api.Self) {
	is := sighting{self.BootID, self.Machine}
	if old == nil {
		old = new(sightings)
	}
	if old.settled(is) {
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
