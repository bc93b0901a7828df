package sim

import (
	"context"
	"errors"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/nixos"
	"narwharf/nixos/effect"
	"narwharf/nixos/machine"
	"narwharf/nixos/remote"
	"narwharf/signing"
)

// AgentOf is Agent, of a host whose server is a real one that it speaks with over HTTP. The
// host is as it always is: its network can be cut, its agent can die before and after all
// that is said, and a poll that comes to nothing took as long as it asked for on the host's
// clock, and no time at all.
func (w *World) AgentOf(rules machine.Rules, to *remote.Server) *nixos.Agent {
	a := w.Agent(rules)
	a.Host.Network, a.Host.Server = &link{w, to}, &link{w, to}
	a.Stager.Host = a.Host
	return a
}

// A link is what lies between a simulated host and a real server.
type link struct {
	*World
	to *remote.Server
}

// ask is an effect that comes to nothing while the server is away.
func (l *link) ask(name string, effect func() error) error {
	return l.do(name, func() error {
		if !l.reachable() {
			return errDown
		}
		return effect()
	})
}

func (l *link) Desired(ctx context.Context, etag string, wait time.Duration) (d *api.Desired, tag string, err error) {
	err = l.ask("desired", func() (err error) {
		if d, tag, err = l.to.Desired(ctx, etag, 0); errors.Is(err, api.ErrNotModified) {
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
