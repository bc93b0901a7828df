package hooks

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// TestNoDirectiveAboveTheHighest: where none can be above what the host says, the
// operator is told, and what to do; the next release is another count. A number
// that is none is no report.
func TestNoDirectiveAboveTheHighest(t *testing.T) {
	w := newWorld(t)
	w.promote(1, w.entry("*", w.system("a")))
	s := status(1, api.Idle)
	s.HighestSeq, s.DirectiveSerial = 1, api.MaxSerial
	w.must(w.report(s), 204, "")
	retry := func(seq int64) answer {
		return w.do("POST", "/api/v1/hosts/web-1/retry", w.op, map[string]int64{"seq": seq})
	}
	w.must(retry(1), 409, api.SeqConflict, "as another seq")
	w.promote(2, w.entry("*", w.system("a")))
	if h := decode[api.Host](t, w.must(retry(2), 200, "")); h.Directive == nil || h.Directive.Serial < 1 || h.Directive.Serial > api.MaxSerial {
		t.Errorf("%+v", h.Directive)
	}
	for _, bad := range []int64{-1, api.MaxSerial + 1} {
		s.Counter++
		s.DirectiveSerial = bad
		w.must(w.report(s), 400, api.BadRequest, "directive_serial")
	}
}

// until lets a host's agent go on until it is in a state and runs a system.
func (h *simHost) until(t *testing.T, state api.State, current string) *api.Status {
	t.Helper()
	for range 500 {
		h.turn()
		if s, seq := h.state(); s == state && seq == h.all.seq && h.Current == current {
			return h.Acks[len(h.Acks)-1]
		}
	}
	s, seq := h.state()
	t.Fatalf("it is %s at seq %d and runs %s; want %s", s, seq, h.Current, state)
	return nil
}

// TestRestoredServerAsksNoSecondTime: a server that was put back from a backup
// has an old directive. The host that has obeyed it, and others since, does not
// obey it again, says so, and obeys the next one that is meant, also where the
// server's clock is behind.
func TestRestoredServerAsksNoSecondTime(t *testing.T) {
	for _, behind := range []time.Duration{0, 1000 * time.Hour} {
		t.Run(fmt.Sprint("a clock behind by ", behind), func(t *testing.T) {
			w := newWorld(t)
			first, second := sim.System{Path: sim.Path("first")}, sim.System{Path: sim.Path("second")}
			a := newAgents(w, t, 1, first, second)
			h := a.hosts[0]
			for _, s := range []sim.System{first, second} {
				a.release(s.Path, signing.Switch)
				h.until(t, api.OK, s.Path)
			}
			say := func(what string) { a.ask("POST", "/api/v1/hosts/h0/"+what, a.op, map[string]int64{"seq": a.seq}, 200) }
			restored := func(backup []byte) {
				t.Helper()
				w.stop()
				if err := os.WriteFile(w.path, backup, 0o600); err != nil {
					t.Fatal(err)
				}
				ahead := *w.time.Load()
				w.setClock(func() time.Time { return ahead().Add(-behind) })
				w.start()
				h.agent = nil // it asks anew, and tells anew
			}

			say("revert")
			h.until(t, api.Reverted, first.Path)
			w.stop()
			backup, err := os.ReadFile(w.path)
			if err != nil {
				t.Fatal(err)
			}
			w.start()
			say("retry")
			h.until(t, api.OK, second.Path)

			restored(backup)
			runs := h.Started()
			for range 50 {
				h.turn()
			}
			last := h.Acks[len(h.Acks)-1]
			if h.Started() != runs || h.Current != second.Path || last.State != api.OK {
				t.Fatalf("it obeyed a second time: %s, on %s", last.State, h.Current)
			}
			if !strings.Contains(last.Error, "asks again to revert release 2") || !strings.Contains(last.Error, "restored from a backup") {
				t.Errorf("it says %q", last.Error)
			}
			shown := decode[api.Host](t, a.ask("GET", "/api/v1/hosts/h0", a.op, nil, 200))
			if d := shown.Directive; d == nil || d.Serial == 0 || d.Serial >= shown.Status.DirectiveSerial {
				t.Errorf("shown is %+v, and the host obeyed %d", d, shown.Status.DirectiveSerial)
			}
			say("revert")
			h.until(t, api.Reverted, first.Path)
			if s := h.Acks[len(h.Acks)-1]; strings.Contains(s.Error, "backup") {
				t.Errorf("it still says %q", s.Error)
			}
			say("retry")
			h.until(t, api.OK, second.Path)
		})
	}
}
