package access

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/state/memory"
	"narwharf/cache/state/statetest"
	"narwharf/signing/access/scope"
)

const (
	one = "00000000000000000000000000000001" // instances
	two = "00000000000000000000000000000002"
)

func newJoin(t testing.TB, name, host string, uses int) Token {
	t.Helper()
	_, token, err := NewJoin(name, "web", host, uses, noon, noon.Add(2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func newHost(t testing.TB, host string, now time.Time) Token {
	t.Helper()
	_, token, err := NewHost(host, "web", now)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// bothStores runs a test on tokens in memory and in a file.
func bothStores(t *testing.T, test func(*testing.T, Store)) {
	t.Run("memory", func(t *testing.T) { test(t, inMemory(t)) })
	t.Run("each change twice", func(t *testing.T) { test(t, mustOpen(t, statetest.Twice(memory.New(nil)))) })
	t.Run("bolt", func(t *testing.T) {
		test(t, mustOpen(t, openDB(t, filepath.Join(t.TempDir(), "db"))))
	})
}

func TestRedeem(t *testing.T) {
	bothStores(t, func(t *testing.T, s Store) {
		ctx := t.Context()
		join := newJoin(t, "rack-7", "", 2)
		mustAdd(t, s, join)
		first := newHost(t, "web-1", noon)
		if err := s.Redeem(ctx, join.ID, one, first); err != nil {
			t.Fatal(err)
		}
		got, err := s.Lookup(ctx, first.ID)
		if err != nil || got.Name != "host-web-1" || got.Host != "web-1" || got.Scopes.String() != "pull,follow:web" || got.Joined != join.ID || !got.Active(noon.Add(10000*time.Hour)) {
			t.Errorf("the host's token is %+v, %v", got, err)
		}

		// The answer was lost: the same again is no other use.
		second := newHost(t, "web-1", noon.Add(9*time.Minute))
		if err := s.Redeem(ctx, join.ID, one, second); err != nil {
			t.Fatal(err)
		}
		if got, _ := s.Lookup(ctx, first.ID); got.Revoked.IsZero() {
			t.Error("the token whose answer was lost is not revoked")
		}
		if got, _ := s.Lookup(ctx, join.ID); len(got.Used) != 1 || got.Used[0].Token != second.ID || !got.Used[0].At.Equal(noon) {
			t.Errorf("used: %+v", got.Used)
		}

		// Another machine is; and so is the same, later.
		late := newHost(t, "web-1", noon.Add(Patience))
		if err := s.Redeem(ctx, join.ID, one, late); err != nil {
			t.Fatal(err)
		}
		var refused *JoinError
		if err := s.Redeem(ctx, join.ID, two, newHost(t, "web-2", noon)); !errors.As(err, &refused) ||
			err.Error() != `the token "rack-7" was used by 2 hosts, as often as it may be: make another with narwharf token new --join web` {
			t.Errorf("a third use: %v", err)
		}
		if got, _ := s.Lookup(ctx, late.ID); !got.Active(noon.Add(time.Hour)) {
			t.Error("a use that was refused has revoked a token")
		}
		all, err := s.List(ctx)
		if err != nil || len(all) != 4 {
			t.Errorf("there are %d tokens, %v", len(all), err)
		}
		active := 0
		for _, token := range all {
			if token.Host == "web-1" && token.Active(noon) {
				active++
			}
		}
		if active != 1 {
			t.Errorf("web-1 has %d tokens", active)
		}
	})
}

// A machine that repeats without an end does not fill the store.
func TestRedeemRepeatsEnd(t *testing.T) {
	bothStores(t, func(t *testing.T, s Store) {
		join := newJoin(t, "rack-7", "", 1)
		mustAdd(t, s, join)
		for range maxRepeats + 1 {
			if err := s.Redeem(t.Context(), join.ID, one, newHost(t, "web-1", noon)); err != nil {
				t.Fatal(err)
			}
		}
		err := s.Redeem(t.Context(), join.ID, one, newHost(t, "web-1", noon))
		if !errors.As(err, new(*JoinError)) || !strings.Contains(err.Error(), "was used by web-1 100 times") {
			t.Errorf("%v", err)
		}
		if list, err := s.List(t.Context()); err != nil || len(list) != maxRepeats+2 {
			t.Errorf("there are %d tokens, %v", len(list), err)
		}
	})
}

func TestRedeemRefusals(t *testing.T) {
	bothStores(t, func(t *testing.T, s Store) {
		ctx := t.Context()
		bound, revoked, plain := newJoin(t, "bound", "web-1", 1), newJoin(t, "gone", "", 1), newToken(t, "ci", noon, time.Time{}, "push")
		taken := newToken(t, "host-web-3", noon, time.Time{}, "pull")
		free := newJoin(t, "free", "", 1)
		for _, token := range []Token{bound, revoked, plain, taken, free} {
			mustAdd(t, s, token)
		}
		if _, err := s.Revoke(ctx, "gone", noon); err != nil {
			t.Fatal(err)
		}
		var refused *JoinError
		for _, c := range []struct {
			id, host, want string
			now            time.Time
		}{
			{bound.ID, "web-2", `the token "bound" is for the host web-1 and this is web-2: set host in the agent's configuration, or make another with narwharf token new --join web --host web-2`, noon},
			{bound.ID, "web-1", `the token "bound" expired on 2026-03-04 14:00:00 UTC: make another with narwharf token new --join web`, noon.Add(2 * time.Hour)},
			{revoked.ID, "web-1", `the token "gone" was revoked on 2026-03-04 12:00:00 UTC: make another with narwharf token new --join web`, noon},
			{plain.ID, "web-1", `the token "ci" is no join token: make another with narwharf token new --join CHANNEL`, noon},
		} {
			if err := s.Redeem(ctx, c.id, one, newHost(t, c.host, c.now)); !errors.As(err, &refused) || err.Error() != c.want {
				t.Errorf("redeem: %v\nwant %s", err, c.want)
			}
		}
		if err := s.Redeem(ctx, "0123456789", one, newHost(t, "web-1", noon)); !errors.Is(err, ErrNotFound) {
			t.Errorf("an unknown token: %v", err)
		}
		// A name that somebody gave to a token of his own spends no use.
		if err := s.Redeem(ctx, free.ID, one, newHost(t, "web-3", noon)); !errors.Is(err, ErrExists) {
			t.Errorf("a name that is taken: %v", err)
		}
		for _, token := range []Token{bound, free} {
			if got, err := s.Lookup(ctx, token.ID); err != nil || len(got.Used) != 0 {
				t.Errorf("%s was used by what was refused: %+v, %v", token.Name, got.Used, err)
			}
		}
		if err := s.Redeem(ctx, bound.ID, one, newHost(t, "web-1", noon)); err != nil {
			t.Fatal(err)
		}
		if err := s.Redeem(ctx, bound.ID, two, newHost(t, "web-1", noon)); !errors.As(err, &refused) ||
			err.Error() != `the token "bound" was used by web-1 on 2026-03-04 12:00:00 UTC: make another with narwharf token new --join web` {
			t.Errorf("a second use: %v", err)
		}
	})
}

// Of many machines that use one token at once, as many as it has uses win.
func TestRedeemAtOnce(t *testing.T) {
	bothStores(t, func(t *testing.T, s Store) {
		join := newJoin(t, "rack-7", "", 3)
		mustAdd(t, s, join)
		var all sync.WaitGroup
		won := make(chan string, 8)
		for i := range 8 {
			host := fmt.Sprintf("web-%d", i)
			token := newHost(t, host, noon)
			all.Go(func() {
				if err := s.Redeem(t.Context(), join.ID, fmt.Sprintf("%032d", i), token); err == nil {
					won <- token.ID
				} else if !errors.As(err, new(*JoinError)) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if len(won) != 3 {
			t.Errorf("%d hosts have joined by a token of 3 uses", len(won))
		}
		if list, err := s.List(t.Context()); err != nil || len(list) != 4 {
			t.Errorf("there are %d tokens, %v", len(list), err)
		}
	})
}

func TestJoinTokensThatCannotBe(t *testing.T) {
	later := noon.Add(time.Hour)
	make := func(channel, host string, uses int, expires time.Time) error {
		_, _, err := NewJoin("j", channel, host, uses, noon, expires)
		return err
	}
	host := func(host string, words ...string) error {
		_, _, err := New("h", host, scopes(t, words...), noon, later)
		return err
	}
	_, _, plain := New("j", "", scopes(t, "join:web"), noon, later)
	for what, c := range map[string]struct {
		err  error
		want string
	}{
		"by scope":       {plain, "narwharf token new --join CHANNEL makes them"},
		"without end":    {make("web", "", 1, time.Time{}), "has to expire"},
		"no use":         {make("web", "", 0, later), "narwharf token new --join"},
		"uses below 0":   {make("web", "", -1, later), "are not between 1 and 1000"},
		"too many uses":  {make("web", "", 1001, later), "are not between 1 and 1000"},
		"two for one":    {make("web", "web-1", 2, later), "has one use, not 2"},
		"a glob":         {make("web-*", "", 1, later), "for one channel"},
		"no channel":     {make("Web", "", 1, later), "is not one of"},
		"no host":        {make("web", "-x", 1, later), "is not the name of a host"},
		"bound to no":    {host("a b", "pull"), "is not the name of a host"},
		"two in one":     {host("web-1", "pull", "join:web"), "narwharf token new --join"},
		"bound and fine": {host("web-1", "pull", "follow:web"), ""},
	} {
		if (c.err == nil) != (c.want == "") || c.err != nil && !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", what, c.err, c.want)
		}
	}
	// Names are cut, and still differ.
	long := strings.Repeat("a", 126)
	a, b := newHost(t, long+"1", noon), newHost(t, long+"2", noon)
	if a.Name == b.Name || len(a.Name) != maxName || a.Host != long+"1" {
		t.Errorf("names %s and %s", a.Name, b.Name)
	}
}

// A token that is bound to a host acts as no other.
func TestDenyAs(t *testing.T) {
	follow := scope.Scope{Kind: scope.Follow, Glob: "web"}
	s := inMemory(t)
	secret, token, err := NewHost("web-1", "web", noon)
	if err != nil {
		t.Fatal(err)
	}
	mustAdd(t, s, token)
	p := NewAuthenticator(Options{Tokens: s, Anonymous: scopes(t, "follow:*"), Clock: func() time.Time { return noon }}).Identify(request("Bearer " + secret))
	if p.Host != "web-1" || p.Name != "host-web-1" {
		t.Errorf("identified as %+v", p)
	}
	if d := p.DenyAs(follow, "web-1"); d != nil {
		t.Errorf("as itself: %v", d)
	}
	d := p.DenyAs(follow, "web-2")
	if d == nil || d.Status != 403 || d.Error() != `the token "host-web-1" is that of the host web-1 and cannot act as web-2: give this host its old name, or a token of its own with narwharf token new --join web --host web-2` {
		t.Fatalf("as another: %v", d)
	}
	checkDenial(t, d)
	p.Name, p.Host = strings.Repeat("n", 300), strings.Repeat("h", 300)
	checkDenial(t, p.DenyAs(follow, strings.Repeat("x", 300)))
	anyone := Principal{Scopes: scopes(t, "follow:web")}
	if d := anyone.DenyAs(follow, "web-2"); d != nil {
		t.Errorf("an unbound one: %v", d)
	}
	if d := anyone.DenyAs(scope.Scope{Kind: scope.Follow, Glob: "prod"}, "web-2"); d == nil || d.Status != 401 {
		t.Errorf("another channel: %v", d)
	}
	if d := p.Deny(scope.Scope{Kind: scope.Join, Glob: "web"}); d == nil || !strings.Contains(d.Error(), "this needs a join token of web") ||
		!strings.Contains(d.Error(), "make one with narwharf token new --join web") {
		t.Errorf("no join token: %v", d)
	}
}

// A join token reads the cache, for the agent has to come from somewhere; it does
// nothing else.
func TestJoinScope(t *testing.T) {
	have := scope.Set{{Kind: scope.Join, Glob: "web"}}
	for need, want := range map[scope.Scope]bool{
		{Kind: scope.Pull}: true, {Kind: scope.Join, Glob: "web"}: true, {Kind: scope.Join, Glob: "prod"}: false, {Kind: scope.Push}: false, {Kind: scope.Follow, Glob: "web"}: false,
		{Kind: scope.Promote, Glob: "web"}: false, {Kind: scope.Operate}: false, {Kind: scope.Admin}: false,
	} {
		if have.Allows(need) != want {
			t.Errorf("join:web and %s: %t", need, !want)
		}
	}
	if (scope.Set{{Kind: scope.Follow, Glob: "web"}, {Kind: scope.Promote, Glob: "*"}, {Kind: scope.Operate}}).Allows(scope.Scope{Kind: scope.Join, Glob: "web"}) {
		t.Error("others join, too")
	}
}

// What is bound survives a restart, and the format in the field is held.
func TestTokensJoinFormat(t *testing.T) {
	for _, value := range []string{
		`{"v":2,"name":"rack-7","hash":"` + hash64 + `","scopes":["join:web"],"created":"2026-03-04T12:00:00Z","expires":"2026-03-04T13:00:00Z","uses":2,"used":[{"instance":"` + one + `","host":"web-1","token":"0123456780","at":"2026-03-04T12:30:00Z"}]}`,
		`{"v":2,"name":"host-web-1","hash":"` + hash64 + `","scopes":["pull","follow:web"],"created":"2026-03-04T12:00:00Z","host":"web-1","joined":"0123456780"}`,
	} {
		token, err := decodeToken("0123456789", []byte(value))
		if err != nil {
			t.Fatal(err)
		}
		if out, err := encodeToken(token); err != nil || string(out) != value {
			t.Errorf("encode = %s, %v", out, err)
		}
	}
	path := filepath.Join(t.TempDir(), "db")
	db := openDB(t, path)
	s := mustOpen(t, db)
	join := newJoin(t, "rack-7", "", 1)
	mustAdd(t, s, join)
	fresh := newHost(t, "web-1", noon)
	if err := s.Redeem(t.Context(), join.ID, one, fresh); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, openDB(t, path))
	if got, err := s.Lookup(t.Context(), fresh.ID); err != nil || got.Host != "web-1" || got.Joined != join.ID {
		t.Errorf("after a restart: %+v, %v", got, err)
	}
	if err := s.Redeem(t.Context(), join.ID, two, newHost(t, "web-2", noon)); !errors.As(err, new(*JoinError)) {
		t.Errorf("a second use after a restart: %v", err)
	}
}
