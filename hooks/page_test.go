package hooks

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"narwharf/hooks/api"
	"narwharf/hooks/dashboard/channels"
	"narwharf/hooks/dashboard/condition"
	dashboard "narwharf/hooks/dashboard/fleet"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/host"
	"narwharf/hooks/rollout"
	"narwharf/narinfo/clip/cliptest"
	"narwharf/signing/access"
)

// page is the page about a world, and who looks at it.
type page struct {
	*world
	srv *httptest.Server
}

func (w *world) page() *page {
	w.t.Helper()
	f := frame.New(frame.Options{
		Access: w.s.access, API: w.s, Topics: w.s.Polls(), Log: w.log, Clock: w.now,
		Used: func(context.Context, *access.Principal) error { return nil },
	})
	f.Add(dashboard.Room(w.s.Fleet, w.s.Rollouts, nil))
	f.Add(channels.Room(channels.Options{Rollouts: w.s.Rollouts, Hosts: w.s.Fleet}))
	p := &page{w, httptest.NewServer(f)}
	w.t.Cleanup(p.srv.Close)
	return p
}

// ask asks as a browser without scripts does, but for its cookie.
func (p *page) ask(token, path string, form url.Values, header ...string) answer {
	p.t.Helper()
	method, body := "GET", io.Reader(http.NoBody)
	if form != nil {
		method, body = "POST", strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.srv.URL+path, body)
	if err != nil {
		p.t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	if res.Header.Get("Content-Security-Policy") != frame.Policy || strings.Contains(string(text), "style=") || strings.Contains(string(text), "ZgotmplZ") {
		p.t.Errorf("%s %s: no policy, a style attribute, or a URL that was filtered: %s", method, path, text)
	}
	return answer{status: res.StatusCode, header: res.Header, body: string(text)}
}

// sees wants a view with some words in it, and without those that begin with a "!".
func (p *page) sees(token, path string, words ...string) answer {
	p.t.Helper()
	a := p.ask(token, path, nil)
	if a.status != 200 {
		p.t.Errorf("%s: %s", path, a)
	}
	for _, w := range words {
		if not, no := strings.CutPrefix(w, "!"); strings.Contains(a.body, cmpOr(not, w)) == no {
			p.t.Errorf("%s: %q: %s", path, w, a.body)
		}
	}
	return a
}

func cmpOr(a, b string) string {
	if strings.HasPrefix(b, "!") {
		return a
	}
	return b
}

// An operator watches a roll-out, pauses it, lets it go on and aborts it, without a script. Others see no
// buttons, and cannot do what they say.
func TestPageOfARollout(t *testing.T) {
	f := newFleet(t, 5)
	f.policy(threeWaves)
	f.promote(2, f.entry("*", f.systems["b"]))
	f.want(rollout.Running, "b", 1)
	p := f.page()
	operator, reader, other, puller := f.token("operator", "operate:web"), f.token("reader", "read:web"), f.token("other", "read:db"), f.token("puller", "pull")
	const web = "/ui/channels/web"
	p.sees(operator, web, "Wave 1 of 3 (canary)", web+"/pause?seq=2", web+"/abort?seq=2", "narwharf rollback web --to 1", `id="wave-1"`, `data-cells=`)
	p.sees(reader, web, "Wave 1 of 3 (canary)", "!"+web+"/pause", "!"+web+"/abort")
	p.sees(reader, "/ui/", "web", "1 of 5 hosts")
	p.sees(other, "/ui/", "!channels/web", "Nothing is wrong")
	p.sees(other, "/ui/hosts", "!web-1")
	for token, status := range map[string]int{other: 403, puller: 403, "": 303} {
		if a := p.ask(token, web, nil); a.status != status || strings.Contains(a.body, "canary") || status == 303 && a.header.Get("Location") != "/ui/login?next=%2Fui%2Fchannels%2Fweb" {
			t.Errorf("%d wanted: %s %v", status, a, a.header)
		}
	}
	if a := p.ask(other, "/ui/hosts/web-1", nil); a.status != 403 {
		t.Errorf("a host of another channel: %s", a)
	}
	p.sees(operator, web+"/pause?seq=2&rev=1", "Nobody new begins", `name="seq" value="2"`, "<textarea")
	form := url.Values{"seq": {"2"}, "reason": {"lunch\n<b>"}}
	for _, a := range []answer{p.ask(reader, web+"/pause", form), p.ask(operator, web+"/pause", form, "Sec-Fetch-Site", "cross-site"), p.ask("", web+"/pause", form)} {
		if a.status != 403 && a.status != 401 {
			t.Errorf("a pause that is not to be: %s", a)
		}
	}
	f.want(rollout.Running, "b", 1)
	if a := p.ask(operator, web+"/pause", form); a.status != 303 || a.header.Get("Location") != web {
		t.Errorf("pause: %s", a)
	}
	if s := f.show(); s.State != rollout.Paused || !strings.Contains(s.Why, "operator: lunch <b>") {
		t.Errorf("paused it is %s: %s", s.State, s.Why)
	}
	p.sees(operator, web, "Paused at 1 of 5", "lunch &lt;b&gt;", web+"/resume", "!"+web+"/pause")
	p.sees(operator, "/ui/", "waits for a person")
	p.sees(operator, web+"/pause?seq=2", "there is nothing to pause", "!<form")
	p.sees(operator, web+"/resume?seq=1", "showed release 1", "!<form")
	if a := p.ask(operator, web+"/resume", url.Values{"seq": {"1"}}); a.status != 409 || !strings.Contains(a.body, "release 2 now, not 1") {
		t.Errorf("resume of an older one: %s", a)
	}
	if a := p.ask(operator, web+"/resume", url.Values{"seq": {"2"}}); a.status != 303 {
		t.Errorf("resume: %s", a)
	}
	if a := p.ask(operator, web+"/abort", url.Values{"seq": {"2"}, "reason": {" "}}); a.status != 400 || !strings.Contains(a.body, "Say why") || !strings.Contains(a.body, "<form") {
		t.Errorf("abort without a reason: %s", a)
	}
	if a := p.ask(operator, web+"/abort", url.Values{"seq": {"2"}, "reason": {"wrong branch"}}); a.status != 303 {
		t.Errorf("abort: %s", a)
	}
	f.want(rollout.Aborted, "b", 0)
	events := f.must(f.do("GET", "/api/v1/events?channel=web", f.admin, nil), 200, "").body
	if !strings.Contains(events, "wrong branch") || !strings.Contains(events, `"name":"operator"`) {
		t.Errorf("the audit log: %s", events)
	}
	p.sees(reader, web+"/plan?to=1", "Hosts", "!wrong")
	p.sees(reader, web+"/cell?at=0&n=0", `href="/ui/hosts/web-1"`, "!<html")
	if a := p.ask(reader, web+"/cell?at=0&n=99", nil); a.status != 404 {
		t.Errorf("a cell that is none: %s", a)
	}
}

// Who ended badly is shown with why; a host is held and let go.
func TestPageOfAHost(t *testing.T) {
	f := newFleet(t, 4)
	f.policy(threeWaves)
	f.robots[0].bad[f.path("b")] = true
	f.promote(2, f.entry("*", f.systems["b"]))
	f.want(rollout.Halted, "b", 0)
	p := f.page()
	op := f.token("operator", "operate:web")
	p.sees(op, "/ui/channels/web", "Halted", "Why hosts ended badly", `href="/ui/hosts/web-1"`, "/retry?seq=2", "<title>(1) web: release 2 halted")
	p.sees(op, "/ui/", "halted", "reverted")
	p.sees(op, "/ui/hosts?state=reverted", "web-1", "!web-2")
	p.sees(op, "/ui/hosts?cell=b&channel=web", "web-1", "!web-2")
	p.sees(op, "/ui/hosts?label=canary%3Dtrue", "web-1", "!web-2")
	p.sees(op, "/ui/hosts?q=EB-3", "web-3", "!web-2")
	p.sees(op, "/ui/hosts?version=none", "None of 4 hosts fits")
	if a := p.ask(op, "/ui/hosts?label=%3D", nil); a.status != 400 {
		t.Errorf("no selector: %s", a)
	}
	f.must(f.do("POST", "/api/v1/hosts/web-1/log?attempt=1&channel=web", f.host, []byte("one\n\x1b[31mred\x1b[0m <b>\nthree\n")), 204, "")
	p.sees(op, "/ui/hosts/web-1", "reverted", `<span class="c1">red</span> &lt;b&gt;`, "/ui/hosts/web-1/hold", "/ui/hosts/web-1/retry", "Timeline")
	p.sees(op, "/ui/hosts/web-1?find=THREE", "three", "!>one")
	p.sees(f.token("reader", "read:web"), "/ui/hosts/web-1", "!/hold", "!/retry")
	if a := p.ask(op, "/ui/hosts/web-1/hold", url.Values{"reason": {" "}, "for": {"4h"}}); a.status != 400 || !strings.Contains(a.body, "Say why") || f.describe("web-1").Hold != nil {
		t.Errorf("hold without a reason: %s", a)
	}
	if a := p.ask(op, "/ui/hosts/web-1/hold", url.Values{"reason": {"looking at it"}, "for": {"4h"}}); a.status != 303 {
		t.Errorf("hold: %s", a)
	}
	if h := f.describe("web-1"); h.Hold == nil || h.Hold.Reason != "looking at it" || h.Hold.By != "operator" || h.Hold.Until == nil {
		t.Errorf("held: %+v", h.Hold)
	}
	p.sees(op, "/ui/hosts/web-1", "looking at it", "/ui/hosts/web-1/unhold")
	if a := p.ask(op, "/ui/hosts/web-1/unhold", url.Values{"seq": {"2"}}); a.status != 303 || f.describe("web-1").Hold != nil {
		t.Errorf("unhold: %s", a)
	}
	for path, status := range map[string]int{"/ui/hosts/nobody": 404, "/ui/hosts/a%2Fb": 400, "/ui/channels/UP": 400, "/ui/channels/none": 404, "/ui/nothing": 404} {
		if a := p.ask(f.admin, path, nil); a.status != status || !strings.Contains(a.body, `role="alert"`) {
			t.Errorf("%s: %s", path, a)
		}
	}
}

func (w *world) describe(name string) *api.Host {
	w.t.Helper()
	d, err := w.s.Fleet.Describe(name)
	if err != nil {
		w.t.Fatal(err)
	}
	return &d.Host
}

// Whatever a host or a release says is text on the page, and only that.
func TestPageIsNotFooled(t *testing.T) {
	w := newWorld(t)
	const mark = `"'><script>alert(1)</script><img src=x onerror=y>`
	nasty := mark
	for name, word := range cliptest.Words {
		if name != "long" {
			nasty += word
		}
	}
	sys := w.system("a")
	head := w.head(1)
	head.Meta = map[string]string{"rev": mark, "url": "javascript:alert(1)//" + mark, "rollback_url": "javascript:alert(2)", "by": mark}
	w.must(w.promoteAs(w.ci, 0, w.release(head, w.entry("*", sys))), 200, "")
	st := new(api.Status)
	all := make(map[string]reflect.Value)
	texts(reflect.ValueOf(st).Elem(), "", all)
	for _, field := range all {
		field.SetString(nasty)
	}
	*st = *status(1, api.Reverted, func(s *api.Status) {
		s.Checks, s.Transitions, s.NewFailedUnits, s.NeedRebootFor, s.Differs, s.WaitingFor, s.Pause = st.Checks, st.Transitions, st.NewFailedUnits, st.NeedRebootFor, st.Differs, st.WaitingFor, st.Pause
		s.Agent, s.System, s.Error, s.Current, s.Booted, s.Profile, s.Confirmed, s.Specialisation, s.Action = nasty, nasty, nasty, nasty, nasty, nasty, nasty, nasty, nasty
		s.NeedReboot, s.Durations = true, map[string]int64{nasty: 1}
	})
	w.must(w.report(st), 204, "")
	w.must(w.do("POST", "/api/v1/hosts/web-1/log?attempt=1&channel=web", w.host, []byte(nasty)), 204, "")
	w.must(w.do("PATCH", "/api/v1/hosts/web-1", w.op, map[string]any{"hold": map[string]any{"reason": nasty}}), 200, "")
	p := w.page()
	for _, path := range []string{"/ui/", "/ui/hosts", "/ui/hosts/web-1", "/ui/hosts/web-1?find=" + url.QueryEscape("<script>"), "/ui/channels/web", "/ui/channels/web/plan", "/ui/hosts/web-1/hold",
		"/ui/hosts?q=" + url.QueryEscape(nasty) + "&sort=" + url.QueryEscape(mark) + "&state=" + url.QueryEscape(mark), "/ui/channels/web?below=" + url.QueryEscape("2"), "/ui/" + url.PathEscape(mark)} {
		a := p.ask(w.admin, path, nil)
		for _, bad := range []string{"<script>", "<img", "onerror=y>", `href="javascript:`, "\u202e", "\x1b", "\u200b"} {
			if strings.Contains(a.body, bad) {
				t.Errorf("%s: %q in %s", path, bad, a.body)
			}
		}
		if strings.ContainsFunc(a.body, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
			t.Errorf("%s has control characters", path)
		}
	}
	p.sees(w.admin, "/ui/hosts/web-1", "alert(1)") // as text
}

// The stream says what changes, goes on from the last id, and ends with the credential.
func TestPageIsLive(t *testing.T) {
	f := newFleet(t, 3)
	f.policy(threeWaves)
	p := f.page()
	stream := func(token, view, last string) (status int, header http.Header, events *bufio.Scanner) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", p.srv.URL+"/ui/live?view="+url.QueryEscape(view), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Last-Event-ID", last)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		events = bufio.NewScanner(res.Body)
		events.Buffer(nil, 1<<20)
		return res.StatusCode, res.Header, events
	}
	until := func(s *bufio.Scanner, word string) (id string) {
		t.Helper()
		for s.Scan() {
			if rest, ok := strings.CutPrefix(s.Text(), "id: "); ok {
				id = rest
			}
			if strings.Contains(s.Text(), word) {
				return id
			}
		}
		t.Fatalf("the stream ends before %q: %v", word, s.Err())
		return ""
	}
	token := f.token("watcher", "read:web")
	_, _, events := stream(token, "/ui/hosts?channel=web", "")
	until(events, "web-3")
	f.must(f.do("PATCH", "/api/v1/hosts/web-2", f.op, map[string]any{"hold": map[string]any{"reason": "live words"}}), 200, "")
	id := until(events, "live words")
	_, header, again := stream(token, "/ui/hosts?channel=web", id)
	if header.Get("Content-Type") != "text/event-stream" || header.Get("X-Accel-Buffering") != "no" {
		t.Errorf("headers %v", header)
	}
	if _, err := f.tokens.Revoke(t.Context(), "watcher", time.Now()); err != nil {
		t.Fatal(err)
	}
	until(events, "event: bye")
	until(again, "revoked")
	for view, status := range map[string]int{"/ui/nothing": 404, "https://evil.example/ui/": 400, "/ui/channels/web": 401} {
		if got, _, _ := stream(token, view, ""); got != status {
			t.Errorf("%s: %d", view, got)
		}
	}
	if got, _, _ := stream(f.token("other", "read:db"), "/ui/channels/web", ""); got != 403 {
		t.Errorf("of another channel: %d", got)
	}
	f.s.Polls().Stop()
}

// 10,000 hosts are a small page.
func TestPageOfManyHosts(t *testing.T) {
	w := newWorld(t)
	w.promote(1, w.entry("*", w.system("a")))
	f := &fleetOf{n: 10_000}
	room := frame.New(frame.Options{Access: w.s.access, API: w.s, Log: w.log, Clock: w.now, Used: func(context.Context, *access.Principal) error { return nil }})
	room.Add(dashboard.Room(f, w.s.Rollouts, nil))
	for path, most := range map[string]int{"/ui/hosts": 300_000, "/ui/hosts?sort=host&page=50": 300_000, "/ui/": 20_000} {
		req := httptest.NewRequest("GET", path, http.NoBody)
		req.Header.Set("Authorization", "Bearer "+w.admin)
		rec := httptest.NewRecorder()
		room.ServeHTTP(rec, req)
		if n := rec.Body.Len(); rec.Code != 200 || n > most {
			t.Errorf("%s: %d, %d bytes: %.300s", path, rec.Code, n, rec.Body)
		}
	}
}

// fleetOf is n hosts.
type fleetOf struct{ n int }

func (f *fleetOf) Glance(keep func(string) bool, each func(*host.Described)) {
	for i := range f.n {
		d, _ := f.Describe(fmt.Sprintf("web-%05d.frankfurt.example.org", i))
		if keep(d.Channel) {
			each(d)
		}
	}
}

func (f *fleetOf) Describe(name string) (*host.Described, error) {
	d := &host.Described{Channel: "web", Host: api.Host{Host: name, Labels: map[string]string{"site": "fra", "role": "web"}, WantedSeq: 1, Status: status(1, api.Reverted)}}
	d.Status.Error = strings.Repeat("the unit nginx.service failed ", 5)
	return d, nil
}

// BenchmarkPage loads views of 10,000 hosts in the middle of a roll-out, as open pages do when something changes.
func BenchmarkPage(b *testing.B) {
	f := newFleet(b, 10_000)
	f.policy(`{"rollout":{"waves":[{"max":"50%"},{}],"max_concurrency":"10%"}}`)
	f.promote(2, f.entry("*", f.systems["b"]))
	f.s.Rollouts.Begin()
	p := f.page()
	for _, path := range []string{"/ui/", "/ui/hosts", "/ui/channels/web", "/ui/hosts/web-1"} {
		b.Run(path, func(b *testing.B) {
			size := 0
			for b.Loop() {
				req := httptest.NewRequest("GET", path, http.NoBody)
				req.Header.Set("Authorization", "Bearer "+f.admin)
				rec := httptest.NewRecorder()
				p.srv.Config.Handler.ServeHTTP(rec, req)
				if size = rec.Body.Len(); rec.Code != 200 {
					b.Fatalf("%d %s", rec.Code, rec.Body)
				}
			}
			b.ReportMetric(float64(size), "B/page")
		})
	}
}

// Hosts that are counted are in the conditions in which they are described.
func TestGlance(t *testing.T) {
	f := newFleet(t, 6)
	f.policy(threeWaves)
	f.robots[0].bad[f.path("b")] = true
	f.promote(2, f.entry("*", f.systems["b"]))
	f.want(rollout.Halted, "b", 0)
	f.must(f.do("PATCH", "/api/v1/hosts/web-3", f.op, map[string]any{"hold": map[string]any{"reason": "x"}}), 200, "")
	seen := make(map[string]*api.Host)
	f.s.Fleet.Glance(func(channel string) bool { return channel == "web" }, func(d *host.Described) { seen[d.Host.Host] = &d.Host })
	list, _, err := f.s.Fleet.List(func(string) bool { return true })
	if err != nil || len(list) != len(seen) {
		t.Fatalf("%d and %d hosts, %v", len(list), len(seen), err)
	}
	conditions := make(map[condition.Condition]bool)
	for i := range list {
		h := &list[i]
		is := condition.Of(h, f.now())
		conditions[is] = true
		if got := seen[h.Host]; got == nil || condition.Of(got, f.now()) != is || got.WantedSeq != h.WantedSeq || got.Converged != h.Converged {
			t.Errorf("%s is %s: %+v and %+v", h.Host, is, got, h)
		}
	}
	if len(conditions) < 3 {
		t.Errorf("only %v were tried", conditions)
	}
	f.s.Fleet.Glance(func(string) bool { return false }, func(d *host.Described) { t.Errorf("%s is of a channel that is not to be seen", d.Host.Host) })
}
