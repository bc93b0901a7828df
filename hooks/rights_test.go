package hooks

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/host"
	"narwharf/signing"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
	"narwharf/signing/access/shortlived"
)

// TestPromoteTargets: who may change some targets changes those, and nothing that all hosts share.
func TestPromoteTargets(t *testing.T) {
	w := newWorld(t)
	a, b := w.system("a"), w.system("b")
	one, test := w.token("one", "promote:web/web-1"), w.token("test", "promote:web/web-*:test")
	entry := func(target, system string, action signing.Action) signing.Entry {
		e := w.entry(target, a)
		if system == "b" {
			e = w.entry(target, b)
		}
		e.Action = action
		return e
	}
	was := []signing.Entry{entry("db-1", "a", signing.Auto), entry("web-1", "a", signing.Auto), entry("web-2", "a", signing.Auto)}
	w.must(w.promoteAs(one, 0, w.release(w.head(1), was...)), 403, api.Forbidden, "this needs the scope promote:web;", "narwharf token new --scope promote:web")
	w.promote(1, was...)

	with := func(change ...signing.Entry) []signing.Entry {
		next := append([]signing.Entry(nil), was...)
		for _, e := range change {
			for i := range next {
				if next[i].Target == e.Target {
					next[i] = e
				}
			}
		}
		return next
	}
	order, expires := int64(7), time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	for what, c := range map[string]struct {
		token   string
		entries []signing.Entry
		head    func(*signing.Head)
		says    string
	}{
		"another target":              {one, with(entry("web-2", "b", signing.Auto)), nil, "promote:web/web-2"},
		"its own and another":         {one, with(entry("web-1", "b", signing.Auto), entry("db-1", "b", signing.Auto)), nil, "promote:web/db-1"},
		"an action of another":        {one, with(entry("web-2", "a", signing.Boot)), nil, "promote:web/web-2"},
		"a new target":                {one, append(with(), entry("web-3", "a", signing.Auto)), nil, "promote:web/web-3"},
		"a target less":               {one, with()[1:], nil, "promote:web/db-1"},
		"one for all":                 {one, []signing.Entry{entry("*", "a", signing.Auto)}, nil, "promote:web/*"},
		"not as a test":               {test, with(entry("web-1", "b", signing.Auto)), nil, "promote:web/web-1;"},
		"a test of another":           {test, with(entry("db-1", "b", signing.Test)), nil, "promote:web/db-1:test"},
		"a target less for who tests": {test, with()[:2], nil, "promote:web/web-2;"},
		"another origin":              {one, with(entry("web-1", "b", signing.Auto)), func(h *signing.Head) { h.Origin = "other.example/web" }, "origin"},
		"a rollback":                  {one, with(entry("web-1", "b", signing.Auto)), func(h *signing.Head) { h.Rollback = true }, "rollback"},
		"an order":                    {one, with(entry("web-1", "b", signing.Auto)), func(h *signing.Head) { h.Order = &order }, "--order"},
		"an end":                      {one, with(entry("web-1", "b", signing.Auto)), func(h *signing.Head) { h.Expires = &expires }, "--expires"},
	} {
		h := w.head(2)
		kind, status := api.Forbidden, 403
		if c.head != nil {
			c.head(&h)
		}
		if c.says == "origin" {
			kind, status = api.Invalid, 422
		}
		t.Log(what)
		w.must(w.promoteAs(c.token, 1, w.release(h, c.entries...)), status, kind, c.says)
	}
	w.must(w.do("DELETE", "/api/v1/channels/web", one, nil, "If-Match", `"1"`), 403, api.Forbidden, "this needs the scope promote:web;")
	body := api.Promotion{Release: *w.release(w.head(2), was...), Keys: []string{w.key.Public().String(), "other-1:" + strings.Repeat("A", 43) + "="}, Threshold: 1}
	w.must(w.do("PUT", "/api/v1/channels/web", one, body, "If-Match", `"1"`), 403, api.Forbidden)

	w.must(w.promoteAs(one, 1, w.release(w.head(2), with(entry("web-1", "b", signing.Auto))...)), 200, "")
	was = with(entry("web-1", "b", signing.Auto))
	w.must(w.promoteAs(test, 2, w.release(w.head(3), with(entry("web-2", "b", signing.Test))...)), 200, "")
	was = with(entry("web-2", "b", signing.Test))
	same := w.release(w.head(3), was...)
	w.must(w.promoteAs(test, 3, same), 200, "") // said again: there is nothing that it would change
	// What it was built on is not the head any more: somebody else was first.
	w.must(w.promoteAs(one, 2, w.release(w.head(4), with(entry("web-1", "a", signing.Auto))...)), 412, api.RaceLost)
	w.must(w.promoteAs(one, 3, w.release(w.head(4), with(entry("web-1", "a", signing.Auto))...), "Prefer", "x"), 200, "")
}

// TestListsAreFiltered: who may look at some channels is shown what is of those.
func TestListsAreFiltered(t *testing.T) {
	w := newWorld(t)
	w.promote(1, w.entry("*", w.system("a")))
	all := w.token("all", "follow:*")
	for host, channel := range map[string]string{"web-1": "web", "web-2": "web", "db-1": "db"} {
		w.must(w.do("PUT", "/api/v1/hosts/"+host+"/status", all, status(1, api.Idle, func(s *api.Status) { s.Channel, s.Target = channel, host })), 204, "")
	}
	w.must(w.do("PATCH", "/api/v1/hosts/db-1", w.op, map[string]any{"hold": map[string]string{"reason": "a test"}}), 200, "")
	w.must(w.do("PATCH", "/api/v1/hosts/web-1", w.op, map[string]any{"hold": map[string]string{"reason": "a test"}}), 200, "")
	for scopes, want := range map[string]string{
		"read:web": "web-1 web-2", "read:db": "db-1", "read:*": "db-1 web-1 web-2", "operate:web": "web-1 web-2", "operate": "db-1 web-1 web-2",
		"promote:db": "db-1", "promote:web/web-1": "web-1 web-2", "read:none": "", "read:d*,read:web": "db-1 web-1 web-2", "admin": "db-1 web-1 web-2",
	} {
		token := w.token("t"+strings.NewReplacer(":", "-", "*", "x", "/", "-", ",", "-").Replace(scopes), strings.Split(scopes, ",")...)
		list := decode[struct{ Hosts []api.Host }](t, w.must(w.do("GET", "/api/v1/hosts", token, nil), 200, ""))
		var names []string
		for _, h := range list.Hosts {
			names = append(names, h.Host)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s sees %s, want %s", scopes, got, want)
		}
		events := decode[struct{ Events []api.Event }](t, w.must(w.do("GET", "/api/v1/events", token, nil), 200, ""))
		for _, e := range events.Events {
			if e.Host != "" && !strings.Contains(want, e.Host) || e.Channel == "web" && !strings.Contains(want, "web") {
				t.Errorf("%s is shown %+v", scopes, e)
			}
		}
		held := strings.Count(w.do("GET", "/api/v1/events", token, nil).body, `"host.held"`)
		if want := strings.Count(want, "-1"); held != want {
			t.Errorf("%s is shown %d of the holds, want %d", scopes, held, want)
		}
	}
	// Who has no right of the kind learns nothing, who has one for others which is missing.
	pull, web := w.token("pull", "pull"), w.token("web", "operate:web")
	for _, name := range []string{"db-1", "none"} {
		w.must(w.do("GET", "/api/v1/hosts/"+name, pull, nil), 403, api.Forbidden, "this needs the scope read:*")
	}
	w.must(w.do("PATCH", "/api/v1/hosts/db-1", web, map[string]any{"unhold": true}), 403, api.Forbidden, "this needs the scope operate:db")
	w.must(w.do("DELETE", "/api/v1/hosts/db-1", web, nil), 403, api.Forbidden, "this needs the scope operate:db")
	w.must(w.do("GET", "/api/v1/hosts/none", web, nil), 404, api.NotFound)
	w.must(w.do("PATCH", "/api/v1/hosts/web-1", web, map[string]any{"unhold": true}), 200, "")
	for _, path := range []string{"/api/v1/pins", "/api/v1/why?path=x", "/api/v1/gc"} {
		w.must(w.do("GET", path, web, nil), 403, api.Forbidden, "this needs the scope operate;")
	}
}

// TestHostOfAnotherChannelMeanwhile: whether an operator may act on a host is read again in the
// transaction in which he does.
func TestHostOfAnotherChannelMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.must(w.report(status(1, api.Idle)), 204, "")
	who := host.Caller{Name: "op", May: func(channel string) error {
		if channel != "web" {
			return api.Errorf(api.Forbidden, "not %s", channel)
		}
		return nil
	}}
	patch := &host.Patch{Hold: &api.Hold{Reason: "a test"}}
	if err := w.s.hosts.Patch(t.Context(), who, "web-1", patch); err != nil {
		t.Fatal(err)
	}
	w.must(w.do("PUT", "/api/v1/hosts/web-1/status", w.token("all", "follow:*"), status(2, api.Idle, func(s *api.Status) { s.Channel = "db" })), 204, "")
	for what, do := range map[string]func() error{
		"patch":   func() error { return w.s.hosts.Patch(t.Context(), who, "web-1", patch) },
		"remove":  func() error { return w.s.Fleet.Remove(t.Context(), who, "web-1") },
		"approve": func() error { return w.s.hosts.Approve(t.Context(), who, "web-1", "web", strings.Repeat("a", 32)) },
	} {
		if err := do(); err == nil || err.Error() != "not db" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestChannelBeforeTheReport: a long report of another channel is not read to its end.
func TestChannelBeforeTheReport(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("x", 4<<20)
	for body, want := range map[string]struct {
		status int
		kind   api.Kind
	}{
		`{"channel":"db","error":"` + long + `"}`:  {403, api.Forbidden},
		`{"error":"` + long + `","channel":"web"}`: {413, api.TooLarge},
		`{"channel":7,"error":"` + long + `"}`:     {400, api.BadRequest},
		// Said twice: the last one counts, and is checked as well.
		`{"channel":"web","start_id":1,"counter":1,"target":"web-1","boot_id":"b","state":"idle","channel":"db"}`:                        {403, api.Forbidden},
		`{"channel":"web","start_id":1,"counter":1,"target":"web-1","boot_id":"b","state":"idle","error":"` + long + `","channel":"db"}`: {403, api.Forbidden},
	} {
		a := w.do("PUT", "/api/v1/hosts/web-1/status", w.host, []byte(body))
		if a.status != want.status || a.err.Kind != want.kind {
			t.Errorf("%.40s…: %s, want %d %s", body, a, want.status, want.kind)
		}
	}
}

// lookups counts how often the state is asked about tokens.
type lookups struct {
	*access.Tokens
	n atomic.Int64
}

func (l *lookups) Lookup(ctx context.Context, id string) (access.Token, error) {
	l.n.Add(1)
	return l.Tokens.Lookup(ctx, id)
}

// park has a host poll, on a wire of its own or within net/http.
func (w *world) park(token, host string, detached bool) (answered chan answer) {
	answered = make(chan answer, 1)
	etag := w.must(w.do("GET", "/api/v1/hosts/"+host+"/desired?channel=web", token, nil), 200, "").header.Get("Etag")
	before := w.s.shared.Polls.Count()
	method := "GET"
	if !detached {
		method = "HEAD" // which is never taken off net/http
	}
	go func() {
		a, err := w.try(method, "/api/v1/hosts/"+host+"/desired?channel=web", token, nil, "If-None-Match", etag, "Prefer", "wait=60")
		if err != nil {
			a.body = err.Error()
		}
		answered <- a
	}()
	w.becomes("the poll parks", func() bool {
		n := w.s.shared.Polls.Count()
		return n.Waiting > before.Waiting && (!detached || n.Detached > before.Detached)
	})
	return answered
}

// TestRevokedEndsPolls: who is parked goes within a second of the revocation of his token, without
// anybody asking the state about all the others.
func TestRevokedEndsPolls(t *testing.T) {
	w := newWorld(t)
	w.promote(1, w.entry("*", w.system("a")))
	count := &lookups{Tokens: w.tokens}
	w.s.access = access.NewAuthenticator(access.Options{Tokens: count, Anonymous: scope.Set{{Kind: scope.Pull}}})
	const others = 200
	for i := range others {
		name := fmt.Sprintf("other-%d", i)
		w.park(w.token(name, "follow:web"), name, true)
	}
	for _, detached := range []bool{true, false} {
		name := fmt.Sprintf("gone-%t", detached)
		answered := w.park(w.token(name, "follow:web"), name, detached)
		asked, woken := count.n.Load(), w.s.shared.Polls.Count().Woken
		if _, err := w.tokens.Revoke(t.Context(), name, time.Now()); err != nil {
			t.Fatal(err)
		}
		select {
		case a := <-answered:
			if a.status != http.StatusUnauthorized || detached && !strings.Contains(a.body, `was revoked on`) {
				t.Errorf("detached %t: %s", detached, a)
			}
		case <-time.After(time.Second):
			t.Fatalf("detached %t: a poll goes on after its token was revoked", detached)
		}
		if n := count.n.Load() - asked; n > 2 {
			t.Errorf("detached %t: %d lookups for one revocation", detached, n)
		}
		if n := w.s.shared.Polls.Count().Woken - woken; n != 1 {
			t.Errorf("detached %t: %d polls woke", detached, n)
		}
		if n := w.s.shared.Polls.Count().Waiting; n != others {
			t.Errorf("detached %t: %d polls wait, want %d", detached, n, others)
		}
		w.must(w.do("GET", "/api/v1/hosts/"+name+"/desired?channel=web", "", nil), 401, api.Unauthorized)
	}
}

// TestRevokedShortTokenEndsPoll: so does a short-lived one.
func TestRevokedShortTokenEndsPoll(t *testing.T) {
	w := newWorld(t)
	short, err := shortlived.Open(w.db, w.log)
	if err != nil {
		t.Fatal(err)
	}
	w.halt()
	w.serve(w.db)
	w.s.access = access.NewAuthenticator(access.Options{Tokens: w.tokens, Short: short})
	var secrets []string
	for _, host := range []string{"web-1", "web-2"} {
		g := access.Grant{Kind: "aws", Rule: "asg", Subject: host, Host: host, Owner: host, Scopes: scope.Set{{Kind: scope.Follow, Glob: "web"}}}
		if err := short.Update(t.Context(), func(c shortlived.Change) error {
			secret, _, err := c.Issue(g, time.Now().Add(time.Hour), "")
			secrets = append(secrets, secret)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	gone, stays := w.park(secrets[0], "web-1", true), w.park(secrets[1], "web-2", true)
	if err := short.Update(t.Context(), func(c shortlived.Change) error {
		_, err := c.RevokeHost("web-1", "")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	select {
	case a := <-gone:
		if a.status != http.StatusUnauthorized {
			t.Errorf("%s", a)
		}
	case <-stays:
		t.Error("another's poll ended")
	case <-time.After(time.Second):
		t.Fatal("a poll goes on after its short-lived token was revoked")
	}
}

// TestParkedReaders: other lists and channels end like desired, and what anybody may do goes on.
func TestParkedReaders(t *testing.T) {
	w := newWorld(t)
	w.promote(1, w.entry("*", w.system("a")))
	w.must(w.report(status(1, api.Idle)), 204, "")
	for _, path := range []string{"/api/v1/hosts", "/api/v1/hosts/web-1", "/api/v1/events?since=1000", "/api/v1/channels/web/policy", "/api/v1/channels/web"} {
		name := fmt.Sprintf("reader-%d", len(path))
		token := w.token(name, "read:web")
		etag := w.must(w.do("GET", path, token, nil), 200, "").header.Get("Etag")
		answered := make(chan answer, 1)
		go func() {
			a, _ := w.try("GET", path, token, nil, "If-None-Match", etag, "Prefer", "wait=60")
			answered <- a
		}()
		w.becomes("the poll parks", func() bool { return w.s.shared.Polls.Count().Waiting == 1 })
		if _, err := w.tokens.Revoke(t.Context(), name, time.Now()); err != nil {
			t.Fatal(err)
		}
		if path == "/api/v1/channels/web" { // anonymous may
			time.Sleep(50 * time.Millisecond)
			if n := w.s.shared.Polls.Count().Waiting; n != 1 {
				t.Errorf("%s: %d wait", path, n)
			}
			continue
		}
		select {
		case a := <-answered:
			if a.status != http.StatusUnauthorized {
				t.Errorf("%s: %s", path, a)
			}
		case <-time.After(time.Second):
			t.Errorf("%s goes on after the token was revoked", path)
		}
	}
}

// TestExpiryEndsPolls: a poll does not wait beyond the end of its token.
func TestExpiryEndsPolls(t *testing.T) {
	w := newWorld(t)
	secret, tok, err := access.New("short", "", scope.Set{{Kind: scope.Follow, Glob: "web"}}, time.Now(), time.Now().Add(3*time.Second))
	if err == nil {
		err = w.tokens.Add(t.Context(), tok)
	}
	if err != nil {
		t.Fatal(err)
	}
	answered := w.park(secret, "web-1", true)
	select {
	case a := <-answered:
		if a.status != http.StatusNotModified {
			t.Errorf("%s", a)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a poll goes on after the end of its token")
	}
	w.becomes("the token is none", func() bool {
		return w.do("GET", "/api/v1/hosts/web-1/desired?channel=web", secret, nil).status == http.StatusUnauthorized
	})
}

// TestRemovedHostEndsItsPoll: the token that a join made ends with its host.
func TestRemovedHostEndsItsPoll(t *testing.T) {
	w := newWorld(t)
	w.promote(1, w.entry("*", w.system("a")))
	join := w.joinToken("j", "web-7", 1)
	joined := decode[api.Joined](t, w.must(w.do("POST", "/api/v1/join", join, map[string]string{"channel": "web", "host": "web-7", "instance": strings.Repeat("a", 32)}), 201, ""))
	answered := w.park(joined.Token, "web-7", true)
	w.must(w.do("DELETE", "/api/v1/hosts/web-7", w.op, nil), 204, "")
	select {
	case a := <-answered:
		if a.status != http.StatusUnauthorized {
			t.Errorf("%s", a)
		}
	case <-time.After(time.Second):
		t.Fatal("a poll goes on after its host was removed")
	}
}
