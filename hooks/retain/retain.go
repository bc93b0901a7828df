// Package retain says which store paths a cache has to keep: those that channels name, that
// hosts run, and that people have pinned. Package root holds them, and whoever makes or
// changes a release or a report makes its roots in the same transaction. What time alone
// changes, Settle does. Alarms are about collections that do not do what they should.
//
// # Format
//
// In the state:
//
//	hooks/pin       <name>  retention.Pin, in JSON
//	hooks/seen      <host>  when it was last heard of, in seconds of Unix time
//	hooks/gc-alarm  <kind>  alarm, in JSON
//
// Pins are files, too, pins/<name>.json, from which Restore makes the table anew.
package retain

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"narwharf/cache/root"
	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api/retention"
	"narwharf/hooks/channel"
	"narwharf/hooks/closure"
	"narwharf/hooks/host"
	"narwharf/narinfo"
)

// Files keeps files beside those of the cache; see closure.Files.
type Files interface {
	Write(name string, data []byte) error
	Read(name string, limit int64) ([]byte, error)
	List(dir string, fn func(name string) error) error
	// Remove deletes a file durably; that it is not there is no error.
	Remove(name string) error
}

// Collector is what collects in a cache. It settles the roots before it looks at them.
type Collector interface {
	// Plan tells what a collection would do now.
	Plan(ctx context.Context, early bool) (*retention.Plan, error)
	// Collect begins a collection that somebody asked for, if none of those runs. It goes on
	// after ctx.
	Collect(ctx context.Context, early bool, by string) (*retention.Status, error)
	// Status tells what became of collections.
	Status(ctx context.Context) (*retention.Status, error)
	// Free is how many bytes uploads find free on the disk, if that is known.
	Free() (free int64, known bool, err error)
	// Why tells why a path is here, by its hash part.
	Why(ctx context.Context, path narinfo.Path) (*retention.Why, error)
	// Usage tells who takes how much, or what the releases of a channel take.
	Usage(ctx context.Context, channel string) (*retention.Usage, error)
	// Delete deletes a path, known by its hash part, that nothing keeps; what does is an
	// *api.Error.
	Delete(ctx context.Context, hash, by string) (*retention.Deleted, error)
}

// Options of New.
type Options struct {
	State    state.Store
	Set      *mirror.Set // of State
	Channels *channel.Channels
	Hosts    *host.Hosts
	Closures *closure.Closures
	Files    Files
	Log      *slog.Logger
	Clock    func() time.Time

	KeepReleases int           // of each channel
	ForgetHosts  time.Duration // that were not heard of
}

// Retainer knows what has to stay.
type Retainer struct {
	o    Options
	pins *mirror.Table[retention.Pin]
}

// New makes a Retainer, and reads the pins.
func New(o Options) (r *Retainer, err error) {
	r = &Retainer{o: o}
	if r.pins, err = mirror.Open[retention.Pin](o.Set, "hooks/pin", "pin", nil); err != nil {
		return nil, fmt.Errorf("open pins: %w", err)
	}
	return r, nil
}

// Settle ends roots whose time is over, of releases, hosts and pins, and makes those that an
// older server did not make. Without an error nothing that has to stay lacks its root.
func (r *Retainer) Settle(ctx context.Context) error {
	owners := make(map[string]bool)
	err := root.EachOwner(ctx, r.o.State, "", func(owner string) error {
		owners[owner] = true
		return nil
	})
	if err == nil {
		err = r.o.Channels.Settle(ctx, r.o.KeepReleases, owners)
	}
	if err == nil {
		err = r.settleHosts(ctx, owners)
	}
	if err == nil {
		err = r.settlePins(ctx, owners)
	}
	if err != nil {
		return fmt.Errorf("see which paths have to stay: %w", err)
	}
	return nil
}
