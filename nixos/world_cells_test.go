package nixos_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"narwharf/hooks/api"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// pathD is a person's.
var pathD = sim.Path("d")

// A row is a state of the table in docs/agent.md, and how a host gets there.
type row struct {
	state string // as in the table
	reach func(t *testing.T) *sim.World
	// cells are what each event comes to: what the table says, and the state
	// and system that the host is in afterwards.
	cells [7]cell
}

// A cell is what an event makes of a state. ends is "state system" at rest,
// where the event lasts (a server that is away, a pause) with what is while it
// does before it: "waiting a, ok b".
type cell struct{ text, ends string }

// events are the columns. Each does something to a host whose agent has just
// been killed, and undo ends it where it lasts.
var events = [7]struct {
	name string
	do   func(w *sim.World)
	undo func(w *sim.World)
}{
	{"agent killed", func(*sim.World) {}, nil},
	{"power lost", (*sim.World).PowerCycle, nil},
	{"new release", func(w *sim.World) { w.Promote(3, pathC, signing.Switch) }, nil},
	{"server away", func(w *sim.World) { w.Down = true }, func(w *sim.World) { w.Down = false }},
	{"somebody switches", func(w *sim.World) { w.HumanSwitch(pathD, true) }, nil},
	{"revert directive", func(w *sim.World) { w.Wants.Directive = &api.Directive{Type: "revert", Seq: 2, ID: "d1"} }, nil},
	{"pause", func(w *sim.World) { w.Pause = &api.Hold{By: "kim", Reason: "disk"} }, func(w *sim.World) { w.Pause = nil }},
}

// until runs an agent until its journal has a state, and kills it.
func until(t *testing.T, w *sim.World, s api.State) *sim.World {
	t.Helper()
	agent := w.Agent(w.Keys.Rules())
	if err := agent.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 500 {
		if agent.Journal().State == s && agent.Journal().Seq != 1 {
			checkTruth(t, w)
			return w
		}
		if err := agent.Turn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("it is never %s, but %s", s, agent.Journal().State)
	return nil
}

// released is a host that follows A, with B released to it.
func released(b sim.System, action signing.Action) func(t *testing.T) *sim.World {
	return func(t *testing.T) *sim.World {
		t.Helper()
		w := world(t, b)
		w.Add(&sim.System{Path: pathC})
		w.Add(&sim.System{Path: pathD})
		w.Promote(2, pathB, action)
		return w
	}
}

func to(s api.State, make func(t *testing.T) *sim.World) func(t *testing.T) *sim.World {
	return func(t *testing.T) *sim.World { t.Helper(); return until(t, make(t), s) }
}

// happens carries an event out on a row, and says what it came to.
func happens(t *testing.T, r row, e int) string {
	w := r.reach(t)
	events[e].do(w)
	rest := func(turns int) string {
		j, err := w.Drive(w.Keys.Rules(), turns, nil)
		if err != nil && !errors.Is(err, sim.ErrTurns) {
			t.Fatal(err)
		}
		checkTruth(t, w)
		state := w.Statuses[len(w.Statuses)-1].State
		if j != nil {
			state = j.State
		}
		name := strings.TrimPrefix(w.Current[strings.LastIndex(w.Current, "system-"):], "system-")
		return fmt.Sprintf("%s %s", state, name)
	}
	if events[e].undo == nil {
		end := rest(600)
		if r.cells[e].text == "after it" && !slices.ContainsFunc(w.Acks, func(s *api.Status) bool { return s.Seq == 2 && s.State.Final() }) {
			t.Error("what was under way came to no end")
		}
		return end
	}
	during := rest(300)
	events[e].undo(w)
	return during + ", " + rest(600)
}

// killOn runs an agent until it is about to do something, or just did it.
func killOn(t *testing.T, w *sim.World, op string) {
	t.Helper()
	type stop struct{}
	defer func() {
		if p := recover(); p != (stop{}) {
			t.Fatalf("nobody came to %q: %v", op, p)
		}
	}()
	w.CrashOn = op
	_, err := w.Drive(w.Keys.Rules(), 500, func() { panic(stop{}) })
	t.Fatal(err)
}

// TestCells carries every event out on every state.
func TestCells(t *testing.T) {
	for _, r := range rows {
		for e := range events {
			t.Run(r.state+"/"+events[e].name, func(t *testing.T) {
				if got := happens(t, r, e); got != r.cells[e].ends {
					t.Errorf("%q, want %q (%s)", got, r.cells[e].ends, r.cells[e].text)
				}
			})
		}
	}
}

// table is the rows as docs/agent.md has them.
func table() string {
	var b strings.Builder
	b.WriteString("| |")
	for _, e := range events {
		b.WriteString(" " + e.name + " |")
	}
	b.WriteString("\n|" + strings.Repeat("---|", len(events)+1) + "\n")
	for _, r := range rows {
		b.WriteString("| " + r.state + " |")
		for _, c := range r.cells {
			b.WriteString(" " + c.text + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// TestTableInDocs: the document has this very table. Its cells are tested by
// name, as TestCells/probation/power_lost.
func TestTableInDocs(t *testing.T) {
	doc, err := os.ReadFile("../docs/agent.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), "\n"+table()) {
		t.Errorf("docs/agent.md lacks the table\n%s", table())
	}
	for _, s := range api.States {
		known := s == api.Verifying // gone before anybody sees it
		for _, r := range rows {
			known = known || r.state == string(s)
		}
		if !known {
			t.Errorf("the table has no row for %s", s)
		}
	}
}

// TestCellsWithTheVerySystem: what a person switches to may be what the release
// has.
func TestCellsWithTheVerySystem(t *testing.T) {
	tested := 0
	for _, r := range rows {
		text := r.cells[4].text
		if !strings.Contains(text, "`ok` if") {
			continue
		}
		tested++
		t.Run(r.state, func(t *testing.T) {
			w := r.reach(t)
			w.HumanSwitch(pathB, true)
			ends(t, w, api.OK, pathB, pathB, pathB)
		})
	}
	if tested < 8 {
		t.Errorf("only %d states say so", tested)
	}
}
