package desired

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/channel"
	"narwharf/hooks/host"
	"narwharf/hooks/reboot"
	"narwharf/hooks/rollout"
)

// What a host can be asked for that needs no new release.
const (
	Retry  = "retry"  // to try its entry again that failed
	Revert = "revert" // to leave a release for the last system that it found well before
)

// Direct gives a host a directive about the release that is wanted of it. It
// stands until there is another release; a host obeys each once, by its id, and
// none that is older than one that it obeyed, by its serial.
func (f *Fleet) Direct(ctx context.Context, who host.Caller, name, what string, seq int64) error {
	d, err := f.Describe(name)
	if err != nil {
		return err
	}
	if what == Retry && f.o.Rollouts.MayRetry(d.Channel, name, seq) {
		if err := who.Over(f.o.Hosts.Record(name)); err != nil {
			return err
		}
		return f.o.Rollouts.Verb(ctx, rollout.Verb{Channel: d.Channel, Seq: seq, Verb: rollout.Retry, Host: name, By: who.Name})
	}
	shown := cmp.Or(d.ShownSeq, d.WantedSeq)
	return f.change(ctx, name, []string{state.Shared(channel.Lock(d.Channel))}, func(tx *mirror.Tx, sl *reboot.Slot) error {
		r := f.o.Hosts.In(tx, name)
		is := f.o.Channels.In(tx, d.Channel)
		switch {
		case r == nil:
			return host.Unknown(name)
		case who.Over(r) != nil:
			return who.Over(r)
		case shown == 0:
			return api.Errorf(api.NotFound, "there is no release for %s that it could %s", name, what)
		case d.ShownSeq == 0 && is.Current != seq:
			return otherSeq(name, seq, is.Current)
		case shown != seq:
			return otherSeq(name, seq, shown)
		}
		return f.direct(tx, who, name, d.Channel, r, sl, &api.Directive{Type: what, Seq: seq})
	})
}

func (f *Fleet) direct(tx *mirror.Tx, who host.Caller, name, channel string, r *host.Record, sl *reboot.Slot, d *api.Directive) error {
	d.Serial = nextSerial(tx.Time, r, channel, d.Seq)
	if d.Serial > api.MaxSerial {
		return api.Errorf(api.SeqConflict, "%s says that it has obeyed directive %d of seq %d, and there is none above it: promote the same again as another seq, and say it of that", name, d.Serial-1, d.Seq)
	}
	d.ID = fmt.Sprintf("%s-%d-%x", d.Type, d.Seq, tx.Time.UnixNano())
	r.Directive = d
	text := fmt.Sprintf("%s is asked to leave seq %d", name, d.Seq)
	if d.Type == Retry {
		r.Unused = nil // it is as if it had never been let reboot
		text = fmt.Sprintf("%s is asked to try seq %d again", name, d.Seq)
		if sl != nil {
			sl.Retried = sl.Seq == d.Seq && sl.Lease(tx.Time) == 0
			f.o.Slots.Put(tx, name, sl)
		}
	}
	audit.Note(tx, api.Event{Kind: "host." + d.Type, By: who.Name, Host: name, Channel: channel, Seq: d.Seq, Text: text})
	f.o.Hosts.Put(tx, name, r)
	return nil
}

// nextSerial is above all that this server gave the host about a release, and
// above what the host says it obeyed: the clock may have been set back, and the
// database may be an old one. The clock's milliseconds are above what was given
// after that database was saved, and the host has not yet told of.
func nextSerial(now time.Time, r *host.Record, channel string, seq int64) int64 {
	last := int64(0)
	if d := r.Directive; d != nil && d.Seq == seq {
		last = d.Serial
	}
	if st := r.Status; st != nil && st.Channel == channel && st.HighestSeq == seq {
		last = max(last, st.DirectiveSerial)
	}
	return max(last+1, now.UnixMilli())
}

func otherSeq(name string, asked, is int64) error {
	return api.Errorf(api.SeqConflict, "for %s it is seq %d now, not %d: look at it and say so again if you still mean it", name, is, asked)
}

// Remove forgets a host: its report, its name, its slot, and the token that a join
// made for it.
func (f *Fleet) Remove(ctx context.Context, who host.Caller, name string) error {
	d, err := f.Describe(name)
	if err != nil {
		return err
	}
	if !d.Known() {
		return host.Unknown(name)
	}
	instance := ""
	if d.Identity != nil {
		instance = d.Identity.Instance
	}
	err = f.change(ctx, name, append(host.Locks(name, instance)[1:], host.TokenLocks()...), func(tx *mirror.Tx, sl *reboot.Slot) error {
		if err := who.Over(f.o.Hosts.In(tx, name)); err != nil {
			return err
		}
		f.o.Hosts.Forget(tx, who, name, d.Channel)
		if sl != nil {
			f.o.Slots.End(tx, name, sl, who.Name, fmt.Sprintf("%s is removed: its reboot slot of the group %s is free", name, sl.Group))
		}
		return nil
	})
	if err == nil {
		f.o.Hosts.Unsee(name)
		f.o.Wake(audit.Hosts(d.Channel)...)
	}
	return err
}

// Gone forgets a machine that was not heard of for so long that its rule lets it go.
func (f *Fleet) Gone(ctx context.Context, name string, after time.Duration) error {
	if f.o.Hosts.Online(name, f.o.Clock()) {
		return nil
	}
	err := f.Remove(ctx, host.Caller{Name: "forget_after " + after.String()}, name)
	if refused := (*api.Error)(nil); errors.As(err, &refused) && refused.Kind == api.NotFound {
		return nil
	}
	return err
}
