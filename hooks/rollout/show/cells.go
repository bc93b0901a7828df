package show

import (
	"cmp"
	"slices"

	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/roster"
)

// Cells are the hosts of a channel with a roll-out, in no order.
func Cells(c *roster.Channel) []rollout.Cell {
	cells := make([]rollout.Cell, 0, len(c.Hosts))
	for _, h := range c.Hosts {
		cell := rollout.Cell{Host: h.Row.Name, State: cellState(h, c.Run.Row.Seq)}
		if h.Row.WaveOf == c.Run.Row.Seq {
			cell.Wave = int(h.Row.Wave)
		}
		cells = append(cells, cell)
	}
	return cells
}

// Order sorts cells by wave and name; those that are in none come last, and after them those that need not
// change.
func Order(cells []rollout.Cell) {
	last := func(c *rollout.Cell) int {
		switch {
		case c.Wave > 0:
			return c.Wave
		case c.State == rollout.CellSame:
			return 1 << 30
		}
		return 1 << 29
	}
	slices.SortFunc(cells, func(a, b rollout.Cell) int {
		return cmp.Or(cmp.Compare(last(&a), last(&b)), cmp.Compare(a.Host, b.Host))
	})
}

func cellState(h *roster.Host, seq int64) rollout.CellState {
	f := &h.Counted
	if about := h.Row.Seq == seq; about {
		switch {
		case h.Row.Phase == rollout.Reverting || h.Row.Phase == rollout.Back || h.Row.Phase == rollout.Left:
			return rollout.CellBack
		case h.Row.Fault != "" && h.Row.Phase != rollout.Well:
			return rollout.CellBad
		case h.Row.Phase == rollout.Well:
			return rollout.CellWell
		case h.Row.Phase == rollout.Armed:
			return rollout.CellArmed
		case h.Row.Phase.InFlight():
			return rollout.CellFlight
		}
	}
	switch {
	case h.Row.Phase.InFlight(): // with what it began before
		return rollout.CellFlight
	case !f.Total && f.Must, !f.Total && !f.Away && f.Category == roster.Aside:
		return rollout.CellAside
	case !f.Total:
		return rollout.CellSame
	case f.Away:
		return rollout.CellOffline
	case f.Category == roster.Aside:
		return rollout.CellAside
	}
	return rollout.CellWaiting
}
