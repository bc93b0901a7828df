package sim

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/nixos"
	"narwharf/nixos/effect"
	"narwharf/nixos/machine"
	"narwharf/nixos/remote"
	"narwharf/signing"
)

var (
	errDown    = errors.New("connection refused")
	errRefused = &api.Error{Kind: api.Unauthorized, Message: "who are you", Status: 401}
)

// ask is an effect that comes to nothing while the server is away.
func (w *World) ask(name string, effect func() error) error {
	return w.do(name, func() error {
		if !w.reachable() {
			return errDown
		}
		return effect()
	})
}

func (w *World) etag() string {
	text, err := json.Marshal(w.Wants)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("%q", fmt.Sprintf("%x", sha256.Sum256(text)))
}

// Desired implements nixos.Server.
func (w *World) Desired(_ context.Context, etag string, _ api.Have, wait time.Duration) (d *api.Desired, tag string, err error) {
	err = w.do("desired", func() error {
		w.Waits = append(w.Waits, wait)
		if !w.reachable() {
			w.Clock += 1000
			return errDown
		}
		if w.Refuses {
			return errRefused
		}
		if tag = w.etag(); tag == etag {
			w.Clock += wait.Milliseconds()
			return api.ErrNotModified
		}
		d = w.Wants
		return nil
	})
	return d, tag, err
}

// Report implements nixos.Server.
func (w *World) Report(_ context.Context, s *api.Status) {
	w.handedOver(s)
	if w.reachable() && !w.Refuses {
		w.Acks = append(w.Acks, s)
	}
	w.op("report")
}

// Delivered implements nixos.Server.
func (w *World) Delivered() int64 {
	if len(w.Acks) == 0 || w.Acks[len(w.Acks)-1].StartID != w.lastStart {
		return 0
	}
	return w.Acks[len(w.Acks)-1].Counter
}

// ReportNow implements nixos.Server.
func (w *World) ReportNow(_ context.Context, s *api.Status) error {
	return w.do("report now", func() error {
		w.handedOver(s)
		if !w.reachable() {
			return errDown
		}
		if w.Refuses {
			return errRefused
		}
		w.Acks = append(w.Acks, s)
		return nil
	})
}

// Confirm implements nixos.Server.
func (w *World) Confirm(ctx context.Context, s *api.Status, probe func(context.Context, *api.Status) effect.Probed) effect.Probed {
	return probe(ctx, s)
}

// Manifest implements nixos.Server.
func (w *World) Manifest(_ context.Context, d signing.Digest) (text []byte, err error) {
	err = w.ask("manifest", func() error {
		for p := range w.Systems {
			if m := Manifest(p); m.Digest() == d {
				text = m.Text()
				return nil
			}
		}
		return &api.Error{Kind: api.NotFound, Message: "no such closure", Status: 404}
	})
	return text, err
}

// Narinfos implements nixos.Server.
func (w *World) Narinfos(_ context.Context, paths []narinfo.Path) (infos []*narinfo.Info, err error) {
	err = w.ask("narinfos", func() error {
		for _, p := range paths {
			infos = append(infos, Info(p.In(StoreDir)))
		}
		return nil
	})
	return infos, err
}

// PostLog implements nixos.Server.
func (w *World) PostLog(_ context.Context, attempt string, _ []byte) error {
	return w.ask("log", func() error {
		w.Logs = append(w.Logs, attempt)
		return nil
	})
}

// AgentOf is Agent, of a host whose server is a real one that it speaks with over HTTP. The
// host is as it always is: its network can be cut, its agent can die before and after all
// that is said, and a poll that comes to nothing took as long as it asked for on the host's
// clock, and no time at all.
func (w *World) AgentOf(rules machine.Rules, to *remote.Server) *nixos.Agent {
	a := w.Agent(rules)
	l := &link{w, to}
	a.Host.Network, a.Host.Server = l, l
	a.Stager.Host = a.Host
	return a
}

// A link is what lies between a simulated host and a real server.
type link struct {
	*World
	to *remote.Server
}

func (l *link) Desired(ctx context.Context, etag string, have api.Have, wait time.Duration) (d *api.Desired, tag string, err error) {
	err = l.ask("desired", func() (err error) {
		if d, tag, err = l.to.Desired(ctx, etag, have, 0); errors.Is(err, api.ErrNotModified) {
			l.Clock += wait.Milliseconds()
		}
		return err
	})
	return d, tag, err
}

func (l *link) Report(ctx context.Context, s *api.Status) {
	l.handedOver(s)
	if l.reachable() {
		l.to.Report(ctx, s)
	}
	l.op("report")
}

func (l *link) Delivered() int64 { return l.to.Delivered() }

func (l *link) ReportNow(ctx context.Context, s *api.Status) error {
	l.handedOver(s)
	return l.ask("report now", func() error { return l.to.ReportNow(ctx, s) })
}

func (l *link) Confirm(ctx context.Context, s *api.Status, probe func(context.Context, *api.Status) effect.Probed) effect.Probed {
	return l.to.Confirm(ctx, s, probe)
}

// Probe implements nixos.Network: where the world's own server would take the report, the
// real one is asked.
func (l *link) Probe(ctx context.Context, path string, s *api.Status) effect.Probed {
	p := l.World.Probe(ctx, path, s)
	if p.Outcome == effect.ProbeOK {
		err := l.to.Client.PutStatus(ctx, l.to.Host, s, true)
		if p.Outcome = remote.Outcome(err); err != nil {
			p.Text = err.Error()
		}
	}
	return p
}

func (l *link) PostLog(ctx context.Context, attempt string, text []byte) error {
	return l.ask("log", func() error { return l.to.PostLog(ctx, attempt, text) })
}

func (l *link) Manifest(ctx context.Context, d signing.Digest) (text []byte, err error) {
	err = l.ask("manifest", func() (err error) { text, err = l.to.Manifest(ctx, d); return err })
	return text, err
}

func (l *link) Narinfos(ctx context.Context, paths []narinfo.Path) (infos []*narinfo.Info, err error) {
	err = l.ask("narinfos", func() (err error) { infos, err = l.to.Narinfos(ctx, paths); return err })
	return infos, err
}

// handedOver holds a status against what is.
func (w *World) handedOver(s *api.Status) {
	w.Statuses = append(w.Statuses, s)
	bad := func(format string, args ...any) {
		w.violated("status %s of seq %d: %s", s.State, s.Seq, fmt.Sprintf(format, args...))
	}
	current := w.Current
	if x := w.Specialisations(s.Current)[s.Specialisation]; x == current {
		current = s.Current
	}
	if s.Current != current || s.Booted != w.Booted || s.Profile != w.Profile() || s.BootID != fmt.Sprintf("boot-%d", w.Boot) {
		bad("it says current %s booted %s profile %s %s; true is %s %s %s boot-%d", s.Current, s.Booted, s.Profile, s.BootID, w.Current, w.Booted, w.Profile(), w.Boot)
	}
	if s.StartID < w.lastStart || (s.StartID == w.lastStart && s.Counter <= w.lastCounter) {
		bad("(%d, %d) comes after (%d, %d)", s.StartID, s.Counter, w.lastStart, w.lastCounter)
	}
	w.lastStart, w.lastCounter = s.StartID, s.Counter
	if s.HighestSeq < w.highest {
		bad("the highest seq fell from %d to %d", w.highest, s.HighestSeq)
	}
	w.highest = s.HighestSeq
	if why := Nonsense(s); why != "" {
		bad("%s", why)
	}
}

// Nonsense says what a status says that cannot be, "" if nothing.
func Nonsense(s *api.Status) string {
	test := s.Action == string(signing.Test)
	enforced := slices.ContainsFunc(s.Checks, func(c api.Check) bool { return c.Mode == api.Enforce && !c.OK })
	ok := s.State == api.OK
	badly := []api.State{api.Rejected, api.Failed, api.Drifted, api.Reverted, api.StageFailed}
	for _, c := range []struct {
		wrong bool
		why   string
	}{
		{!slices.Contains(api.States, s.State), "there is no such state"},
		{ok && s.Current != s.Wanted, "ok, and runs another system"},
		{ok && !test && s.Profile != s.Wanted, "ok, and boots another system"},
		{ok && (len(s.NewFailedUnits) > 0 || enforced), "ok, with units or checks that failed"},
		{ok && s.Error != "" && s.WaitingFor != nil, "ok, and waits"},
		{s.State == api.Testing && s.Current != s.Wanted, "testing what does not run"},
		{s.State == api.Probation && s.Current != s.Wanted, "on probation is what does not run"},
		{s.State == api.Reverted && s.Wanted != "" && s.Current == s.Wanted, "reverted, and runs it"},
		{s.State == api.TestOver && s.Current == s.Wanted && s.Profile == s.Wanted, "the test is over, and runs"},
		{s.State == api.Armed && s.Profile != s.Wanted, "armed, and boots another system"},
		{s.State == api.WaitingState && s.WaitingFor == nil, "waiting for nothing"},
		{slices.Contains(badly, s.State) && s.Error == "", "it ended badly, and has no words for it"},
		{s.Confirm != "" && s.Unconfirmed, "both confirmed and not"},
	} {
		if c.wrong {
			return c.why
		}
	}
	return ""
}
