// Package fleet is the views of channels and hosts as a whole: what is wrong now, which host runs what, and
// why one waits.
package fleet

import (
	"embed"
	"io/fs"

	"narwharf/hooks/api"
	"narwharf/hooks/api/alarm"
	"narwharf/hooks/audit"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/rights"
	"narwharf/hooks/rollout"
)

//go:embed files
var files embed.FS

// Room makes the views.
func Room() *frame.Room {
	below, err := fs.Sub(files, "files")
	if err != nil {
		panic(err) // it is in the program
	}
	return &frame.Room{Files: below, Views: []frame.View{
		{Path: frame.Path, Nav: "Overview", Needs: rights.ReadsAny, Load: overview},
	}}
}

// summary is what the overview shows.
type summary struct {
	Alarms   []alarm.Alarm
	Rollouts []rollout.Summary
}

func overview(r *frame.Request) (*frame.Page, error) {
	var alarms struct {
		Alarms []alarm.Alarm `json:"alarms"`
	}
	var rollouts struct {
		Rollouts []rollout.Summary `json:"rollouts"`
	}
	if err := r.Get("/api/v1/alarms", &alarms); err != nil {
		return nil, err
	}
	if err := r.Get("/api/v1/rollouts", &rollouts); err != nil {
		return nil, err
	}
	s := &summary{alarms.Alarms, rollouts.Rollouts}
	return &frame.Page{
		Title: "Overview", Body: "overview", Data: s, Bad: len(s.Alarms),
		Fragments: []string{"overview-now"}, Topics: []string{audit.Events, audit.HostsOf("")},
	}, nil
}

var _ api.Host
