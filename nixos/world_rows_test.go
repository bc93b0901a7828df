package nixos_test

import (
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// rows is the table of states and events in docs/agent.md.
var rows = []row{
	{state: "idle", reach: func(t *testing.T) *sim.World {
		w := sim.New(&sim.System{Path: pathA})
		for _, p := range []string{pathB, pathC, pathD} {
			w.Add(&sim.System{Path: p})
		}
		w.Wants = &api.Desired{Channel: sim.Channel}
		ends(t, w, api.Idle, pathA, pathA, pathA)
		return w
	}, cells: [7]cell{
		{"·", "idle a"},
		{"·", "idle a"},
		{"verifying", "ok c"},
		{"·", "idle a, idle a"},
		{"·", "idle d"},
		{"·", "idle a"},
		{"·", "idle a, idle a"},
	}},
	{state: "not_in_release", reach: func(t *testing.T) *sim.World {
		w := released(sim.System{}, signing.Switch)(t)
		w.Wants = &api.Desired{Channel: sim.Channel, Seq: 2}
		return until(t, w, api.NotInRelease)
	}, cells: [7]cell{
		{"·", "not_in_release a"},
		{"·", "not_in_release a"},
		{"verifying", "ok c"},
		{"·", "not_in_release a, not_in_release a"},
		{"·", "not_in_release d"},
		{"·", "not_in_release a"},
		{"·", "not_in_release a, not_in_release a"},
	}},
	{state: "staging", reach: to(api.Staging, released(sim.System{}, signing.Switch)), cells: [7]cell{
		{"again; what it imported is remembered", "ok b"},
		{"again; what it imported is read again", "ok b"},
		{"after this try", "ok c"},
		{"`stage_failed`, and again later", "stage_failed a, ok b"},
		{"·", "ok b"},
		{"`reverted`, after this try", "reverted a"},
		{"`waiting`, after this try", "waiting a, ok b"},
	}},
	{state: "stage_failed", reach: to(api.StageFailed, released(sim.System{WrongBytes: 1}, signing.Switch)), cells: [7]cell{
		{"·", "ok b"},
		{"again at once", "ok b"},
		{"verifying", "ok c"},
		{"again later", "stage_failed a, ok b"},
		{"·", "ok b"},
		{"`reverted`", "reverted a"},
		{"`waiting`, once it is staged", "waiting a, ok b"},
	}},
	{state: "staged", reach: to(api.Staged, released(sim.System{}, signing.Switch)), cells: [7]cell{
		{"·", "ok b"},
		{"asks for the grant again", "ok b"},
		{"verifying", "ok c"},
		{"goes on with the grant that it has", "ok b, ok b"},
		{"`ok` if it is the very system", "ok b"},
		{"`reverted`, never begun", "reverted a"},
		{"`waiting`", "waiting a, ok b"},
	}},
	{state: "waiting", reach: func(t *testing.T) *sim.World {
		w := released(sim.System{}, signing.Switch)(t)
		grant := w.Wants.Grant
		w.Wants.Grant = nil
		until(t, w, api.WaitingState)
		w.Wants.Grant = grant
		return w
	}, cells: [7]cell{
		{"·", "ok b"},
		{"asks for the grant again", "ok b"},
		{"verifying", "ok c"},
		{"stays", "waiting a, ok b"},
		{"`ok` if it is the very system", "ok b"},
		{"`reverted`, never begun", "reverted a"},
		{"stays", "waiting a, ok b"},
	}},
	{state: "draining", reach: to(api.Draining, released(sim.System{}, signing.Switch)), cells: [7]cell{
		{"again", "ok b"},
		{"`staged`", "ok b"},
		{"after it", "ok c"},
		{"goes on, and nobody blames the new system", "ok b, ok b"},
		{"that is what it would go back to", "ok b"},
		{"after it", "reverted a"},
		{"after it", "ok b, ok b"},
	}},
	{state: "activating, not begun", reach: to(api.Activating, released(sim.System{}, signing.Switch)), cells: [7]cell{
		{"begins", "ok b"},
		{"`reverted`", "reverted a"},
		{"after it", "ok c"},
		{"·", "ok b, ok b"},
		{"`waiting` while that lasts", "ok b"},
		{"after it", "reverted a"},
		{"after it", "ok b, ok b"},
	}},
	{state: "activating", reach: func(t *testing.T) *sim.World {
		w := released(sim.System{Takes: 20 * time.Second}, signing.Switch)(t)
		killOn(t, w, "start test done")
		return w
	}, cells: [7]cell{
		{"waits for the same run; without a result `reverting`", "ok b"},
		{"`reverted`", "reverted a"},
		{"after it", "ok c"},
		{"·", "ok b, ok b"},
		{"cannot: the run holds the lock", "ok b"},
		{"after it", "reverted a"},
		{"after it", "ok b, ok b"},
	}},
	{state: "probation", reach: to(api.Probation, released(sim.System{}, signing.Switch)), cells: [7]cell{
		{"goes on, by the same clock", "ok b"},
		{"`reverted`; `ok` if the profile has it", "reverted a"},
		{"after it", "ok c"},
		{"see \"Out of reach\"", "ok b, ok b"},
		{"`drifted`", "drifted d"},
		{"after it", "reverted a"},
		{"after it", "ok b, ok b"},
	}},
	{state: "probation after a reboot", reach: func(t *testing.T) *sim.World {
		w := until(t, released(sim.System{}, signing.Boot)(t), api.Armed)
		w.PowerCycle()
		return until(t, w, api.Probation)
	}, cells: [7]cell{
		{"goes on, by the same clock", "ok b"},
		{"begins anew, three times at most", "ok b"},
		{"after it", "ok c"},
		{"see \"Out of reach\"", "ok b, ok b"},
		{"`drifted`", "drifted d"},
		{"after it", "reverted a"},
		{"after it", "ok b, ok b"},
	}},
	{state: "committing", reach: to(api.Committing, released(sim.System{}, signing.Switch)), cells: [7]cell{
		{"again", "ok b"},
		{"finishes: `armed`, or `ok` if it runs", "armed a"},
		{"after it", "ok c"},
		{"·", "ok b, ok b"},
		{"`drifted`", "drifted d"},
		{"after it", "reverted a"},
		{"after it", "ok b, ok b"},
	}},
	{state: "reverting", reach: to(api.Reverting, released(sim.System{CheckFails: true}, signing.Switch)), cells: [7]cell{
		{"again", "reverted a"},
		{"again", "reverted a"},
		{"after it", "ok c"},
		{"·", "reverted a, reverted a"},
		{"the way back wins", "reverted a"},
		{"nothing is left of it", "reverted a"},
		{"after it", "reverted a, reverted a"},
	}},
	{state: "ok", reach: to(api.OK, released(sim.System{}, signing.Switch)), cells: [7]cell{
		{"·", "ok b"},
		{"·", "ok b"},
		{"verifying", "ok c"},
		{"·", "ok b, ok b"},
		{"`drifted`", "drifted d"},
		{"`reverting`", "reverted a"},
		{"·", "ok b, ok b"},
	}},
	{state: "armed", reach: to(api.Armed, released(sim.System{}, signing.Boot)), cells: [7]cell{
		{"·", "armed a"},
		{"`probation`; `reverting` if another system runs", "ok b"},
		{"verifying", "ok c"},
		{"·", "armed a, armed a"},
		{"`drifted`; `ok` if it is the very system", "drifted d"},
		{"`reverting`", "reverted a"},
		{"no reboot", "armed a, armed a"},
	}},
	{state: "testing", reach: to(api.Testing, released(sim.System{}, signing.Test)), cells: [7]cell{
		{"·", "testing b"},
		{"`test_over`", "test_over a"},
		{"verifying", "ok c"},
		{"·", "testing b, testing b"},
		{"`drifted`; `ok` if the profile has it", "drifted d"},
		{"`reverting`", "reverted a"},
		{"·", "testing b, testing b"},
	}},
	{state: "test_over", reach: func(t *testing.T) *sim.World {
		w := until(t, released(sim.System{}, signing.Test)(t), api.Testing)
		w.PowerCycle()
		return until(t, w, api.TestOver)
	}, cells: [7]cell{
		{"·", "test_over a"},
		{"·", "test_over a"},
		{"verifying", "ok c"},
		{"·", "test_over a, test_over a"},
		{"`ok` if it is the very system", "test_over d"},
		{"·", "test_over a"},
		{"·", "test_over a, test_over a"},
	}},
	{state: "dry_run_done", reach: to(api.DryRunDone, released(sim.System{}, signing.DryActivate)), cells: [7]cell{
		{"·", "dry_run_done a"},
		{"·", "dry_run_done a"},
		{"verifying", "ok c"},
		{"·", "dry_run_done a, dry_run_done a"},
		{"`ok` if it is the very system", "dry_run_done d"},
		{"·", "dry_run_done a"},
		{"·", "dry_run_done a, dry_run_done a"},
	}},
	{state: "rejected", reach: func(t *testing.T) *sim.World {
		w := released(sim.System{}, signing.Switch)(t)
		w.Wants.Pointer = sim.NewPromoter().Pointer(2, pathB, signing.Switch)
		return until(t, w, api.Rejected)
	}, cells: [7]cell{
		{"·", "rejected a"},
		{"·", "rejected a"},
		{"verifying", "ok c"},
		{"·", "rejected a, rejected a"},
		{"·", "rejected d"},
		{"·", "rejected a"},
		{"·", "rejected a, rejected a"},
	}},
	{state: "reverted", reach: to(api.Reverted, released(sim.System{CheckFails: true}, signing.Switch)), cells: [7]cell{
		{"·", "reverted a"},
		{"·", "reverted a"},
		{"verifying", "ok c"},
		{"·", "reverted a, reverted a"},
		{"`ok` if it is the very system", "reverted d"},
		{"·", "reverted a"},
		{"·", "reverted a, reverted a"},
	}},
	{state: "failed", reach: func(t *testing.T) *sim.World {
		w := released(sim.System{CheckFails: true}, signing.Switch)(t)
		w.Systems[pathA].BackExit = 2
		return until(t, w, api.Failed)
	}, cells: [7]cell{
		{"·", "failed a"},
		{"·", "failed a"},
		{"verifying", "ok c"},
		{"·", "failed a, failed a"},
		{"`ok` if it is the very system", "failed d"},
		{"·", "failed a"},
		{"·", "failed a, failed a"},
	}},
	{state: "drifted", reach: func(t *testing.T) *sim.World {
		w := until(t, released(sim.System{}, signing.Switch)(t), api.OK)
		ends(t, w, api.OK, pathB, pathB, pathB)
		w.HumanSwitch(pathC, true)
		return until(t, w, api.Drifted)
	}, cells: [7]cell{
		{"·", "drifted c"},
		{"·", "drifted c"},
		{"verifying", "ok c"},
		{"·", "drifted c, drifted c"},
		{"`ok` when it is back", "drifted d"},
		{"·", "drifted c"},
		{"·", "drifted c, drifted c"},
	}},
}
