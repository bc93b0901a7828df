package desired

import (
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/journal"
	"narwharf/signing"
)

// TestOrderOf: a directive is obeyed once, only about the release that was
// accepted last, and none that is not above the last of its release.
func TestOrderOf(t *testing.T) {
	r := &Rules{Trust: signing.Trust{Origin: "o", Channel: "c"}, Retries: 2}
	for name, c := range map[string]struct {
		d      *api.Directive
		last   string // that was obeyed
		serial int64  // of it
		paused bool
		tried  int
		never  bool
		want   Order
	}{
		"none":                    {want: None},
		"retry":                   {d: &api.Directive{Type: "retry", Seq: 7, ID: "a"}, want: Retry},
		"revert":                  {d: &api.Directive{Type: "revert", Seq: 7, ID: "a"}, want: Revert},
		"of another release":      {d: &api.Directive{Type: "retry", Seq: 6, ID: "a"}, want: None},
		"without an ID":           {d: &api.Directive{Type: "retry", Seq: 7}, want: None},
		"of a type to come":       {d: &api.Directive{Type: "kexec", Seq: 7, ID: "a"}, want: None},
		"obeyed":                  {d: &api.Directive{Type: "revert", Seq: 7, ID: "a"}, last: "a", want: Obeyed},
		"obeyed without a serial": {d: &api.Directive{Type: "revert", Seq: 7, ID: "a", Serial: 3}, last: "a", want: Obeyed},
		"a higher serial":         {d: &api.Directive{Type: "retry", Seq: 7, ID: "b", Serial: 4}, last: "a", serial: 3, want: Retry},
		"the same serial":         {d: &api.Directive{Type: "retry", Seq: 7, ID: "b", Serial: 3}, last: "a", serial: 3, want: Old},
		"a lower serial":          {d: &api.Directive{Type: "revert", Seq: 7, ID: "b", Serial: 2}, last: "a", serial: 3, want: Old},
		"no serial":               {d: &api.Directive{Type: "retry", Seq: 7, ID: "b"}, last: "a", serial: 3, want: Retry},
		"a serial that is none":   {d: &api.Directive{Type: "retry", Seq: 7, ID: "a", Serial: -1}, last: "a", want: Old},
		"revert while paused":     {d: &api.Directive{Type: "revert", Seq: 7, ID: "a"}, paused: true, want: Paused},
		"retry while paused":      {d: &api.Directive{Type: "retry", Seq: 7, ID: "a"}, paused: true, want: Retry},
		"the last retry":          {d: &api.Directive{Type: "retry", Seq: 7, ID: "a"}, tried: 1, want: Retry},
		"a retry too many":        {d: &api.Directive{Type: "retry", Seq: 7, ID: "a"}, tried: 2, want: Spent},
		"a revert after it":       {d: &api.Directive{Type: "revert", Seq: 7, ID: "a"}, tried: 2, want: Revert},
		"never a retry":           {d: &api.Directive{Type: "retry", Seq: 7, ID: "a"}, never: true, want: Never},
		"never a revert":          {d: &api.Directive{Type: "revert", Seq: 7, ID: "a"}, never: true, want: Never},
	} {
		j := &journal.Journal{
			Desired: &api.Desired{Directive: c.d}, Directive: c.last,
			Seen: map[string]journal.Seen{r.Channel(): {Seq: 7, Directive: c.serial, Retries: c.tried}},
		}
		r.Directives = ObeyLimited
		if c.never {
			r.Directives = ObeyNever
		}
		if got := OrderOf(r, j, c.paused); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// TestPolicyTightensOnly: what a server says of a probation makes it longer, by an hour at most, and
// never shorter.
func TestPolicyTightensOnly(t *testing.T) {
	r := &Rules{Minimum: 10 * time.Second, ConfirmTimeout: 2 * time.Minute}
	for said, want := range map[int64][2]time.Duration{
		0: {10 * time.Second, 2 * time.Minute}, -1: {10 * time.Second, 2 * time.Minute}, 1: {10 * time.Second, 2 * time.Minute},
		600: {10 * time.Minute, 10 * time.Minute}, 1 << 62: {time.Hour, time.Hour}, -1 << 63: {10 * time.Second, 2 * time.Minute},
	} {
		minimum, confirm := r.Limits(&api.Desired{Policy: api.Policy{ProbationMin: said, ConfirmTimeout: said}})
		if minimum != want[0] || confirm != want[1] {
			t.Errorf("%d: %v and %v, want %v", said, minimum, confirm, want)
		}
	}
}
