package machine

import (
	"testing"

	"narwharf/nixos/journal"
)

// TestTable: every phase that a journal may have has a row, and a row says either
// where its effect's event leads or what it comes to at rest.
func TestTable(t *testing.T) {
	for _, p := range journal.Phases {
		r, ok := table[p]
		switch {
		case !ok:
			t.Errorf("%s has no row", p)
		case r.effect == nil || r.afterBoot == nil:
			t.Errorf("%s: no effect, or nothing after a boot", p)
		case (r.on == nil) != (r.atRest != nil):
			t.Errorf("%s rests, or waits for an event: not both", p)
		}
	}
	if len(table) != len(journal.Phases) {
		t.Errorf("%d rows for %d phases", len(table), len(journal.Phases))
	}
}
