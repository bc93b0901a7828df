package desired

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"narwharf/cache/root"
	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/channel"
	"narwharf/hooks/host"
	"narwharf/hooks/intake"
	"narwharf/hooks/reboot"
	"narwharf/signing"
)

// Report takes a host's report, if it can be true and is news, with all that
// comes of it.
func (f *Fleet) Report(parent context.Context, who host.Caller, name string, st *api.Status) error {
	self := intake.SelfOf(st)
	touch := func() { f.o.Hosts.Presence(name).Touch(f.o.Clock(), st.Channel, st.Target) }
	if f.o.Hosts.Known(name) && f.o.Hosts.Refused(who, name, self) == nil {
		touch()
	}
	l, was := f.o.Channels.Get(st.Channel), f.o.Hosts.Former(st.Instance, name)
	told := f.told(name, st.Channel)
	var refused error
	ctx := state.Expect(parent, state.Expected{ // of this change alone
		Keys:   append(f.o.Hosts.Expected(name, self), f.o.Slots.Key(name), root.OwnerKey(host.RootOwner(name))),
		Append: f.isNews(name, st),
	})
	report := func(known bool) error {
		locks := slices.Concat(host.Locks(name, st.Instance)[1:], root.Locks(host.Roots(st)), []string{state.Shared(channel.Lock(st.Channel))})
		if !known {
			locks = append(locks, host.MadeLock(who))
		}
		return f.change(ctx, name, locks, func(tx *mirror.Tx, sl *reboot.Slot) (err error) {
			var old *api.Status
			if old, refused, err = f.o.Hosts.Report(tx, who, name, st, was, known, told); err != nil || refused != nil {
				return err
			}
			f.noteStatus(tx, l, name, old, st)
			f.endSlot(tx, name, sl, st)
			return nil
		})
	}
	err := report(f.o.Hosts.Known(name))
	if errors.Is(err, host.ErrGone) {
		err = report(false)
	}
	switch {
	case errors.Is(err, host.ErrAgain):
		f.o.Wake(append(audit.Hosts(st.Channel), audit.Host(name))...)
	case err != nil:
		return err
	case refused != nil:
		return refused
	}
	touch()
	return f.o.Hosts.Withdraw(parent, st.Instance, name, st.Channel)
}

// endSlot is what a report changes of the host's slot.
func (f *Fleet) endSlot(tx *mirror.Tx, name string, sl *reboot.Slot, st *api.Status) {
	switch {
	case sl == nil:
	case sl.Over(st, tx.Time):
		f.o.Slots.End(tx, name, sl, name, fmt.Sprintf("%s is %s (seq %d): its reboot slot of the group %s is free", name, st.State, st.Seq, sl.Group))
	case sl.Failed(st) && sl.LastReason != st.WaitingFor.Detail:
		sl.LastReason = st.WaitingFor.Detail
		f.o.Slots.Put(tx, name, sl)
	}
}

// isNews tells whether a report is probably written to the audit log.
func (f *Fleet) isNews(name string, is *api.Status) bool {
	r := f.o.Hosts.Record(name)
	return r == nil || r.Status == nil || r.Status.State != is.State || r.Status.Seq != is.Seq || r.Status.Attempt != is.Attempt
}

// noteStatus writes down changes of state, and what ought to wake somebody.
func (f *Fleet) noteStatus(tx *mirror.Tx, l *channel.Snapshot, name string, was, is *api.Status) {
	if was == nil || was.State != is.State || was.Seq != is.Seq || was.Attempt != is.Attempt {
		text := fmt.Sprintf("%s is %s", name, is.State)
		if is.Seq > 0 {
			text += fmt.Sprintf(" (seq %d)", is.Seq)
		}
		if is.Error != "" {
			text += ": " + is.Error
		}
		alarm := is.State == api.Failed || is.State == api.Rejected
		data := map[string]string{"state": string(is.State), "attempt": is.Attempt, "current": is.Current}
		if f.o.Hosts.In(tx, name).Obeyed() {
			data[audit.Asked] = "true"
		}
		audit.Note(tx, api.Event{Kind: "host.state", By: name, Channel: is.Channel, Host: name, Seq: is.Seq, Text: text, Alarm: alarm, Data: data})
	}
	if is.Head == nil || is.HighestSeq <= l.State.Seq || was != nil && was.HighestSeq == is.HighestSeq || is.HighestSeq <= f.o.Channels.In(tx, l.Name).Seq {
		return
	}
	keys, threshold, err := l.State.Trust()
	if err != nil || len(keys) == 0 {
		return
	}
	head, err := signing.VerifyHead(is.Head.Head, signing.Trust{Keys: keys, Threshold: threshold, Origin: l.State.Origin, Channel: l.Name})
	if err != nil || head.Seq != is.HighestSeq {
		return
	}
	audit.Note(tx, api.Event{Kind: "channel.behind", Channel: l.Name, Host: name, Seq: head.Seq, Alarm: true,
		Text: fmt.Sprintf("%s shows a valid release %d of %s and this server knows %d: was it restored from an old backup?", name, head.Seq, l.Name, l.State.Seq)})
}
