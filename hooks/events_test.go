package hooks

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"narwharf/hooks/api"
)

// eventsBy are the events of those whom a pattern means.
func (w *world) eventsBy(who string) []api.Event {
	w.t.Helper()
	return decode[struct{ Events []api.Event }](w.t, w.must(w.do("GET", "/api/v1/events?who="+who, w.op, nil), 200, "")).Events
}

// TestRequestIDs: each answer has the id of its request, which is the caller's own if it has the
// form of one; errors have it in their body.
func TestRequestIDs(t *testing.T) {
	w := newWorld(t)
	w.promote(1, w.entry("*", w.system("a")))
	ids := make(map[string]bool)
	for _, r := range append(Routes(), Route{Method: "GET", Pattern: "/api/v1/nothing"}, Route{Method: "POST", Pattern: "/api/v1/channels"}) {
		path := strings.NewReplacer(":channel", "web", ":host", "web-1", ":digest", strings.Repeat("0", 64), ":seq", "1", ":pin", "p", ":path", "x").Replace(r.Pattern)
		for _, token := range []string{"", w.admin} {
			a := w.do(r.Method, path, token, nil)
			id := a.header.Get("X-Request-Id")
			if len(id) != 16 || ids[id] {
				t.Errorf("%s %s has the id %q", r.Method, path, id)
			}
			ids[id] = true
			if a.status >= 400 && a.err.Channel == nil && a.err.Request != id {
				t.Errorf("%s %s: %s does not say %s", r.Method, path, a, id)
			}
		}
	}
	for id, good := range map[string]bool{
		"r-1": true, "0af7651916cd43dd8448eb211c80319c": true, "6c7b9a06-3b1e-4c39-a1b9-2f1d0a6b3c55": true, strings.Repeat("x", 64): true,
		strings.Repeat("x", 65): false, w.op: false, "a b": false, "-x": false, "a\"b": false, "é": false,
	} {
		a := w.do("GET", "/api/v1/channels/none", "", nil, "X-Request-Id", id)
		if got := a.header.Get("X-Request-Id"); (got == id) != good || got == "" {
			t.Errorf("%q becomes %q", id, got)
		}
	}
}

// TestEventsSayWho: whatever is changed by a request, its line says by whom, from where, and by
// which request.
func TestEventsSayWho(t *testing.T) {
	w := newWorld(t)
	m := w.machine("web-1", "a", "boot-a")
	w.must(m.join(w.joinToken("rack", "", 1)), 201, "")
	m.token = w.host
	host := "/api/v1/hosts/web-1"
	for _, c := range []struct {
		kind, name string
		do         func(header ...string) answer
	}{
		{"channel.promoted", "ci", func(h ...string) answer {
			return w.promoteAs(w.ci, 0, w.release(w.head(1), w.entry("*", w.system("a"))), h...)
		}},
		{"channel.policy", "op", func(h ...string) answer { return w.setPolicy(map[string]any{"reboot_slots": 2}, h...) }},
		{"host.state", "host", func(h ...string) answer {
			return w.do("PUT", host+"/status", w.host, status(1, api.Idle, func(s *api.Status) {
				s.Instance, s.BootID, s.Machine = m.instance, m.boot, m.machine
			}), h...)
		}},
		{"host.held", "op", func(h ...string) answer {
			return w.do("PATCH", host, w.op, map[string]any{"hold": map[string]any{"reason": "x"}}, h...)
		}},
		{"host.unheld", "op", func(h ...string) answer { return w.do("PATCH", host, w.op, map[string]any{"unhold": true}, h...) }},
		{"host.labelled", "op", func(h ...string) answer {
			return w.do("PATCH", host, w.op, map[string]any{"labels": map[string]string{"a": "b"}}, h...)
		}},
		{"pin.set", "op", func(h ...string) answer {
			return w.do("PUT", "/api/v1/pins/p", w.op, map[string]any{"channel": "web", "seq": 1, "reason": "x"}, h...)
		}},
		{"pin.removed", "op", func(h ...string) answer { return w.do("DELETE", "/api/v1/pins/p", w.op, nil, h...) }},
		{"host.identity", "host", func(h ...string) answer {
			return w.do("GET", host+"/desired"+w.machine("web-1", "b", "boot-b").query(), w.host, nil, h...)
		}},
		{"host.approved", "op", func(h ...string) answer {
			return w.do("POST", host+"/approve", w.op, map[string]string{"instance": m.instance}, h...)
		}},
		{"host.retry", "op", func(h ...string) answer { return w.do("POST", host+"/retry", w.op, map[string]int{"seq": 1}, h...) }},
		{"host.removed", "op", func(h ...string) answer { return w.do("DELETE", host, w.op, nil, h...) }},
		{"channel.deleted", "ci", func(h ...string) answer {
			return w.do("DELETE", "/api/v1/channels/web", w.ci, nil, append(h, "If-Match", `"1"`)...)
		}},
		{"access.denied", "host", func(h ...string) answer { return w.do("DELETE", host, w.host, nil, h...) }},
	} {
		id := "r-" + c.kind
		a := c.do("X-Request-Id", id)
		list := w.events(c.kind)
		if len(list) == 0 {
			t.Errorf("%s: no event, and the answer is %s", c.kind, a)
			continue
		}
		e := list[len(list)-1]
		if e.Actor == nil || e.Actor.Credential != "token" || e.Actor.Name != c.name || len(e.Actor.Token) != 10 || e.Actor.Address != "127.0.0.1" || e.Request != id {
			t.Errorf("%s: %+v, %+v", c.kind, e, e.Actor)
		}
	}
	// A join is the join token's.
	if e := w.events("host.joined")[0]; e.Actor == nil || e.Actor.Name != "rack" {
		t.Errorf("%+v", e)
	}
	for who, want := range map[string]int{"rack": 1, "ci": 2, "*i": 2, "nobody": 0, "127.0.0.1": len(w.eventsBy("")), "10.*": 0} {
		if n := len(w.eventsBy(who)); n != want {
			t.Errorf("%s did %d things, not %d", who, n, want)
		}
	}
	w.must(w.do("GET", "/api/v1/events?who="+strings.Repeat("x", 300), w.op, nil), 400, api.BadRequest)
}

// TestStrangersFillNoLog: what those without a good token are refused is in no line of the audit
// log, whatever they send; what a token of this server is refused is, once.
func TestStrangersFillNoLog(t *testing.T) {
	w := newWorld(t)
	other := newWorld(t).token("other", "admin")
	for _, token := range []string{"", "x", other, strings.Repeat("x", 3000)} {
		for range 3 {
			w.do("DELETE", "/api/v1/hosts/web-1", token, nil)
		}
	}
	if list := w.eventsBy(""); len(list) != 0 {
		t.Fatalf("%+v", list)
	}
	if _, err := w.tokens.Revoke(t.Context(), "ci", w.now()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.must(w.do("DELETE", "/api/v1/hosts/web-1", w.ci, nil), 401, api.Unauthorized)
	}
	list := w.eventsBy("ci")
	if len(list) != 1 || list[0].Kind != "access.denied" || !strings.Contains(list[0].Text, `the token "ci" was revoked`) || list[0].Data["route"] != "host-delete" {
		t.Errorf("%+v", list)
	}
}

// TestNoSecretInTheLog: a token, in whatever a request has room for, is in no event.
func TestNoSecretInTheLog(t *testing.T) {
	w := newWorld(t)
	w.must(w.report(status(1, api.Idle)), 204, "")
	secret := w.admin
	host := "/api/v1/hosts/web-1"
	h := []string{"X-Request-Id", secret, "User-Agent", secret, "X-Forwarded-For", secret, "Referer", secret}
	head := w.head(1)
	head.Meta = map[string]string{"by": secret, "url": "https://ci:" + secret + "@git.example.org/a"}
	w.must(w.promoteAs(w.ci, 0, w.release(head, w.entry("*", w.system("a"))), h...), 200, "")
	w.do("PATCH", host, w.op, map[string]any{"hold": map[string]any{"reason": secret, "by": secret}, "labels": map[string]string{secret: secret, "a": secret}}, h...)
	w.do("PATCH", host, w.op, map[string]any{"hold": map[string]any{"reason": secret}}, h...)
	w.do("PUT", "/api/v1/pins/p", w.op, map[string]any{"channel": "web", "seq": 1, "reason": secret}, h...)
	w.do("DELETE", "/api/v1/hosts/"+secret, w.op, nil, h...)
	w.do("DELETE", host+"?channel="+secret, w.host, nil, h...)
	w.must(w.report(status(2, api.Failed, func(s *api.Status) {
		s.Error, s.Attempt, s.Agent, s.Machine = secret, secret, secret, secret
	})), 204, "")
	body := w.do("GET", "/api/v1/events", w.op, nil).body
	part := secret[len("nwt_")+11:]
	if strings.Contains(body, part) || !strings.Contains(body, "host.held") || !strings.Contains(body, "host.state") {
		t.Errorf("the log is %s", body)
	}
	for _, e := range w.events("channel.promoted") {
		if e.Data["by"] != secret[:len("nwt_")+11]+"…" {
			t.Errorf("%+v", e)
		}
	}
}

// TestParkedSaysItsRequest: so does a poll that was answered later, be it outside of net/http.
func TestParkedSaysItsRequest(t *testing.T) {
	w := newWorld(t)
	w.promote(1, w.entry("*", w.system("a")))
	c := w.wire()
	c.send(fmt.Sprintf("GET /api/v1/events?since=2 HTTP/1.1\r\nHost: a\r\nX-Request-Id: poll-7\r\nPrefer: wait=60\r\nAuthorization: Bearer %s\r\n\r\n", w.op))
	w.becomes("the poll parks off net/http", func() bool { parked, _ := w.off(); return parked == 1 })
	w.promote(2, w.entry("*", w.system("b")))
	if a := c.receive(); a.status != http.StatusOK || a.header.Get("X-Request-Id") != "poll-7" {
		t.Errorf("%s %v", a, a.header)
	}
}
