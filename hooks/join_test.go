package hooks

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/signing/access"
)

// joinToken makes a join token for web.
func (w *world) joinToken(name, host string, uses int) string {
	w.t.Helper()
	secret, tok, err := access.NewJoin(name, "web", host, uses, time.Now(), time.Now().Add(time.Hour))
	if err == nil {
		err = w.tokens.Add(context.Background(), tok)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return secret
}

// join asks for the host's token.
func (m *machine) join(token string) answer {
	m.w.t.Helper()
	return m.w.do("POST", "/api/v1/join", token, api.Join{Host: m.host, Channel: "web", Instance: m.instance, Machine: m.machine})
}

// joins takes the token that it gets.
func (m *machine) joins(token string) string {
	m.w.t.Helper()
	j := decode[api.Joined](m.w.t, m.w.must(m.join(token), 201, ""))
	if j.Host != m.host || j.Channel != "web" {
		m.w.t.Errorf("joined %+v", j)
	}
	m.token = j.Token
	return j.Token
}

func TestJoin(t *testing.T) {
	w := newWorld(t)
	a, b := w.machine("web-1", "a", "boot-a"), w.machine("web-2", "b", "boot-b")
	secret := w.joinToken("rack-7", "", 1)
	first := a.joins(secret)
	e := w.wantEvents("host.joined", 1, false)[0]
	if e.Host != "web-1" || e.Channel != "web" || e.By != "rack-7" || e.Text != "web-1 joined web by the join token rack-7" || e.Data["instance"] != a.instance {
		t.Errorf("%+v", e)
	}
	// It is there before its first report, also after a restart.
	w.restart()
	if h := w.show("web-1"); h.Identity == nil || h.Identity.Instance != a.instance || h.Identity.Token != "host-web-1" || h.Status != nil {
		t.Errorf("%+v", h)
	}
	if list := decode[struct{ Hosts []api.Host }](t, w.do("GET", "/api/v1/hosts", w.op, nil)).Hosts; len(list) != 1 || list[0].Host != "web-1" {
		t.Errorf("%+v", list)
	}

	// The answer was lost: the same machine gets another token, and the first is void.
	second := a.joins(secret)
	a.taken()
	a.token = first
	w.must(a.poll(), 401, api.Unauthorized, "was revoked")
	a.token = second
	a.taken()
	if h := w.show("web-1"); h.By != "host-web-1" || !h.Online {
		t.Errorf("%+v", h)
	}

	// It is spent for every other machine, and does nothing else.
	w.must(b.join(secret), 403, api.Forbidden, `the token \"rack-7\" was used by web-1 on`, "make another with narwharf token new --join web")
	for _, token := range []string{secret, second} {
		m := *a
		m.token = token
		m.host = "web-9"
		w.must(m.poll(), 403, api.Forbidden)
	}
	m := *a
	m.token = secret
	w.must(m.poll(), 403, api.Forbidden, "follow:web", "join:web only")
}

func TestJoinRefusals(t *testing.T) {
	w := newWorld(t)
	a := w.machine("web-1", "a", "boot-a")
	secret := w.joinToken("rack-7", "web-1", 1)
	w.must(a.join(""), 401, api.Unauthorized, "this needs a join token of web")
	w.must(a.join(w.host), 403, api.Forbidden, "this needs a join token of web")
	w.must(a.join(w.admin), 403, api.Forbidden, "is no join token")
	ask := func(j api.Join) answer { return w.do("POST", "/api/v1/join", secret, j) }
	w.must(ask(api.Join{Host: "web-1", Channel: "prod", Instance: a.instance}), 403, api.Forbidden, "this needs a join token of prod")
	w.must(ask(api.Join{Host: "-x", Channel: "web", Instance: a.instance}), 400, api.BadRequest)
	w.must(ask(api.Join{Host: "web-1", Channel: "Web", Instance: a.instance}), 400, api.BadRequest)
	w.must(ask(api.Join{Host: "web-1", Channel: "web", Instance: "x"}), 400, api.BadRequest)
	w.must(ask(api.Join{Host: "web-1", Channel: "web"}), 400, api.BadRequest, "instance is missing")
	w.must(ask(api.Join{Host: "web-2", Channel: "web", Instance: a.instance}), 403, api.Forbidden, "is for the host web-1 and this is web-2")

	// Nothing of that was a use.
	a.joins(secret)
	w.wantEvents("host.joined", 1, false)

	expired, tok, err := access.NewJoin("old", "web", "", 1, time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	if err == nil {
		err = w.tokens.Add(context.Background(), tok)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.must(a.join(expired), 401, api.Unauthorized, `the token \"old\" expired on`, "narwharf token new --join web")
	taken := w.machine("web-3", "c", "boot-c")
	w.token("host-web-3", "pull")
	w.must(taken.join(w.joinToken("rack-8", "", 1)), 409, api.IdentityConflict, "narwharf token revoke host-web-3")
}

// A token for whatever host does not take a name from another machine; one for
// this very host does, since that is what it was made for.
func TestJoinWhereAnotherHasTheName(t *testing.T) {
	w := newWorld(t)
	a, b := w.machine("web-1", "a", "boot-a"), w.machine("web-1", "b", "boot-b")
	a.joins(w.joinToken("rack-7", "", 1))
	a.taken()
	open := w.joinToken("rack-8", "", 1)
	w.must(b.join(open), 409, api.IdentityConflict, "narwharf host approve web-1 --instance "+b.instance)
	w.wantEvents("host.identity", 1, true)
	a.taken() // its token is as it was
	if h := w.show("web-1"); len(h.Conflict) != 1 || h.Conflict[0].Instance != b.instance {
		t.Errorf("%+v", h.Conflict)
	}

	// Reinstalled, with a token for it.
	b.joins(w.joinToken("reinstall", "web-1", 1))
	w.restart()
	b.taken()
	h := w.show("web-1")
	if h.Identity.Instance != b.instance || len(h.Conflict) != 0 || h.Status.Current != "/nix/store/boot-b" {
		t.Errorf("%+v", h)
	}
	if e := w.wantEvents("host.joined", 2, false)[1]; !strings.Contains(e.Text, "in place of the machine that had the name (instance "+a.instance) {
		t.Errorf("%+v", e)
	}
	w.must(a.report(), 401, api.Unauthorized, "was revoked")
	w.wantEvents("host.identity", 1, true)

	// After an approve, too, the first machine's token is void, and the token of
	// the one that was approved is not.
	c := w.machine("web-1", "c", "boot-c")
	c.token = w.host
	c.refused()
	w.must(w.approve("web-1", c.instance), 200, "")
	c.taken()
	w.must(b.report(), 401, api.Unauthorized, "was revoked")
}

func TestRemoveRevokesTheToken(t *testing.T) {
	w := newWorld(t)
	a := w.machine("web-1", "a", "boot-a")
	a.joins(w.joinToken("rack-7", "", 1))
	a.taken()
	w.must(w.do("DELETE", "/api/v1/hosts/web-1", w.op, nil), 204, "")
	w.must(a.report(), 401, api.Unauthorized, "was revoked")
	w.must(w.do("GET", "/api/v1/hosts/web-1", w.op, nil), 404, api.NotFound)
	if list := decode[struct{ Hosts []api.Host }](t, w.do("GET", "/api/v1/hosts", w.op, nil)).Hosts; len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

// halfStore is a token store of which one thing fails.
type halfStore struct {
	access.Store
	fail error
}

func (h *halfStore) Redeem(ctx context.Context, id, instance string, fresh access.Token) error {
	if h.fail != nil {
		return h.fail
	}
	return h.Store.Redeem(ctx, id, instance, fresh)
}

// If a write fails in the middle, the host asks again and gets its token.
func TestJoinThatFails(t *testing.T) {
	w := newWorld(t)
	a := w.machine("web-1", "a", "boot-a")
	secret := w.joinToken("rack-7", "", 1)
	half := &halfStore{w.tokens, errors.New("disk on fire")}
	w.joins = half
	w.restart()
	w.must(a.join(secret), 500, api.Internal)
	half.fail = nil
	w.wantEvents("host.joined", 0, false)

	// The token is made, and then the table of owners cannot be written.
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	w.must(a.join(secret), 500, api.Internal)
	w.http.Close() // what stop does, without the database
	w.s.Stop()
	_ = w.parking.Close()
	<-w.served
	w.start()
	a.joins(secret)
	a.taken()
	w.wantEvents("host.joined", 1, false)
}

// No secret is in the log, the events, or the database.
func TestJoinKeepsSecrets(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	w.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.restart()
	a := w.machine("web-1", "a", "boot-a")
	join := w.joinToken("rack-7", "", 1)
	own := a.joins(join)
	a.taken()
	b := w.machine("web-1", "b", "boot-b")
	b.token = own
	b.refused()
	w.must(b.join(join), 409, api.IdentityConflict)
	text, err := os.ReadFile(w.path)
	if err != nil {
		t.Fatal(err)
	}
	events := w.do("GET", "/api/v1/events", w.op, nil).body + w.do("GET", "/api/v1/hosts", w.op, nil).body
	for _, secret := range []string{join, own} {
		part := secret[len("nwt_0123456789_"):]
		if strings.Contains(log.String()+events, part) || bytes.Contains(text, []byte(part)) {
			t.Error("a secret is where it does not belong")
		}
	}
}

// What an instance is, is no secret. Whoever holds a join token for hosts of any
// name becomes a host by it, and takes the place of none.
func TestJoinTakesNoPlace(t *testing.T) {
	refused := func(t *testing.T, a answer, words string) {
		t.Helper()
		if a.status != 409 || !strings.Contains(string(a.body), words) {
			t.Errorf("%d %s, want 409 with %q", a.status, a.body, words)
		}
	}
	t.Run("of a host that joined", func(t *testing.T) {
		w := newWorld(t)
		victim, thief := w.machine("web-1", "a", "boot-a"), w.machine("web-1", "b", "boot-b")
		victim.joins(w.joinToken("victim", "web-1", 1))
		victim.taken()
		rack := w.joinToken("rack", "", 10)
		a := thief.join(rack)
		refused(t, a, "host approve web-1")
		if strings.Contains(string(a.body), victim.instance) {
			t.Errorf("the owner's instance is told: %s", a.body)
		}
		thief.instance = victim.instance
		refused(t, thief.join(rack), "token new --join web --host web-1")
		victim.taken() // by its own token
	})
	t.Run("by a token of another channel", func(t *testing.T) {
		w := newWorld(t)
		victim := w.machine("web-1", "a", "boot-a")
		victim.joins(w.joinToken("victim", "web-1", 1))
		now := time.Now()
		secret, token, err := access.NewJoin("dev", "dev", "", 5, now, now.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.tokens.Add(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		refused(t, w.do("POST", "/api/v1/join", secret, api.Join{Host: "web-1", Channel: "dev", Instance: victim.instance}), "is here already")
		victim.taken()
	})
	t.Run("of an older agent", func(t *testing.T) {
		w := newWorld(t)
		victim, thief := w.machine("web-1", "", "boot-a"), w.machine("web-1", "b", "boot-b")
		victim.taken()
		refused(t, thief.join(w.joinToken("rack", "", 10)), "host approve web-1")
		victim.taken()
	})
	t.Run("but of one that is removed", func(t *testing.T) {
		w := newWorld(t)
		gone, next := w.machine("web-1", "a", "boot-a"), w.machine("web-1", "b", "boot-b")
		rack := w.joinToken("rack", "", 10)
		gone.joins(rack)
		gone.taken()
		w.must(w.do("DELETE", "/api/v1/hosts/web-1", w.op, nil), 204, "")
		next.joins(rack)
		next.taken()
	})
	t.Run("nor its own, but for an answer that was lost", func(t *testing.T) {
		w := newWorld(t)
		m := w.machine("web-1", "a", "boot-a")
		rack := w.joinToken("rack", "", 10)
		m.joins(rack)
		m.joins(rack)
		m.taken()
		refused(t, m.join(w.joinToken("rack-8", "", 10)), "is here already")
		m.taken()
	})
}
