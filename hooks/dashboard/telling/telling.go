// Package telling is the views of what people are told: alarms with what to do about them, and the audit log.
package telling

import (
	"embed"
	"io/fs"

	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/rights"
	"narwharf/signing/access/scope"
)

//go:embed files
var files embed.FS

// Room makes the views.
func Room() *frame.Room {
	below, err := fs.Sub(files, "files")
	if err != nil {
		panic(err) // it is in the program
	}
	acts := rights.Operates(scope.AnyChannel) // of which channel, the API says
	return &frame.Room{Files: below, Views: []frame.View{
		{Path: "/ui/alarms", Nav: "Alarms", Needs: rights.ReadsAny, Load: alarms},
		{Path: "/ui/events", Nav: "Events", Needs: rights.ReadsAny, Load: events},
		{Path: "/ui/runbook", Needs: rights.ReadsAny, Load: runbook},
	}, Actions: []frame.Action{
		{Path: "/ui/alarms/{alarm}/take", Needs: acts, Ask: askTake, Do: act("take")},
		{Path: "/ui/alarms/{alarm}/close", Needs: acts, Ask: askClose, Do: act("close")},
	}}
}
