package audit

import (
	"encoding/json"
	"fmt"
	"slices"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
)

// newest is above each position.
const newest = 1 << 53

// Before returns up to limit lines below an id that keep says yes to, the newest first, and the id to go on
// below, 0 if nothing is left. There may be more to come, also if it returns none: it looks through a bounded
// number of records.
//
// A log is read forwards, and its positions have gaps, wide ones in PostgreSQL. So it is read in windows of
// positions, each of a size that held a page of records the last time.
func Before(set *mirror.Set, id int64, limit int, keep func(*api.Event) bool) (list []api.Event, next int64, err error) {
	last, err := Newest(set)
	if err != nil {
		return nil, 0, err
	}
	size, window, seen := 0, int64(pageSize), 0
	for below := min(id, last+1); ; {
		from := max(below-window, 1)
		records, err := between(set, from, below)
		if err != nil {
			return nil, 0, err
		}
		if len(records) > 2*pageSize && window > 1 {
			window = max(window/4, 1)
			continue
		}
		for _, r := range slices.Backward(records) {
			var e api.Event
			if err := json.Unmarshal(r.Value, &e); err != nil {
				set.Skip(fmt.Sprintf("%s %d", bucket, r.Position), err) // as Since does
				continue
			}
			if keep(&e) {
				size += cut(&e, len(r.Value))
				list = append(list, e)
			}
			if len(list) == limit || size > maxBytes {
				return list, int64(r.Position), nil
			}
		}
		if from == 1 {
			return list, 0, nil
		}
		if seen += len(records); seen > maxPages*pageSize {
			return list, from, nil
		}
		if len(records) < pageSize/4 && window < newest/8 {
			window *= 8
		}
		below = from
	}
}

// between are the records from a position on and below another, or, if there are many, more than two pages of them.
func between(set *mirror.Set, from, below int64) (records []state.Record, err error) {
	for {
		page, err := read(set, uint64(from))
		if err != nil {
			return nil, err
		}
		for _, r := range page {
			if int64(r.Position) >= below {
				return records, nil
			}
			records = append(records, r)
		}
		if len(page) < pageSize || len(records) > 2*pageSize {
			return records, nil
		}
		from = int64(page[len(page)-1].Position) + 1
	}
}
