// Package audit is the audit log: what was done to channels and hosts, by whom, in
// the transaction that did it. Whoever changes something calls Note; for whom it is done
// comes with the context (For), so that nobody has to think of it, and what looks like a
// secret is hidden.
//
// The log has what was changed, and refusals of tokens that this server gave (Refusals).
// Requests of strangers are not in it: anybody could fill it (docs/design/035-who-did-it.md).
//
// The log is hooks/event: records that are JSON of api.Event, whose ids are
// their positions. Ids grow and have gaps. Tend drops the oldest lines and leaves
// one that says so.
//
// Polls wait for topics, which the functions here name. Whoever changes something
// notifies of them in the transaction, and so wakes polls at every server of the
// state.
package audit

import (
	"encoding/json"
	"fmt"
	"maps"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
)

// Name is that of the log in the state.
const Name = "hooks/event"

const bucket = Name

// Events is the topic of the log.
const Events = "events"

// Channel is the topic of a channel's release and policy.
func Channel(name string) string { return "channel/" + name }

// Host is the topic of what one host is told.
func Host(name string) string { return "host/" + name }

// Log is the topic of what a host's attempts print.
func Log(host string) string { return "log/" + host }

// Hosts are the topics of the lists of hosts: of a channel, and of all.
func Hosts(channel string) []string { return []string{HostsOf(channel), HostsOf("")} }

// HostsOf is the topic of the list of a channel's hosts, or of all ("").
func HostsOf(channel string) string { return "hosts/" + channel }

// Note adds a line to the log, and wakes who looks at it and at the hosts of its
// channel. It says for whom the transaction is made, see For. Whatever stands in it is read by
// people, in chats too: each string becomes one line that prints.
func Note(tx *mirror.Tx, e api.Event) {
	tx.Notify(append(Hosts(e.Channel), Events)...)
	sign(tx.Context(), &e)
	e.Data = maps.Clone(e.Data) // it is its caller's
	clip.Strings(&e, maxText)
	tx.Keep(tx.Append(bucket, func(position uint64) ([]byte, error) {
		e.ID, e.Time = int64(position), tx.Time.UTC()
		line, err := json.Marshal(e)
		return hidden(line), err
	}))
}

// Asked is the data of a line host.state, "true" where a host went back because somebody asked.
const Asked = "asked"

const (
	pageSize = 1000    // records that are read at a time
	maxPages = 20      // of them that are looked through for one answer
	maxBytes = 1 << 20 // of the records of an answer
	maxText  = 4 << 10 // bytes of a text: older servers stored what hosts said as it came
	maxEnded = 100_000 // positions, the last ones, that a Memory looks through, and attempts that it remembers
)

// Since returns up to limit lines from an id on that keep says yes to, and the
// id to go on from. There may be more to come, also if it returns none. A line that cannot be
// read is passed over, and the server's log says so once: whoever follows would stand still at it.
func Since(set *mirror.Set, since int64, limit int, keep func(*api.Event) bool) (list []api.Event, next int64, err error) {
	size := 0
	next = since
	for range maxPages {
		page, err := read(set, uint64(next))
		if err != nil {
			return nil, next, err
		}
		for _, r := range page {
			var e api.Event
			next = int64(r.Position) + 1
			if err := json.Unmarshal(r.Value, &e); err != nil {
				set.Skip(fmt.Sprintf("%s %d", bucket, r.Position), err)
				continue
			}
			if keep(&e) {
				size += cut(&e, len(r.Value))
				list = append(list, e)
			}
			if len(list) == limit || size > maxBytes {
				return list, next, nil
			}
		}
		if len(page) < pageSize {
			break
		}
	}
	return list, next, nil
}

// cut cuts the text of a line that takes size bytes, and returns how many it takes then.
func cut(e *api.Event, size int) int {
	if len(e.Text) <= maxText {
		return size
	}
	e.Text = clip.Text(e.Text, maxText)
	return 2 * maxText
}

func read(set *mirror.Set, from uint64) (page []state.Record, err error) {
	err = set.View(func(tx state.Reader) (err error) {
		page, err = tx.ReadLog(bucket, from, pageSize)
		return err
	})
	return page, err
}

// Newest is the position of the last record, 0 if there is none. No state says it.
func Newest(set *mirror.Set) (int64, error) {
	last := int64(0)
	err := set.View(func(tx state.Reader) error {
		for below := int64(1) << 53; last+1 < below; {
			middle := last + (below-last)/2
			next, err := tx.ReadLog(bucket, uint64(middle), 1)
			switch {
			case err != nil:
				return err
			case len(next) == 0:
				below = middle
			default:
				last = int64(next[0].Position)
			}
		}
		return nil
	})
	return last, err
}
