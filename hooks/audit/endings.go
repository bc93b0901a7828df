package audit

import (
	"sync"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
)

// Endings counts how hosts ended the releases of channels, from the newest lines of the log. It remembers
// what it has read, and reads only what came since. It is safe for concurrent use.
type Endings struct {
	mu   sync.Mutex
	next int64 // the first line that was not read yet
	last map[ending]api.State
}

// ending is what a host said last of a release.
type ending struct {
	channel, host string
	seq           int64
}

// Of counts the hosts by state, of each release of a channel, by seq.
func (n *Endings) Of(set *mirror.Set, channel string) (map[int64]map[api.State]int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.read(set); err != nil {
		return nil, err
	}
	ended := make(map[int64]map[api.State]int)
	for e, state := range n.last {
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

func (n *Endings) read(set *mirror.Set) error {
	end, err := Newest(set)
	if err != nil {
		return err
	}
	if n.last == nil || len(n.last) > maxEnded || n.next > end+1 {
		n.next, n.last = max(end-maxEnded, 0)+1, make(map[ending]api.State)
	}
	for {
		_, next, err := Since(set, n.next, 1, n.note)
		if err != nil || next == n.next {
			return err
		}
		n.next = next
	}
}

// note keeps a line in mind, and has no line returned.
func (n *Endings) note(e *api.Event) bool {
	switch state := api.State(e.Data["state"]); {
	case e.Kind != "host.state" || e.Channel == "" || e.Seq < 1 || !state.Final():
	case state == api.Drifted || state == api.NotInRelease: // came after the end
	case e.Data[Asked] != "": // the same: somebody asked for it
	default:
		n.last[ending{e.Channel, e.Host, e.Seq}] = state
	}
	return false
}
