package driver

import (
	"time"

	"narwharf/hooks/host"
	"narwharf/hooks/rollout"
)

// level is what is known of a host for the engine; nil if it has not reported.
func (d *Driver) level(name string, r *host.Record, now time.Time) *rollout.Level {
	if r == nil || r.Status == nil {
		return nil
	}
	st := r.Status
	l := &rollout.Level{
		Host: name, Channel: st.Channel, Target: st.Target, Labels: r.Labels,
		State: st.State, Seq: st.Seq, Attempt: st.Attempt, HighestSeq: st.HighestSeq,
		Current: st.Current, Profile: st.Profile, Confirmed: st.Confirmed, At: r.Reported,
		Held: r.Held(now), Paused: st.Pause != nil,
		TooOld:  d.o.Policies.Of(st.Channel).TooOld(st.Agent),
		Refuses: st.Directives != nil && st.Directives.Obey == "never",
		// All agents there are do.
		DeniesBytes: true,
		Slot:        d.o.Slots.Of(name) != nil,
		Asked:       r.Obeyed(),
		LetGo:       st.LetGo,
	}
	if st.WaitingFor != nil {
		l.Waiting = st.WaitingFor.Kind
	}
	return l
}

// away is since when a host is not heard of; zero: it is there. Nobody was heard of before
// the driver began.
func (d *Driver) away(name string, r *host.Record, now time.Time) time.Time {
	if d.online(name, now) {
		return time.Time{}
	}
	at := d.o.Hosts.HeardOf(name, r)
	if at.After(d.began) {
		return at
	}
	return d.began
}

// online tells whether a host polls here or at another server of the state.
func (d *Driver) online(name string, now time.Time) bool {
	return d.o.Hosts.Online(name, now)
}
