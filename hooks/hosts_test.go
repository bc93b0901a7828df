package hooks

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/signing"
)

const desiredPath = "/api/v1/hosts/web-1/desired?channel=web"

func (w *world) trust(target string) signing.Trust {
	return signing.Trust{Keys: []signing.PublicKey{w.key.Public()}, Threshold: 1, Origin: "cache.example.org/web", Channel: "web", Target: target}
}

func TestDesired(t *testing.T) {
	w := newWorld(t)
	w.must(w.do("GET", desiredPath, "", nil), 401, api.Unauthorized, "follow:web")
	w.must(w.do("GET", desiredPath, w.ci, nil), 403, api.Forbidden)
	w.must(w.do("GET", "/api/v1/hosts/web-1/desired", w.host, nil), 400, api.BadRequest, "channel=")
	w.must(w.do("GET", "/api/v1/hosts/web-1/desired?channel=db", w.host, nil), 403, api.Forbidden)

	none := decode[api.Desired](t, w.must(w.do("GET", desiredPath, w.host, nil), 200, ""))
	if none.Pointer != nil || none.Grant != nil || none.WaitingFor == nil || none.WaitingFor.Kind != api.WaitNotInRelease {
		t.Errorf("without a release: %+v", none)
	}
	a, b := w.system("a"), w.system("b")
	w.promote(1, w.entry("web-1", a), w.entry("web-2", b))
	d := decode[api.Desired](t, w.do("GET", desiredPath, w.host, nil))
	head, e, err := d.Pointer.Verify(w.trust("web-1"))
	if err != nil || head.Seq != 1 || e.StorePath != a.In("/nix/store") || d.Grant == nil || d.Grant.Seq != 1 {
		t.Errorf("desired %+v (%v)", d, err)
	}
	// Its own configured target counts, not its name.
	d = decode[api.Desired](t, w.do("GET", desiredPath+"&target=web-2", w.host, nil))
	if _, e, err := d.Pointer.Verify(w.trust("web-2")); err != nil || e.StorePath != b.In("/nix/store") {
		t.Errorf("target web-2: %v", err)
	}
	d = decode[api.Desired](t, w.do("GET", desiredPath+"&target=web-9", w.host, nil))
	if d.Pointer != nil || d.WaitingFor.Kind != api.WaitNotInRelease {
		t.Errorf("target web-9: %+v", d)
	}
}

// TestLongPoll: what is parked wakes at the promote, and times out with 304.
func TestLongPoll(t *testing.T) {
	w := newWorld(t)
	a := w.system("a")
	first := w.must(w.do("GET", desiredPath, w.host, nil), 200, "")
	etag := first.header.Get("ETag")
	if etag == "" || first.header.Get("Cache-Control") != "no-store" || first.header.Get("Vary") != "Prefer" {
		t.Errorf("headers %v", first.header)
	}
	if a := w.do("GET", desiredPath, w.host, nil, "If-None-Match", etag); a.status != 304 {
		t.Errorf("no wait: %s", a)
	}
	begin := time.Now()
	over := w.do("GET", desiredPath, w.host, nil, "If-None-Match", etag, "Prefer", "wait=1")
	if took := time.Since(begin); over.status != 304 || took < 900*time.Millisecond || over.header.Get("Preference-Applied") != "wait=1" || over.header.Get("ETag") != etag {
		t.Errorf("time-out: %s after %v, %v", over, took, over.header)
	}
	answers := make(chan answer, 2)
	for _, url := range []string{desiredPath, "/api/v1/channels/web"} {
		tag := etag
		if url != desiredPath {
			tag = `"0"`
		}
		go func() {
			a, err := w.try("GET", url, w.host, nil, "If-None-Match", tag, "Prefer", "wait=60")
			if err != nil {
				a.body = err.Error()
			}
			answers <- a
		}()
	}
	w.parked(2)
	w.promote(1, w.entry("*", a))
	for range 2 {
		select {
		case got := <-answers:
			if got.status != 200 || !strings.Contains(got.body, `"seq":1`) {
				t.Errorf("woken with %s", got)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("not woken")
		}
	}
}

// parked waits until n polls wait.
func (w *world) parked(n int) {
	w.t.Helper()
	for range 1000 {
		if w.s.shared.Polls.Count().Waiting >= n {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.t.Fatalf("%d polls never parked", n)
}

// TestStop: parked polls end with 503 and a moment to wait.
func TestStop(t *testing.T) {
	w := newWorld(t)
	etag := w.do("GET", desiredPath, w.host, nil).header.Get("ETag")
	got := make(chan answer, 1)
	go func() {
		a, _ := w.try("GET", desiredPath, w.host, nil, "If-None-Match", etag, "Prefer", "wait=60")
		got <- a
	}()
	w.parked(1)
	w.s.Stop()
	a := <-got
	w.must(a, 503, api.Unavailable)
	if s := a.header.Get("Retry-After"); s < "1" || s > "5" {
		t.Errorf("Retry-After %q", s)
	}
}

// TestClientLeaves: a poll whose client went away holds nothing.
func TestClientLeaves(t *testing.T) {
	w := newWorld(t)
	etag := w.do("GET", desiredPath, w.host, nil).header.Get("ETag")
	client := &http.Client{Timeout: 300 * time.Millisecond, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequest("GET", w.http.URL+desiredPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.host)
	req.Header.Set("If-None-Match", etag)
	req.Header.Set("Prefer", "wait=60")
	if resp, err := client.Do(req); err == nil {
		resp.Body.Close()
		t.Fatal("the poll was answered")
	}
	for range 200 {
		if w.s.shared.Polls.Count().Waiting == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("topics are still waited for")
}

func status(counter int64, state api.State, more ...func(*api.Status)) *api.Status {
	s := &api.Status{
		Agent: "test", StartID: 100, Counter: counter, Channel: "web", Target: "web-1", BootID: "b-1", State: state,
		Current: "/nix/store/x", Booted: "/nix/store/x", Profile: "/nix/store/x",
	}
	for _, m := range more {
		m(s)
	}
	return s
}

func (w *world) report(s *api.Status) answer {
	w.t.Helper()
	return w.do("PUT", "/api/v1/hosts/web-1/status", w.host, s)
}

func TestStatusOrder(t *testing.T) {
	w := newWorld(t)
	w.must(w.report(status(2, api.Idle)), 204, "")
	events := func() string { return w.do("GET", "/api/v1/events", w.op, nil).body }
	before := events()
	w.must(w.report(status(2, api.Idle)), 204, "") // the same again, since its answer may have been lost
	if after := events(); after != before {
		t.Errorf("a report that was repeated is an event: %s", after)
	}
	stale := w.must(w.report(status(2, api.Staging)), 409, api.StaleStatus)
	if stale.err.StartID != 100 || stale.err.Counter != 2 {
		t.Errorf("stale %+v", stale.err)
	}
	w.must(w.report(status(1, api.Staging)), 409, api.StaleStatus)
	w.must(w.report(status(9, api.Staging, func(s *api.Status) { s.StartID = 99 })), 409, api.StaleStatus)
	w.must(w.report(status(1, api.Staging, func(s *api.Status) { s.StartID = 101 })), 204, "")
	w.restart()
	w.must(w.report(status(1, api.Staging, func(s *api.Status) { s.StartID, s.Checks = 101, []api.Check{} })), 204, "")
	w.must(w.report(status(1, api.Staged, func(s *api.Status) { s.StartID = 101 })), 409, api.StaleStatus)
}

// TestStatusThatCannotBe: what contradicts itself is refused.
func TestStatusThatCannotBe(t *testing.T) {
	w := newWorld(t)
	for name, s := range map[string]*api.Status{
		"ok elsewhere":         status(1, api.OK, func(s *api.Status) { s.Wanted = "/nix/store/y" }),
		"ok without profile":   status(1, api.OK, func(s *api.Status) { s.Wanted, s.Profile = s.Current, "/nix/store/old" }),
		"ok of what":           status(1, api.OK),
		"testing elsewhere":    status(1, api.Testing, func(s *api.Status) { s.Wanted = "/nix/store/y" }),
		"armed elsewhere":      status(1, api.Armed, func(s *api.Status) { s.Wanted = "/nix/store/y" }),
		"reverted but current": status(1, api.Reverted, func(s *api.Status) { s.Wanted = s.Current }),
		"no such state":        status(1, "fine"),
		"no counter":           status(0, api.Idle),
		"no boot id":           status(1, api.Idle, func(s *api.Status) { s.BootID = "" }),
		"bad channel":          status(1, api.Idle, func(s *api.Status) { s.Channel = "/" }),
		"bad target":           status(1, api.Idle, func(s *api.Status) { s.Target = "" }),
	} {
		if a := w.report(s); a.status != 400 || a.err.Kind != api.BadRequest {
			t.Errorf("%s: %s", name, a)
		}
	}
	w.must(w.do("PUT", "/api/v1/hosts/web-1/status", w.host, []byte("{}")), 400, api.BadRequest)
	w.must(w.do("PUT", "/api/v1/hosts/-/status", w.host, status(1, api.Idle)), 400, api.BadRequest)
	w.must(w.do("PUT", "/api/v1/hosts/web-1/status", w.op, status(1, api.Idle)), 403, api.Forbidden)
	w.must(w.do("GET", "/api/v1/hosts/web-1", w.op, nil), 404, api.NotFound)
}

func TestHosts(t *testing.T) {
	w := newWorld(t)
	a := w.system("a")
	path := a.In("/nix/store")
	w.promote(1, w.entry("*", a))
	w.must(w.do("GET", desiredPath, w.host, nil), 200, "")
	type list struct{ Hosts []api.Host }
	if hosts := decode[list](t, w.must(w.do("GET", "/api/v1/hosts?channel=web", w.ci, nil), 200, "")).Hosts; len(hosts) != 0 {
		t.Fatalf("to ask makes the hosts %+v", hosts)
	}
	w.must(w.do("GET", "/api/v1/hosts/web-1", w.op, nil), 404, api.NotFound)
	w.must(w.report(status(1, api.Idle)), 204, "")
	hosts := decode[list](t, w.must(w.do("GET", "/api/v1/hosts?channel=web", w.ci, nil), 200, "")).Hosts
	if len(hosts) != 1 || hosts[0].Host != "web-1" || !hosts[0].Online || hosts[0].Status.State != api.Idle || hosts[0].Wanted != path || hosts[0].Converged {
		t.Fatalf("hosts %+v", hosts)
	}
	w.must(w.report(status(2, api.OK, func(s *api.Status) { s.Seq, s.Wanted, s.Current, s.Profile = 1, path, path, path })), 204, "")
	h := decode[api.Host](t, w.must(w.do("GET", "/api/v1/hosts/web-1", w.op, nil), 200, ""))
	if !h.Converged || h.Status == nil || h.Status.State != api.OK || h.By != "host" || h.WantedSeq != 1 {
		t.Errorf("host %+v", h)
	}
	w.must(w.do("GET", "/api/v1/hosts", w.host, nil), 403, api.Forbidden)
	w.must(w.do("GET", "/api/v1/hosts?channel=db", w.ci, nil), 403, api.Forbidden)
	if l := decode[list](t, w.do("GET", "/api/v1/hosts?channel=db", w.op, nil)); len(l.Hosts) != 0 {
		t.Errorf("hosts of db: %+v", l)
	}
	// A new release: no longer converged, whatever was declared before.
	w.promote(2, w.entry("*", w.system("b")))
	h = decode[api.Host](t, w.do("GET", "/api/v1/hosts/web-1", w.op, nil))
	if h.Converged || h.WantedSeq != 2 {
		t.Errorf("after a promote %+v", h)
	}
	w.must(w.do("DELETE", "/api/v1/hosts/web-1", w.ci, nil), 403, api.Forbidden)
	w.must(w.do("DELETE", "/api/v1/hosts/web-1", w.op, nil), 204, "")
	w.must(w.do("GET", "/api/v1/hosts/web-1", w.op, nil), 404, api.NotFound)
}

// TestHostsWait: who waits for the hosts of a channel sees each report.
func TestHostsWait(t *testing.T) {
	w := newWorld(t)
	w.must(w.report(status(1, api.Idle)), 204, "")
	etag := w.do("GET", "/api/v1/hosts?channel=web", w.ci, nil).header.Get("ETag")
	got := make(chan answer, 1)
	go func() {
		a, _ := w.try("GET", "/api/v1/hosts?channel=web", w.ci, nil, "If-None-Match", etag, "Prefer", "wait=60")
		got <- a
	}()
	w.parked(1)
	w.must(w.report(status(2, api.Staging)), 204, "")
	if a := <-got; a.status != 200 || !strings.Contains(a.body, `"staging"`) {
		t.Errorf("woken with %s", a)
	}
}

func TestHold(t *testing.T) {
	w := newWorld(t)
	w.promote(1, w.entry("*", w.system("a")))
	w.must(w.report(status(1, api.Idle)), 204, "")
	etag := w.do("GET", desiredPath, w.host, nil).header.Get("ETag")
	got := make(chan answer, 1)
	go func() {
		a, _ := w.try("GET", desiredPath, w.host, nil, "If-None-Match", etag, "Prefer", "wait=60")
		got <- a
	}()
	w.parked(1)
	w.must(w.do("PATCH", "/api/v1/hosts/web-1", w.ci, map[string]any{"hold": map[string]string{"reason": "x"}}), 403, api.Forbidden)
	w.must(w.do("PATCH", "/api/v1/hosts/web-1", w.op, []byte("{}")), 400, api.BadRequest)
	w.must(w.do("PATCH", "/api/v1/hosts/web-1", w.op, map[string]any{"hold": map[string]string{}}), 400, api.BadRequest, "reason")
	w.must(w.do("PATCH", "/api/v1/hosts/web-9", w.op, map[string]any{"hold": map[string]string{"reason": "x"}}), 404, api.NotFound)
	w.must(w.do("PATCH", "/api/v1/hosts/web-1", w.op, map[string]any{"hold": map[string]string{"reason": "debugging"}, "labels": map[string]string{"rack": "2"}}), 200, "")
	d := decode[api.Desired](t, <-got)
	if d.Grant != nil || d.Hold == nil || d.Hold.By != "op" || d.WaitingFor.Kind != api.WaitHold || d.WaitingFor.Detail != "debugging" {
		t.Errorf("held: %+v", d)
	}
	w.restart()
	if d := decode[api.Desired](t, w.do("GET", desiredPath, w.host, nil)); d.Hold == nil {
		t.Error("a restart forgets the hold")
	}
	w.must(w.do("PATCH", "/api/v1/hosts/web-1", w.op, map[string]any{"unhold": true}), 200, "", "rack")
	if d := decode[api.Desired](t, w.do("GET", desiredPath, w.host, nil)); d.Grant == nil {
		t.Error("still held")
	}
}

func TestLogs(t *testing.T) {
	w := newWorld(t)
	w.must(w.report(status(1, api.Idle)), 204, "")
	post := func(attempt, text string) answer {
		return w.do("POST", "/api/v1/hosts/web-1/log?attempt="+attempt, w.host, []byte(text))
	}
	w.must(w.do("POST", "/api/v1/hosts/web-1/log", w.host, []byte("x")), 400, api.BadRequest)
	w.must(w.do("POST", "/api/v1/hosts/web-1/log?attempt=a", w.op, []byte("x")), 403, api.Forbidden)
	w.must(w.do("GET", "/api/v1/hosts/web-1/log", w.op, nil), 404, api.NotFound)
	for i := range 8 {
		w.must(post(fmt.Sprintf("t%d", i), fmt.Sprintf("log %d", i)), 204, "")
	}
	if a := w.must(w.do("GET", "/api/v1/hosts/web-1/log", w.ci, nil), 200, ""); a.body != "log 7" {
		t.Errorf("last log %q", a.body)
	}
	w.must(w.do("GET", "/api/v1/hosts/web-1/log?attempt=t3", w.op, nil), 200, "", "log 3")
	w.must(w.do("GET", "/api/v1/hosts/web-1/log?attempt=t2", w.op, nil), 404, api.NotFound)
	w.must(post("t9", strings.Repeat("x", maxLog)+"the end"), 204, "")
	a := w.do("GET", "/api/v1/hosts/web-1/log?attempt=t9", w.op, nil)
	if !strings.HasSuffix(a.body, "the end") || !strings.HasPrefix(a.body, "[the beginning was cut off]") || len(a.body) > maxLog+100 {
		t.Errorf("a long log has %d bytes", len(a.body))
	}
}

// TestHostKnowsMore: a server that was restored from an old backup is told.
func TestHostKnowsMore(t *testing.T) {
	w := newWorld(t)
	a := w.system("a")
	w.promote(1, w.entry("*", a))
	later := w.release(w.head(5), w.entry("*", a))
	p, err := later.Pointer(0)
	if err != nil {
		t.Fatal(err)
	}
	w.must(w.report(status(1, api.OK, func(s *api.Status) { s.HighestSeq, s.Head, s.Wanted = 5, p, s.Current })), 204, "")
	w.must(w.do("GET", "/api/v1/events?channel=web", w.op, nil), 200, "", "channel.behind", "old backup")
}

func TestAPIErrors(t *testing.T) {
	w := newWorld(t)
	w.must(w.do("GET", "/api/v1/nothing", "", nil), 404, api.NotFound)
	w.must(w.do("POST", "/api/v1/channels/web", w.admin, []byte("{}")), 405, api.MethodNotAllowed)
	if a := w.do("HEAD", "/api/v1/channels", "", nil); a.status != 200 || a.body != "" {
		t.Errorf("HEAD: %s", a)
	}
}
