// Package telling is the views of what people are told: alarms with what to do about them, and the audit log.
package telling

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"

	"narwharf/hooks/api/alarm"
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

// Banner says above each page but those that have it anyway which alarm nobody has taken, so that what is wrong now is on top wherever
// somebody is.
func Banner(r *frame.Request) *frame.Banner {
	if _, may := r.Who.Scopes.Some(scope.Read); !may || r.Path() == frame.Path || r.Path() == "/ui/alarms" {
		return nil
	}
	var open struct {
		Alarms []alarm.Alarm `json:"alarms"`
	}
	if err := r.Get("/api/v1/alarms", &open); err != nil {
		return nil // the view itself says what does not go
	}
	list := slices.DeleteFunc(open.Alarms, func(a alarm.Alarm) bool {
		return a.Taken != nil || a.Channel != "" && a.Channel == r.Param("channel") || a.Host != "" && a.Host == r.Param("host")
	})
	if len(list) == 0 {
		return nil
	}
	b := &frame.Banner{Text: frame.Short(list[0].Text), Bad: true, Link: frame.Path, Word: "Look"}
	if n := len(list) - 1; n > 0 {
		b.Word = fmt.Sprintf("Look (%d more)", n)
	}
	return b
}
