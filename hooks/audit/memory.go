package audit

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
)

// Memory is what of the newest lines of the log is kept in memory, since readers ask for it again and again: which
// lines are about a host, and how hosts ended the releases of channels. It reads a line once, and only what came since.
// It is bounded by maxEnded lines, and safe for concurrent use.
type Memory struct {
	mu    sync.Mutex
	first int64              // the first line that is in it
	next  int64              // the first line that was not read yet
	lines int                // in about
	about map[string][]int64 // positions of lines, by host
	last  map[ending]api.State
}

// ending is what a host said last of a release.
type ending struct {
	channel, host string
	seq           int64
}

// Endings counts the hosts by how they ended, of each release of a channel, by seq.
func (m *Memory) Endings(set *mirror.Set, channel string) (map[int64]map[api.State]int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.read(set); err != nil {
		return nil, err
	}
	ended := make(map[int64]map[api.State]int)
	for e, state := range m.last {
		if e.channel != channel {
			continue
		}
		if ended[e.seq] == nil {
			ended[e.seq] = make(map[api.State]int)
		}
		ended[e.seq][state]++
	}
	return ended, nil
}

// before is as Before, of the lines about one host: those that are remembered alone are looked at, unless the id is below
// them.
func (m *Memory) before(set *mirror.Set, host string, id int64, limit int, keep func(*api.Event) bool) (list []api.Event, next int64, err error) {
	first, positions, err := m.below(set, host, id)
	if err != nil {
		return nil, 0, err
	}
	if id <= first {
		return Before(set, id, limit, keep)
	}
	size := 0
	for looked, at := range slices.Backward(positions) {
		e, n, err := one(set, at)
		if err != nil {
			return nil, 0, err
		}
		if e != nil && keep(e) {
			size += cut(e, n)
			list = append(list, *e)
		}
		if len(list) == limit || size > maxBytes || len(positions)-looked == pageSize {
			return list, at, nil
		}
	}
	if first == 1 {
		first = 0 // nothing is left
	}
	return list, first, nil
}

// below are the positions below an id of the lines about a host, and from where on lines are remembered.
func (m *Memory) below(set *mirror.Set, host string, id int64) (first int64, positions []int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.read(set); err != nil {
		return 0, nil, err
	}
	all := m.about[host]
	n, _ := slices.BinarySearch(all, id)
	return m.first, slices.Clone(all[max(n-pageSize, 0):n]), nil
}

// one is the line at a position, nil if it is gone or cannot be read, and its size.
func one(set *mirror.Set, at int64) (e *api.Event, size int, err error) {
	err = set.View(func(tx state.Reader) error {
		records, err := tx.ReadLog(bucket, uint64(at), 1)
		if err != nil || len(records) == 0 || int64(records[0].Position) != at {
			return err
		}
		e, size = new(api.Event), len(records[0].Value)
		if err := json.Unmarshal(records[0].Value, e); err != nil {
			set.Skip(fmt.Sprintf("%s %d", bucket, at), err)
			e = nil
		}
		return nil
	})
	return e, size, err
}

// read reads what came since. It is for mu's holder.
func (m *Memory) read(set *mirror.Set) error {
	gone, err := m.gone(set)
	if err != nil {
		return err
	}
	if gone || m.last == nil || len(m.last) > maxEnded || m.lines > 2*maxEnded {
		end, err := Newest(set)
		if err != nil {
			return err
		}
		m.first = max(end-maxEnded, 0) + 1
		m.next, m.lines, m.about, m.last = m.first, 0, make(map[string][]int64), make(map[ending]api.State)
	}
	for {
		_, next, err := Since(set, m.next, 1, m.note)
		if err != nil || next == m.next {
			return err
		}
		m.next = next
	}
}

// gone tells whether the last line that was read is there no more: a database that failed over may have lost it.
func (m *Memory) gone(set *mirror.Set) (gone bool, err error) {
	if m.next == m.first {
		return false, nil
	}
	err = set.View(func(tx state.Reader) error {
		records, err := tx.ReadLog(bucket, uint64(m.next-1), 1)
		gone = len(records) == 0
		return err
	})
	return gone, err
}

// note keeps a line in mind, and has no line returned.
func (m *Memory) note(e *api.Event) bool {
	if e.Host != "" {
		m.about[e.Host] = append(m.about[e.Host], e.ID)
		m.lines++
	}
	switch state := api.State(e.Data["state"]); {
	case e.Kind != "host.state" || e.Channel == "" || e.Seq < 1 || !state.Final():
	case state == api.Drifted || state == api.NotInRelease: // came after the end
	case e.Data[Asked] != "": // the same: somebody asked for it
	default:
		m.last[ending{e.Channel, e.Host, e.Seq}] = state
	}
	return false
}
