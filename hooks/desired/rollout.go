package desired

import (
	"fmt"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/channel"
	"narwharf/hooks/host"
	"narwharf/hooks/longpoll"
	"narwharf/hooks/policy"
	"narwharf/hooks/reboot"
	"narwharf/hooks/rollout/driver"
	"narwharf/signing"
)

// view is what a host is shown of its channel.
type view struct {
	seq  int64
	told *driver.Answer // of a channel with roll-outs
	of   pointers       // nil: nothing
}

type pointers interface {
	Pointer(target string) (*signing.Pointer, error)
}

// Pointer is what is shown to a target, nil for nothing.
func (v *view) Pointer(target string) (*signing.Pointer, error) {
	if v.of == nil {
		return nil, nil
	}
	return v.of.Pointer(target)
}

// governed tells whether the roll-outs of a channel say what its hosts are shown. Without a
// release there is nothing to show.
func governed(l *channel.Snapshot, p *policy.Policy) bool {
	return p.Rollout != nil && l.Release != nil
}

// view is the channel's current release, or the one that its roll-outs show the host.
func (f *Fleet) view(name string, l *channel.Snapshot, p *policy.Policy) (*view, error) {
	if !governed(l, p) {
		return &view{seq: l.State.Seq, of: l}, nil
	}
	told, err := f.o.Rollouts.Answer(l.Name, name)
	if err != nil { // they are being loaded, or a policy is being set at this moment
		return nil, longpoll.Later{Err: err}
	}
	v := &view{seq: told.Seq, told: &told}
	if r, err := f.o.Rollouts.At(l.Name, told.Seq); err != nil {
		return nil, err
	} else if r != nil {
		v.of = r
	}
	return v, nil
}

// heard is for a host that has accepted a later release than it is shown here: another server may have told it.
// It waits until this one has looked. If it is shown no other after that, that is the truth.
func (f *Fleet) heard(name string, have api.Have) error {
	if f.o.Rollouts.Heard(have.Asked) {
		return nil
	}
	f.o.Timers.First(f.o.Clock().Add(time.Second), "heard/"+name, func() { f.o.Wake(audit.Host(name)) })
	return longpoll.Later{Err: api.Errorf(api.Unavailable, "this server has not heard of release %d yet: ask again", have.Seq)}
}

func (v *view) absentText(l *channel.Snapshot, target string) string {
	switch {
	case l.Release == nil:
		return l.AbsentText()
	case v.told != nil && v.of == nil:
		return fmt.Sprintf("no release of %s is shown to it yet", l.Name)
	}
	return fmt.Sprintf("release %d of %s has no entry for %s", v.seq, l.Name, target)
}

// obey tells a host what the roll-outs decided about it.
func (f *Fleet) obey(a *Answer, name string, told *driver.Answer, r *host.Record, p *policy.Policy) {
	now := f.o.Clock()
	if d := directive(told, r); d != nil {
		a.Directive = d
	}
	open, next := p.Open(now)
	switch {
	case told.Grant != "":
		a.Grant = newGrant(told.Seq, min(a.lease, told.LeaseAt(now)), told.Grant)
	case told.Wait == "" || told.Directive != "":
	case f.kept(a, r):
	case !open:
		a.wait(api.WaitWindow, p.Opens(next))
	case told.Wait == api.WaitQuarantine:
		a.wait(told.Wait, "too many hosts went back from it by themselves")
	default:
		a.wait(told.Wait, fmt.Sprintf("the roll-out of release %d: it is not its turn", told.Seq))
	}
	if !open || told.Directive != "" || told.Wait != "" || !reboot.Asks(r.Status) {
		return
	}
	if kind, why := f.o.Rollouts.MayReboot(name); kind != "" {
		a.wait(kind, why)
		return
	}
	f.permitReboot(a, name, r, p)
}

// directive is what the roll-outs ask of a host, nil for nothing.
func directive(told *driver.Answer, r *host.Record) *api.Directive {
	if told.Directive == "" {
		return nil
	}
	d := &api.Directive{Type: told.Directive, Seq: told.Seq, ID: told.ID, Serial: told.Serial}
	if said := r.Directive; said != nil && said.Seq == told.Seq {
		d.Serial = max(told.Serial, said.Serial+1) // it was said before
	}
	return d
}

// told is what the roll-outs of a channel ask of a host now, nil for nothing.
func (f *Fleet) told(name, channel string) *api.Directive {
	a, err := f.o.Rollouts.Answer(channel, name)
	r := f.o.Hosts.Record(name)
	if err != nil || r == nil {
		return nil // they ask nothing, or not yet
	}
	return directive(&a, r)
}

// kept tells whether a freeze or a hold by selector is on a host, and says so.
func (f *Fleet) kept(a *Answer, r *host.Record) bool {
	if freeze := f.o.Rollouts.Frozen(); freeze != nil {
		a.wait(api.WaitFreeze, freeze.Reason)
		a.ends(freeze.Until)
		return true
	}
	if hold := f.o.Rollouts.Held(r.Labels); hold != nil {
		a.wait(api.WaitHold, hold.Reason)
		a.ends(hold.Until)
		return true
	}
	return false
}
