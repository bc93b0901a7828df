package audit

import (
	"encoding/json"
	"strconv"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/signing"
)

// Query says which lines are meant.
type Query struct {
	Since   int64  // id of the first
	Channel string // "": of all
	// Sees tells whether lines of a channel may be shown, of "" those of none; nil: all may.
	Sees func(channel string) bool
	who  *Who
}

const page = 500 // lines of an answer

// ParseQuery reads the parameters since, channel and who, each of which may be "".
func ParseQuery(param func(name string) string) (q Query, err error) {
	q.Since, q.Channel = 1, param("channel")
	if q.Channel != "" {
		if err := signing.CheckChannel(q.Channel); err != nil {
			return q, api.Errorf(api.BadRequest, "%v", err)
		}
	}
	if v := param("since"); v != "" {
		if q.Since, err = strconv.ParseInt(v, 10, 64); err != nil || q.Since < 0 {
			return q, api.Errorf(api.BadRequest, "since %q is not the id of an event", v)
		}
	}
	if q.who, err = ParseWho(param("who")); err != nil {
		return q, api.Errorf(api.BadRequest, "%v", err)
	}
	return q, nil
}

// Page is an answer as JSON, and the id to go on from.
func (q *Query) Page(set *mirror.Set) (text []byte, next int64, err error) {
	list, next, err := Since(set, q.Since, page, func(e *api.Event) bool {
		return (q.Channel == "" || e.Channel == q.Channel) && (q.Sees == nil || q.Sees(e.Channel)) && q.who.Did(e)
	})
	if err != nil {
		return nil, next, err
	}
	if list == nil {
		list = []api.Event{} // events of others: next moves on all the same
	}
	text, err = json.Marshal(map[string]any{"events": list, "next": next})
	return append(text, '\n'), next, err
}
