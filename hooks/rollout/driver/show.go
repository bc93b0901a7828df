package driver

import (
	"narwharf/hooks/api"
	"narwharf/hooks/rollout"
	"narwharf/hooks/rollout/show"
)

// List is the present roll-outs of channels that keep says yes to, by channel, without
// their hosts.
func (d *Driver) List(keep func(channel string) bool) (list []rollout.Summary) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	list = []rollout.Summary{}
	if d.e == nil {
		return list
	}
	for _, c := range d.e.Order {
		if c.Run != nil && keep(c.Row.Name) {
			s := show.Of(c, d.e.Now)
			s.Policy = nil
			list = append(list, *s)
		}
	}
	return list
}

// Cells are the hosts of a channel with a roll-out, for who draws it, by wave and name.
func (d *Driver) Cells(channel string) (cells []rollout.Cell) {
	d.mu.RLock()
	if d.e != nil && d.e.Channels[channel] != nil && d.e.Channels[channel].Run != nil {
		cells = show.Cells(d.e.Channels[channel])
	}
	d.mu.RUnlock()
	show.Order(cells)
	return cells
}

// Show is a roll-out of a channel, the present one if seq is 0.
func (d *Driver) Show(channel string, seq int64) (*rollout.Summary, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.e != nil {
		if c := d.e.Channels[channel]; c != nil && c.Run != nil && (seq == 0 || seq == c.Row.Seq) {
			s := show.Of(c, d.e.Now)
			show.Hosts(s, c, d.e.Why)
			return s, nil
		}
	}
	if seq != 0 {
		row, err := d.rows.Rollout(channel, seq)
		if row != nil || err != nil {
			return show.OfRow(row), err
		}
	}
	return nil, api.Errorf(api.NotFound, "%s has no such roll-out: a channel has them once its policy has a rollout (narwharf channel policy %s), and the last ones are kept", channel, channel)
}
