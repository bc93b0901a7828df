package desired

import "narwharf/hooks/api"

// Well is the seq of a channel's current release if it went well: some host runs it well, and
// none ended it badly. Else it is 0. Of a channel with roll-outs it is the last that completed well.
func (f *Fleet) Well(channel string) int64 {
	if f.o.Rollouts.Governs(channel) {
		return f.o.Rollouts.LastWell(channel)
	}
	l := f.o.Channels.Get(channel)
	if l.Release == nil {
		return 0
	}
	well := int64(0)
	for _, r := range f.o.Hosts.Records() {
		st := r.Status
		if st == nil || st.Channel != channel || st.Seq != l.Head.Seq {
			continue
		}
		switch {
		case st.State == api.OK:
			well = st.Seq
		case r.Obeyed():
		case st.State == api.Reverted, st.State == api.Failed, st.State == api.Rejected:
			return 0
		}
	}
	return well
}
