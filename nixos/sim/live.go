package sim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos"
	"narwharf/nixos/effect"
	"narwharf/nixos/machine"
	"narwharf/nixos/remote"
)

// Live is a world on a real clock: what takes time on it takes that time, and its polls park at a
// real server. Nothing but its agent may touch it meanwhile.
type Live struct {
	link
	name  string
	start int64 // of the world's clock
	since time.Time
}

// Live makes the world one of a host that speaks with a server.
func (w *World) Live(name string, to *remote.Server) *Live {
	return &Live{link{w, to}, name, w.Clock, time.Now()}
}

// Agent makes an agent of the host, as if its process had just started. A reboot ends it with the
// panic of a Crash.
func (l *Live) Agent(rules machine.Rules) *nixos.Agent {
	a := l.World.Agent(rules)
	a.Host.System, a.Host.Network, a.Host.Server = l, l, l
	a.Stager.Host = a.Host
	return a
}

// catchUp waits until the real time has come to where the world's is.
func (l *Live) catchUp(ctx context.Context) error {
	ahead := time.Duration(l.Clock-l.start)*time.Millisecond - time.Since(l.since)
	if ahead <= 0 {
		l.Clock -= ahead.Milliseconds()
		return nil
	}
	timer := time.NewTimer(ahead)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Facts implements nixos.System. What a world remembers for tests is forgotten: a host may live
// for hours.
func (l *Live) Facts(ctx context.Context) (effect.Facts, error) {
	if err := l.catchUp(ctx); err != nil {
		return effect.Facts{}, err
	}
	l.Trace, l.Statuses, l.Acks, l.Logs, l.Waits, l.Hooks = nil, nil, nil, nil, nil, nil
	f, err := l.World.Facts(ctx)
	sum := sha256.Sum256([]byte(l.name + f.Random)) // hosts are not alike in it
	f.Wall, f.Random = time.Now().UTC(), hex.EncodeToString(sum[:16])
	return f, err
}

// Sleep implements nixos.System.
func (l *Live) Sleep(ctx context.Context, d time.Duration) error {
	l.Clock += d.Milliseconds()
	return l.catchUp(ctx)
}

// Desired implements nixos.Server.
func (l *Live) Desired(ctx context.Context, etag string, have api.Have, wait time.Duration) (*api.Desired, string, error) {
	return l.to.Desired(ctx, etag, have, wait)
}
