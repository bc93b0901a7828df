package rows

import (
	"encoding/json"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/rollout"
)

func runKey(channel string, seq int64) string {
	return channel + "\x00" + state.Uint64Key(uint64(seq))
}

func decode(text []byte, v any) error { return json.Unmarshal(text, v) }

// Write stores what a step has changed.
func Write(tx *mirror.Tx, c *rollout.Changes) {
	if len(c.Hosts)+len(c.Removed)+len(c.Rollouts)+len(c.Channels)+len(c.Quarantines) == 0 {
		return
	}
	tx.Notify(Topic)
	for _, h := range c.Hosts {
		tx.Keep(state.PutJSON(tx, hosts, h.Name, h))
	}
	for _, name := range c.Removed {
		tx.Keep(tx.Delete(hosts, name))
	}
	for _, q := range c.Quarantines {
		if q.Cleared {
			tx.Keep(tx.Delete(quarantines, q.Key()))
		} else {
			tx.Keep(state.PutJSON(tx, quarantines, q.Key(), q))
		}
	}
	for _, r := range c.Rollouts {
		tx.Keep(state.PutJSON(tx, runs, runKey(r.Channel, r.Seq), r))
	}
	for _, ch := range c.Channels {
		tx.Keep(state.PutJSON(tx, channels, ch.Name, ch))
		tx.Keep(trim(tx, ch))
	}
}

// trim takes away the oldest roll-outs of a channel.
func trim(tx *mirror.Tx, c *rollout.Channel) error {
	of := state.Prefix(c.Name + "\x00")
	of.Reverse = true
	n := 0
	return state.Each(tx, runs, of, func(e state.Entry) error {
		if n++; n <= Kept || e.Key == runKey(c.Name, c.Seq) {
			return nil
		}
		return tx.Delete(runs, e.Key)
	})
}
