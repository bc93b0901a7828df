// Package channels is the view of a channel: its roll-out as it goes, wave by wave, with its hosts as cells
// and why each waits; the buttons that stop it and let it go on; what a rollback would be; its history.
//
// The server has no promoter's key: going back is no button but the line to type.
package channels

import (
	"embed"
	"io/fs"

	"narwharf/hooks/api"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/host"
	"narwharf/hooks/rights"
	"narwharf/hooks/rollout"
	"narwharf/signing/access/scope"
)

//go:embed files
var files embed.FS

// Rollouts is what it asks of the roll-outs beyond the API, for all hosts at once.
type Rollouts interface {
	// Cells are the hosts of a channel with a roll-out, by wave; nil if it has none.
	Cells(channel string) []rollout.Cell
	// Why is what a host waits for.
	Why(host string) (kind api.WaitKind, detail string)
}

// Hosts is what it asks of hosts.
type Hosts interface {
	Describe(name string) (*host.Described, error)
}

type room struct {
	rollouts Rollouts
	hosts    Hosts
}

// Room makes the views.
func Room(rollouts Rollouts, hosts Hosts) *frame.Room {
	below, err := fs.Sub(files, "files")
	if err != nil {
		panic(err) // it is in the program
	}
	m := &room{rollouts, hosts}
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
