package channels

import (
	"cmp"
	"slices"

	"narwharf/hooks/dashboard/condition"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/host"
	"narwharf/hooks/rollout"
)

// cells are the hosts of a channel by its roll-out, or, if it has none, by what each is, in one wave.
func (m *room) cells(r *frame.Request, name string) []rollout.Cell {
	if cells := m.Rollouts.Cells(name); cells != nil {
		return cells
	}
	cells, now := []rollout.Cell{}, r.Now()
	m.Hosts.Glance(func(of string) bool { return of == name }, func(d *host.Described) {
		cells = append(cells, rollout.Cell{Host: d.Host.Host, Wave: 1, State: rollout.CellState(condition.Of(&d.Host, now).Cell())})
	})
	slices.SortFunc(cells, func(a, b rollout.Cell) int { return cmp.Compare(a.Host, b.Host) })
	return cells
}

// whole draws the hosts of a channel that has no roll-outs.
func (s *shown) whole(page *frame.Page, cells []rollout.Cell) {
	s.count(cells)
	for _, c := range cells {
		if c.State == rollout.CellBad {
			page.Bad++
		}
	}
	s.add(page, wave{WaveSummary: rollout.WaveSummary{Name: "Hosts", Size: len(cells)}, ID: "wave-all"}, 0, cells)
}
