// Package health says how a server itself is, for the page: its disk, state, keys, clock, and who drives the
// roll-outs.
package health

import (
	"context"
	"fmt"
	"time"

	"narwharf/cache/blob"
	"narwharf/hooks/dashboard/fleet"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/rollout/driver"
)

// Of is what is asked.
type Of struct {
	Files  blob.Store
	State  func() error // of the state, nil if it answers
	Keys   func() int   // that are signed with
	Driver interface{ State() driver.State }
}

// little is how little room for uploads is a thing that somebody should know of.
const little = 2 << 30

// Facts implements fleet.Health.
func (o *Of) Facts(context.Context) []fleet.Fact {
	return []fleet.Fact{o.disk(), o.state(), o.keys(), clock(), o.driver()}
}

func (o *Of) disk() fleet.Fact {
	free, known, err := blob.Free(o.Files)
	f := fleet.Fact{Name: "Disk", Text: frame.Bytes(max(free, 0)) + " are left for uploads", Bad: known && free < little}
	switch {
	case err != nil:
		f.Text, f.Bad = "how much is left cannot be told: "+err.Error(), true
	case !known:
		f.Text = "how much is left is not known here"
	}
	return f
}

func (o *Of) state() fleet.Fact {
	if err := o.State(); err != nil {
		return fleet.Fact{Name: "State", Text: err.Error(), Bad: true}
	}
	return fleet.Fact{Name: "State", Text: "it answers"}
}

func (o *Of) keys() fleet.Fact {
	switch n := o.Keys(); n {
	case 0: // as it was configured: a key that cannot be read is an alarm
		return fleet.Fact{Name: "Keys", Text: "this server signs nothing: clients take what was signed before it came"}
	case 1:
		return fleet.Fact{Name: "Keys", Text: "paths are signed with 1 key"}
	default:
		return fleet.Fact{Name: "Keys", Text: fmt.Sprintf("paths are signed with %d keys", n)}
	}
}

// clock says whether somebody keeps the machine's clock right: leases, tokens and heads that expire go by it.
func clock() fleet.Fact {
	return fleet.Fact{Name: "Clock", Text: time.Now().UTC().Format("2006-01-02 15:04 UTC") + kept()}
}

func (o *Of) driver() fleet.Fact {
	f := fleet.Fact{Name: "Roll-outs"}
	switch s := o.Driver.State(); {
	case s.Err != "":
		f.Text, f.Bad = "the driver cannot go on: "+s.Err, true
	case s.Leads && s.Last.IsZero():
		f.Text = "driven here; nothing has changed since the start"
	case s.Leads:
		f.Text = "driven here; the last step was at " + s.Last.UTC().Format("2006-01-02 15:04:05 UTC")
	default:
		f.Text = "not driven by this server: another does, or no channel has them"
	}
	return f
}
