package audit

import (
	"cmp"
	"encoding/json"
	"regexp"
	"strconv"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/signing"
)

// Query says which lines are meant.
type Query struct {
	Since   int64  // id of the first
	Before  int64  // not 0: the newest below this id, the newest first, in place of those from Since on
	Channel string // "": of all
	Host    string // "": of all, and of none
	// Sees tells whether lines of a channel may be shown, of "" those of none; nil: all may.
	Sees func(channel string) bool
	who  *Who
	kind *regexp.Regexp
}

const (
	page      = 500 // lines of an answer
	backwards = 100 // the same, of one with Before
)

// ParseQuery reads the parameters since, before, channel, host, kind and who, each of which may be "".
func ParseQuery(param func(name string) string) (q Query, err error) {
	q.Since, q.Channel, q.Host = 1, param("channel"), param("host")
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
	if v := param("before"); v != "" {
		if q.Before, err = strconv.ParseInt(v, 10, 64); err != nil || q.Before < 1 || q.Before >= newest {
			return q, api.Errorf(api.BadRequest, "before %q is not the id of an event", v)
		}
	}
	if q.kind, err = pattern(cmp.Or(param("kind"), "*")); err != nil {
		return q, api.Errorf(api.BadRequest, "kind: %v", err)
	}
	if q.who, err = ParseWho(param("who")); err != nil {
		return q, api.Errorf(api.BadRequest, "%v", err)
	}
	return q, nil
}

// Means tells whether a line is meant.
func (q *Query) Means(e *api.Event) bool {
	return (q.Channel == "" || e.Channel == q.Channel) && (q.Host == "" || e.Host == q.Host) && q.kind.MatchString(e.Kind) &&
		(q.Sees == nil || q.Sees(e.Channel)) && q.who.Did(e)
}

// Page is an answer as JSON, and the id to go on from; backwards that is 0 where nothing is left.
func (q *Query) Page(set *mirror.Set, memory *Memory) (text []byte, next int64, err error) {
	var list []api.Event
	switch {
	case q.Before > 0 && q.Host != "":
		list, next, err = memory.before(set, q.Host, q.Before, backwards, q.Means)
	case q.Before > 0:
		list, next, err = Before(set, q.Before, backwards, q.Means)
	default:
		list, next, err = Since(set, q.Since, page, q.Means)
	}
	if err != nil {
		return nil, next, err
	}
	if list == nil {
		list = []api.Event{} // events of others: next moves on all the same
	}
	text, err = json.Marshal(map[string]any{"events": list, "next": next})
	return append(text, '\n'), next, err
}
