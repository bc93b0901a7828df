package driver

import (
	"maps"
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
	}
	if st.WaitingFor != nil {
		l.Waiting = st.WaitingFor.Kind
	}
	return l
}

// same tells whether a level says nothing new. When it was said is not looked at.
func same(a, b *rollout.Level) bool {
	x, y := *a, *b
	x.Labels, y.Labels, x.At, y.At = nil, nil, time.Time{}, time.Time{}
	return equal(&x, &y) && maps.Equal(a.Labels, b.Labels)
}

func equal(a, b *rollout.Level) bool {
	return a.Host == b.Host && a.Channel == b.Channel && a.Target == b.Target && a.State == b.State && a.Seq == b.Seq &&
		a.Attempt == b.Attempt && a.HighestSeq == b.HighestSeq && a.Current == b.Current && a.Profile == b.Profile &&
		a.Confirmed == b.Confirmed && a.Waiting == b.Waiting && a.Held == b.Held && a.Paused == b.Paused &&
		a.TooOld == b.TooOld && a.Refuses == b.Refuses && a.DeniesBytes == b.DeniesBytes && a.Slot == b.Slot && a.Asked == b.Asked
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
