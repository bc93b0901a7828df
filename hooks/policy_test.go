package hooks

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/policy"
	"narwharf/hooks/window"
)

const policyPath = "/api/v1/channels/web/policy"

func (w *world) setPolicy(p any, header ...string) answer {
	w.t.Helper()
	return w.do("PUT", policyPath, w.op, p, header...)
}

func (w *world) desiredNow() api.Desired {
	w.t.Helper()
	return decode[api.Desired](w.t, w.must(w.do("GET", desiredPath, w.host, nil), 200, ""))
}

func TestPolicy(t *testing.T) {
	w := newWorld(t)
	w.must(w.do("GET", policyPath, "", nil), 401, api.Unauthorized)
	w.must(w.do("GET", policyPath, w.host, nil), 403, api.Forbidden)
	none := w.must(w.do("GET", policyPath, w.ci, nil), 200, "")
	if none.body != "{}\n" {
		t.Errorf("no policy is %q", none.body)
	}
	full := `{"windows":[{"days":["sat"],"from":"22:00","to":"04:00","zone":"Europe/Berlin"}],"reboot_slots":2,"reboot_timeout_s":600,"min_agent":"0.5.0","confirm_timeout_s":300,"probation_min_s":60}`
	w.must(w.do("PUT", policyPath, w.ci, []byte(full)), 403, api.Forbidden, "operate")
	for name, bad := range map[string]string{
		"empty":       `{}`,
		"no object":   `[]`,
		"misspelt":    `{"reboot_slot":1}`,
		"no such day": `{"windows":[{"days":["someday"],"from":"22:00","to":"04:00"}]}`,
		"nonsense":    `{"windows":`,
	} {
		if a := w.setPolicy([]byte(bad)); a.status != 400 || a.err.Kind != api.BadRequest {
			t.Errorf("%s: %s", name, a)
		}
	}
	w.must(w.setPolicy([]byte(full), "If-Match", `"other"`), 412, api.RaceLost)
	set := w.must(w.setPolicy([]byte(full), "If-Match", none.header.Get("ETag")), 200, "")
	w.must(w.do("GET", "/api/v1/events", w.op, nil), 200, "", "channel.policy", "window sat 22:00-04:00 Europe/Berlin, 2 reboot slots", `"by":"op"`)
	w.restart()
	got := w.must(w.do("GET", policyPath, w.op, nil), 200, "")
	if strings.TrimSpace(got.body) != full || got.header.Get("ETag") != set.header.Get("ETag") || set.body != got.body {
		t.Errorf("after a restart %s, want %s", got, full)
	}
	// The other form of a window is the same policy.
	other := strings.Replace(full, `{"days":["sat"],"from":"22:00","to":"04:00","zone":"Europe/Berlin"}`, `"Sat 22:00-04:00 Europe/Berlin"`, 1)
	if again := w.must(w.setPolicy([]byte(other)), 200, ""); again.body != got.body {
		t.Errorf("%s is stored as %s", other, again.body)
	}
	// What tightens is told to hosts, and hosts hear of a change at once.
	w.promote(1, w.entry("*", w.system("a")))
	d := w.do("GET", desiredPath, w.host, nil)
	if got := decode[api.Desired](t, d); got.Policy != (api.Policy{ConfirmTimeout: 300, ProbationMin: 60}) || got.MinAgent != "0.5.0" {
		t.Errorf("desired %+v", got)
	}
	woken := make(chan answer, 1)
	go func() {
		a, _ := w.try("GET", desiredPath, w.host, nil, "If-None-Match", d.header.Get("ETag"), "Prefer", "wait=60")
		woken <- a
	}()
	w.parked(1)
	w.must(w.setPolicy([]byte(`{"windows":[]}`)), 200, "")
	if got := decode[api.Desired](t, <-woken); got.Policy != (api.Policy{}) || got.MinAgent != "" || got.Grant == nil {
		t.Errorf("woken with %+v", got)
	}
}

// TestPolicyWindow: grants end and begin with the windows, parked polls hear of
// it at that moment, and a lease is no longer than the window.
func TestPolicyWindow(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) { // which begins at 2000-01-01 00:00 UTC
		w.promote(1, w.entry("*", w.system("a")))
		w.must(w.setPolicy(policy.Channel{Windows: []window.Window{{From: "02:00", To: "04:00"}}}), 200, "")
		first := w.do("GET", desiredPath, w.host, nil)
		d := decode[api.Desired](t, first)
		if d.Grant != nil || d.WaitingFor == nil || d.WaitingFor.Kind != api.WaitWindow || !strings.Contains(d.WaitingFor.Detail, "Sat 2000-01-01 02:00 UTC") {
			t.Fatalf("outside of the window: %+v %+v", d, d.WaitingFor)
		}
		w.must(w.report(status(1, api.Idle)), 204, "")
		h := decode[api.Host](t, w.do("GET", "/api/v1/hosts/web-1", w.op, nil))
		if h.WaitingFor == nil || h.WaitingFor.Kind != api.WaitWindow {
			t.Errorf("shown is %+v", h.WaitingFor)
		}
		etag := first.header.Get("ETag")
		hour := func(n int) time.Time { return time.Date(2000, 1, 1, n, 0, 0, 0, time.UTC) }
		for i, at := range []time.Time{hour(2), hour(4), hour(26), hour(28)} {
			for { // as agents do
				a := w.do("GET", desiredPath, w.host, nil, "If-None-Match", etag, "Prefer", "wait=45")
				if a.status == 304 {
					continue
				}
				if now := time.Now(); now.Sub(at).Abs() > time.Second {
					t.Fatalf("change %d came at %s, want %s", i, now.UTC(), at)
				}
				d, etag = decode[api.Desired](t, a), a.header.Get("ETag")
				break
			}
			if open := i%2 == 0; (d.Grant != nil) != open || open && d.Grant.Lease != 900 {
				t.Fatalf("after change %d: %+v", i, d)
			}
		}
		// A window that is about to close: the lease is short, the ETag the same.
		time.Sleep(time.Until(hour(50)))
		open := w.do("GET", desiredPath, w.host, nil)
		time.Sleep(time.Until(hour(52).Add(-100 * time.Second)))
		late := w.do("GET", desiredPath, w.host, nil)
		if d := decode[api.Desired](t, late); d.Grant == nil || d.Grant.Lease != 100 {
			t.Errorf("100 s before the end: %+v", d.Grant)
		}
		if open.header.Get("ETag") != late.header.Get("ETag") {
			t.Error("the ETag changes with the lease")
		}
	})
}

// TestHoldEnds: a hold that ends by itself wakes the host.
func TestHoldEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.promote(1, w.entry("*", w.system("a")))
		w.must(w.report(status(1, api.Idle)), 204, "")
		until := time.Now().Add(100 * time.Second).UTC().Truncate(time.Second)
		w.must(w.do("PATCH", "/api/v1/hosts/web-1", w.op, map[string]any{"hold": api.Hold{Reason: "x", Until: &until}}), 200, "")
		etag := w.do("GET", desiredPath, w.host, nil).header.Get("ETag")
		a := w.do("GET", desiredPath, w.host, nil, "If-None-Match", etag, "Prefer", "wait=300")
		if d := decode[api.Desired](t, a); a.status != 200 || d.Grant == nil || !time.Now().Equal(until) {
			t.Errorf("woken at %s with %s, want %s", time.Now().UTC(), a, until)
		}
		synctest.Wait()
	})
}

// TestDirectives: an operator's word reaches the host, stands over a restart,
// and ends with the release.
func TestDirectives(t *testing.T) {
	w := newWorld(t)
	about := func(seq int64) any { return map[string]int64{"seq": seq} }
	post := func(token, what string) answer { return w.do("POST", "/api/v1/hosts/web-1/"+what, token, about(1)) }
	w.must(post(w.op, "retry"), 404, api.NotFound)
	w.must(w.report(status(1, api.Idle)), 204, "")
	w.must(post(w.op, "revert"), 404, api.NotFound, "no release")
	a := w.system("a")
	w.promote(1, w.entry("*", a))
	w.must(post(w.ci, "retry"), 403, api.Forbidden)
	w.must(w.do("POST", "/api/v1/hosts/-/retry", w.op, about(1)), 400, api.BadRequest)
	w.must(w.do("POST", "/api/v1/hosts/web-1/retry", w.op, about(0)), 400, api.BadRequest)
	w.must(w.do("POST", "/api/v1/hosts/web-1/retry", w.op, about(2)), 409, api.SeqConflict, "it is seq 1 now")
	etag := w.do("GET", desiredPath, w.host, nil).header.Get("ETag")
	woken := make(chan answer, 1)
	go func() {
		a, _ := w.try("GET", desiredPath, w.host, nil, "If-None-Match", etag, "Prefer", "wait=60")
		woken <- a
	}()
	w.parked(1)
	h := decode[api.Host](t, w.must(post(w.op, "retry"), 200, ""))
	d := decode[api.Desired](t, <-woken).Directive
	if d == nil || d.Type != "retry" || d.Seq != 1 || d.ID == "" || h.Directive == nil || *h.Directive != *d {
		t.Fatalf("told %+v, shown %+v", d, h.Directive)
	}
	w.must(post(w.op, "retry"), 200, "")
	if again := w.desiredNow().Directive; again.ID == d.ID {
		t.Error("a second retry has the id of the first, and would not be obeyed")
	}
	w.must(post(w.op, "revert"), 200, "")
	w.restart()
	if d := w.desiredNow().Directive; d == nil || d.Type != "revert" {
		t.Errorf("after a restart %+v", d)
	}
	w.must(w.do("GET", "/api/v1/events", w.op, nil), 200, "", "host.retry", "host.revert", "leave seq 1")
	w.promote(2, w.entry("*", a))
	if d := w.desiredNow().Directive; d != nil {
		t.Errorf("about another release: %+v", d)
	}
}
