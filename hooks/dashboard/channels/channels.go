// Package channels is the view of a channel: its roll-out as it goes, wave by wave, with its hosts as cells
// and why each waits; the buttons that stop it and let it go on; what a rollback would be; its history.
//
// The server has no promoter's key: going back is no button but the line to type.
package channels

import (
	"context"
	"embed"
	"io/fs"

	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/host"
	"narwharf/hooks/rights"
	"narwharf/hooks/rollout"
	"narwharf/hooks/series"
	"narwharf/signing/access/scope"
)

//go:embed files
var files embed.FS

// Rollouts is what it asks of the roll-outs beyond the API, for all hosts at once.
type Rollouts interface {
	// Cells are the hosts of a channel with a roll-out, by wave; nil if it has none.
	Cells(channel string) []rollout.Cell
}

// Hosts is what it asks of hosts.
type Hosts interface {
	// Glance calls each with the hosts of channels that keep says yes to, in no order and without what they wait for.
	Glance(keep func(channel string) bool, each func(d *host.Described))
	Describe(name string) (*host.Described, error)
}

// Options of Room. Past may be nil: then nothing is shown of it.
type Options struct {
	Rollouts Rollouts
	Hosts    Hosts
	Past     func(ctx context.Context, group string, res series.Resolution) (*series.Table, error)
}

type room struct{ Options }

// Room makes the views.
func Room(o Options) *frame.Room {
	below, err := fs.Sub(files, "files")
	if err != nil {
		panic(err) // it is in the program
	}
	m := &room{o}
	reads := rights.Reads(scope.InPath)
	return &frame.Room{
		Files: below,
		Views: []frame.View{
			{Path: "/ui/channels/{channel}", Needs: reads, Load: m.channel},
			{Path: "/ui/channels/{channel}/plan", Needs: reads, Load: plan},
			{Path: "/ui/channels/{channel}/cell", Needs: reads, Load: m.cell},
		},
		Actions: verbs(),
	}
}
