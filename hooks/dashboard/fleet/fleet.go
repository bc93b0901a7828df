// Package fleet is the views of all channels and hosts: what is wrong now, which host runs what, and why one
// waits; and one host with its attempts, its log and its buttons.
package fleet

import (
	"context"
	"embed"
	"io/fs"

	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/host"
	"narwharf/hooks/rights"
	"narwharf/hooks/rollout"
	"narwharf/signing/access/scope"
)

//go:embed files
var files embed.FS

// Hosts is what it asks of hosts: all of them at once are more than the API should encode.
type Hosts interface {
	// Glance calls each with the hosts of channels that keep says yes to, in no order and without what they wait for.
	Glance(keep func(channel string) bool, each func(d *host.Described))
	// Describe is all that is known of a host.
	Describe(name string) (*host.Described, error)
}

// Rollouts is what it asks of roll-outs.
type Rollouts interface {
	Cells(channel string) []rollout.Cell
}

// Fact is something about the server itself.
type Fact struct {
	Name, Text string
	Bad        bool
}

// Health is asked how the server itself is.
type Health func(ctx context.Context) []Fact

type room struct {
	hosts    Hosts
	rollouts Rollouts
	health   Health
}

// Room makes the views. health may be nil.
func Room(hosts Hosts, rollouts Rollouts, health Health) *frame.Room {
	below, err := fs.Sub(files, "files")
	if err != nil {
		panic(err) // it is in the program
	}
	m := &room{hosts, rollouts, health}
	return &frame.Room{
		Files: below,
		Views: []frame.View{
			{Path: frame.Path, Nav: "Overview", Needs: rights.ReadsAny, Load: m.overview},
			{Path: "/ui/hosts", Nav: "Hosts", Needs: rights.Reads(scope.OfList), Load: m.list},
			{Path: "/ui/hosts/{host}", Needs: rights.ReadsAny, Load: m.host},
		},
		Actions: actions(),
	}
}

// sees tells which channels somebody may look at.
func sees(r *frame.Request) func(channel string) bool {
	known := make(map[string]bool)
	see := r.Sees()
	return func(channel string) bool {
		ok, there := known[channel]
		if !there {
			ok = see(channel)
			known[channel] = ok
		}
		return ok
	}
}
