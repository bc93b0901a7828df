package desired

import (
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/host"
)

// TestDirectiveSerial: it grows, whatever the clock does, and goes above what the
// host says of the same release.
func TestDirectiveSerial(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	given := func(seq, serial int64) *api.Directive { return &api.Directive{Seq: seq, Serial: serial} }
	said := func(channel string, seq, serial int64) *api.Status {
		return &api.Status{Channel: channel, HighestSeq: seq, DirectiveSerial: serial}
	}
	for _, c := range []struct {
		name string
		r    host.Record
		want int64
	}{
		{"the first", host.Record{}, 1_000_000},
		{"after one", host.Record{Directive: given(7, 900)}, 1_000_000},
		{"in the same millisecond", host.Record{Directive: given(7, 1_000_000)}, 1_000_001},
		{"the clock was set back", host.Record{Directive: given(7, 5_000_000)}, 5_000_001},
		{"the host obeyed a later one", host.Record{Directive: given(7, 900), Status: said("web", 7, 2_000_000)}, 2_000_001},
		{"of another release", host.Record{Directive: given(6, 5_000_000), Status: said("web", 6, 5_000_000)}, 1_000_000},
		{"of another channel", host.Record{Status: said("db", 7, 5_000_000)}, 1_000_000},
		{"no number is above it", host.Record{Status: said("web", 7, api.MaxSerial)}, api.MaxSerial + 1},
	} {
		if got := nextSerial(now, &c.r, "web", 7); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
