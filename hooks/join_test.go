package hooks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"narwharf/cache/state"
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
	return m.w.do("POST", "/api/v1/join?channel=web", token, api.Join{Host: m.host, Channel: "web", Instance: m.instance, Machine: m.machine})
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

// faulty is a state in which one write fails, and with it its transaction.
type faulty struct {
	state.Store
	left *atomic.Int64 // writes up to it
}

func (f faulty) Update(ctx context.Context, locks []string, fn func(tx state.Tx) error) error {
	return f.Store.Update(ctx, locks, func(tx state.Tx) error { return fn(faultyTx{tx, f.left}) })
}

type faultyTx struct {
	state.Tx
	left *atomic.Int64
}

func (f faultyTx) write() error {
	if f.left.Add(-1) == 0 {
		return errors.New("disk on fire")
	}
	return nil
}

func (f faultyTx) Put(bucket, key string, value []byte) error {
	return errors.Join(f.write(), f.Tx.Put(bucket, key, value))
}

func (f faultyTx) Delete(bucket, key string) error {
	return errors.Join(f.write(), f.Tx.Delete(bucket, key))
}

func (f faultyTx) Append(log string, encode func(position uint64) ([]byte, error)) error {
	return errors.Join(f.write(), f.Tx.Append(log, encode))
}

// stored is all that is stored of tokens and hosts, and the events.
func (w *world) stored() string {
	w.t.Helper()
	var all strings.Builder
	for _, bucket := range []string{"tokens", "token-index", "hooks/host", "hooks/owner", "hooks/instance"} {
		err := w.db.Scan(w.t.Context(), bucket, state.Range{}, func(page []state.Entry) error {
			for _, e := range page {
				fmt.Fprintf(&all, "%s %q %s\n", bucket, e.Key, e.Value)
			}
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return all.String() + w.do("GET", "/api/v1/events", w.op, nil).body
}

// TestJoinFailsAtEachWrite: whichever write fails, nothing of a join was done, nor of
// whatever else changes tokens and hosts; and it can be said again.
func TestJoinFailsAtEachWrite(t *testing.T) {
	for name, prepare := range map[string]func(w *world) (ask func() answer, status int){
		"a join": func(w *world) (func() answer, int) {
			a, secret := w.machine("web-1", "a", "boot-a"), w.joinToken("rack", "", 1)
			return func() answer { return a.join(secret) }, 201
		},
		"a join that is repeated": func(w *world) (func() answer, int) {
			a, secret := w.machine("web-1", "a", "boot-a"), w.joinToken("rack", "", 1)
			a.joins(secret)
			a.taken()
			return func() answer { return a.join(secret) }, 201
		},
		"a join in place of another": func(w *world) (func() answer, int) {
			a, b := w.machine("web-1", "a", "boot-a"), w.machine("web-1", "b", "boot-b")
			a.joins(w.joinToken("rack", "", 1))
			a.taken()
			secret := w.joinToken("again", "web-1", 1)
			return func() answer { return b.join(secret) }, 201
		},
		"a join by a name that is taken": func(w *world) (func() answer, int) {
			a, b := w.machine("web-1", "a", "boot-a"), w.machine("web-1", "b", "boot-b")
			a.joins(w.joinToken("rack", "", 1))
			secret := w.joinToken("other", "", 1)
			return func() answer { return b.join(secret) }, 409
		},
		"an approval": func(w *world) (func() answer, int) {
			a, b := w.machine("web-1", "a", "boot-a"), w.machine("web-1", "b", "boot-b")
			a.joins(w.joinToken("rack", "", 1))
			a.taken()
			b.refused()
			return func() answer { return w.approve("web-1", b.instance) }, 200
		},
		"a removal": func(w *world) (func() answer, int) {
			a := w.machine("web-1", "a", "boot-a")
			a.joins(w.joinToken("rack", "", 1))
			a.taken()
			return func() answer { return w.do("DELETE", "/api/v1/hosts/web-1", w.op, nil) }, 204
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.halt()
			left := new(atomic.Int64)
			w.serve(faulty{w.db, left})
			ask, status := prepare(w)
			was := w.stored()
			n := int64(1)
			for ; ; n++ {
				left.Store(n)
				a := ask()
				if left.Load() > 0 {
					w.must(a, status, a.err.Kind)
					break
				}
				w.must(a, 500, api.Internal)
				if is := w.stored(); is != was {
					t.Fatalf("after a fault at write %d there is\n%s\nand was\n%s", n, is, was)
				}
			}
			if n < 3 || w.stored() == was {
				t.Errorf("it has made %d writes", n-1)
			}
		})
	}
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
