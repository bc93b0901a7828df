package shortlived

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/bolt"
	"narwharf/cache/state/memory"
	"narwharf/cache/state/mirror"
	"narwharf/cache/state/statetest"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

var noon = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// clock is a state's, which a test moves.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

// everywhere runs a test over every kind of state.
func everywhere(t *testing.T, test func(t *testing.T, db state.Store, c *clock)) {
	t.Run("memory", func(t *testing.T) {
		c := &clock{noon}
		test(t, memory.New(c.Now), c)
	})
	t.Run("bolt", func(t *testing.T) {
		c := &clock{noon}
		db, err := bolt.Open(filepath.Join(t.TempDir(), "db"), bolt.Options{NoSync: true, Clock: c.Now})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		test(t, db, c)
	})
	t.Run("each change twice", func(t *testing.T) {
		c := &clock{noon}
		test(t, statetest.Twice(memory.New(c.Now)), c)
	})
}

func open(t testing.TB, db state.Store) *Store {
	t.Helper()
	s, err := Open(db, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func grant(change ...func(*access.Grant)) access.Grant {
	g := access.Grant{
		Kind: "oidc", Issuer: "github", Rule: "main", Subject: "repo:o/r:ref:refs/heads/main",
		Scopes: scope.Set{{Kind: scope.Push}}, TTL: time.Hour,
	}
	for _, fn := range change {
		fn(&g)
	}
	return g
}

func ofHostName(name string) func(*access.Grant) {
	return func(g *access.Grant) {
		g.Kind, g.Issuer, g.Rule, g.Subject, g.Host, g.Owner = "ssh", "", "hosts", name, name, "ssh/"+name
		g.Scopes = scope.Set{{Kind: scope.Follow, Glob: "web"}}
	}
}

// issue makes a token, which must work.
func issue(t testing.TB, s *Store, g access.Grant, ends time.Time) (secret string, id string) {
	t.Helper()
	err := s.Update(t.Context(), func(c Change) error {
		is, tok, err := c.Issue(g, ends, "from 192.0.2.1")
		secret, id = is, tok.ID
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return secret, id
}

func update(t testing.TB, s *Store, fn func(c Change) error) {
	t.Helper()
	if err := s.Update(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
	consistent(t, s.state)
}

// wantKnown compares which of some ids are known.
func wantKnown(t testing.TB, s *Store, known map[string]bool) {
	t.Helper()
	for id, want := range known {
		_, g, err := s.Lookup(t.Context(), id)
		if err != nil && !errors.Is(err, ErrNotFound) || (err == nil) != want {
			t.Errorf("Lookup(%s) = %+v, %v; want it known: %v", id, g, err, want)
		}
	}
}

// consistent holds what must be true after every transaction: each token has its entries in the index,
// there are no others, and the counts are right.
func consistent(t testing.TB, db state.Store) {
	t.Helper()
	err := db.View(context.Background(), func(tx state.Reader) error {
		index, counts := map[string]bool{}, map[string]uint64{}
		err := state.Each(tx, tokensBucket, state.Range{}, func(e state.Entry) error {
			is := new(Token)
			if err := json.Unmarshal(e.Value, is); err != nil {
				return err
			}
			is.ID = e.Key
			for _, key := range indexKeys(is) {
				index[key] = true
			}
			counts[countKey(is)]++
			return nil
		})
		entries := map[string]bool{}
		counted := map[string]uint64{}
		err = errors.Join(err, state.Each(tx, indexBucket, state.Range{}, func(e state.Entry) error {
			entries[e.Key] = true
			return nil
		}), state.Each(tx, countBucket, state.Range{}, func(e state.Entry) error {
			counted[e.Key] = state.Uint64(e.Value)
			return nil
		}))
		if !reflect.DeepEqual(index, entries) {
			t.Errorf("the index has %v, want %v", entries, index)
		}
		if !reflect.DeepEqual(counts, counted) {
			t.Errorf("the counts are %v, want %v", counted, counts)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestIssue(t *testing.T) {
	everywhere(t, func(t *testing.T, db state.Store, _ *clock) {
		s := open(t, db)
		g := grant(func(g *access.Grant) { g.Forget, g.Ends = time.Minute, noon.Add(5*time.Minute) })
		secret, id := issue(t, s, g, noon.Add(time.Hour+time.Millisecond))
		if is, err := access.ParseSecret(secret); err != nil || is != id || !strings.HasPrefix(id, "sh0rt") {
			t.Errorf("the secret of %s: %s, %v", id, is, err)
		}
		want := g
		want.Ends = noon.Add(time.Hour)
		for _, s := range []*Store{s, open(t, db)} { // as it was made, and as it is read
			hash, got, err := s.Lookup(t.Context(), id)
			if err != nil || hash != sha256.Sum256([]byte(secret)) || !reflect.DeepEqual(got, want) {
				t.Errorf("Lookup = %x, %+v, %v; want %+v", hash, got, err, want)
			}
			got.Scopes[0] = scope.Scope{Kind: scope.Admin}
			if _, got, _ = s.Lookup(t.Context(), id); !reflect.DeepEqual(got, want) {
				t.Error("Lookup gives its own scopes away")
			}
			list := s.List()
			if len(list) != 1 || list[0].ID != id || list[0].Hash != hash || list[0].Note != "from 192.0.2.1" || !list[0].Created.Equal(noon) || !reflect.DeepEqual(list[0].Grant, want) {
				t.Errorf("List = %+v", list)
			}
		}
		consistent(t, db)
		wantKnown(t, s, map[string]bool{"sh0rt00000": false, "": false})
	})
}

func TestIssueRefuses(t *testing.T) {
	s := open(t, memory.New((&clock{noon}).Now))
	for name, c := range map[string]struct {
		g    access.Grant
		ends time.Time
		note string
	}{
		"no kind":            {g: grant(func(g *access.Grant) { g.Kind = "" })},
		"no rule":            {g: grant(func(g *access.Grant) { g.Rule = "" })},
		"no scopes":          {g: grant(func(g *access.Grant) { g.Scopes = nil })},
		"no such scope":      {g: grant(func(g *access.Grant) { g.Scopes = scope.Set{{}} })},
		"a NUL":              {g: grant(func(g *access.Grant) { g.Subject = "a\x00b" })},
		"two lines":          {g: grant(func(g *access.Grant) { g.Owner = "a\nb" })},
		"no text":            {g: grant(func(g *access.Grant) { g.Host = "\xff" })},
		"a long subject":     {g: grant(func(g *access.Grant) { g.Subject = strings.Repeat("a", 129) })},
		"a negative ttl":     {g: grant(func(g *access.Grant) { g.TTL = -time.Second })},
		"a long note":        {g: grant(), note: strings.Repeat("a", 257)},
		"an end that is now": {g: grant(), ends: noon.Add(999 * time.Millisecond)},
		"no end":             {g: grant(), ends: time.Unix(0, 0)},
		"an end far away":    {g: grant(), ends: noon.Add(32 * 24 * time.Hour)},
	} {
		if c.ends.IsZero() {
			c.ends = noon.Add(time.Hour)
		}
		err := s.Update(t.Context(), func(ch Change) error {
			secret, _, err := ch.Issue(c.g, c.ends, c.note)
			if secret != "" {
				t.Errorf("%s: there is a secret", name)
			}
			return err
		})
		if err == nil || len(err.Error()) > 300 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if list := s.List(); len(list) > 0 {
		t.Errorf("List = %+v", list)
	}
}

// Each way to revoke ends what it is about and nothing else.
func TestRevoke(t *testing.T) {
	everywhere(t, func(t *testing.T, db state.Store, _ *clock) {
		grants := map[string]access.Grant{
			"main":    grant(),
			"other":   grant(func(g *access.Grant) { g.Rule = "mainly" }),
			"foreign": grant(func(g *access.Grant) { g.Issuer = "gitlab" }),
			"session": grant(func(g *access.Grant) { g.Kind, g.Rule, g.Subject = "session", "people", "ann" }),
			"bob":     grant(func(g *access.Grant) { g.Kind, g.Rule, g.Subject = "session", "people", "bob" }),
			"web-1":   grant(ofHostName("web-1")),
			"web-10":  grant(ofHostName("web-10")),
		}
		for name, c := range map[string]struct {
			revoke func(c Change, ids map[string]string) (int, error)
			gone   []string
		}{
			"id": {func(c Change, ids map[string]string) (int, error) {
				is, err := c.Revoke(ids["main"])
				if is.Grant.Rule != "main" || is.ID != ids["main"] {
					t.Errorf("Revoke = %+v", is)
				}
				return 1, err
			}, []string{"main"}},
			"rule":            {func(c Change, _ map[string]string) (int, error) { return c.RevokeRule("github/main") }, []string{"main"}},
			"rule of nobody":  {func(c Change, _ map[string]string) (int, error) { return c.RevokeRule("github/") }, nil},
			"subject":         {func(c Change, _ map[string]string) (int, error) { return c.RevokeSubject("session", "github", "ann") }, []string{"session"}},
			"part of subject": {func(c Change, _ map[string]string) (int, error) { return c.RevokeSubject("session", "github", "an") }, nil},
			"host":            {func(c Change, _ map[string]string) (int, error) { return c.RevokeHost("web-1", "") }, []string{"web-1"}},
			"no host":         {func(c Change, _ map[string]string) (int, error) { return c.RevokeHost("", "") }, nil},
			"but one":         {func(c Change, ids map[string]string) (int, error) { return c.RevokeHost("web-1", ids["web-1"]) }, nil},
			"owner":           {func(c Change, _ map[string]string) (int, error) { return c.RevokeOwner("ssh/web-1", "") }, []string{"web-1"}},
		} {
			s, there := open(t, db), open(t, db)
			ids := map[string]string{}
			known := map[string]bool{}
			for who, g := range grants {
				_, ids[who] = issue(t, s, g, noon.Add(time.Hour))
				known[ids[who]] = true
			}
			var n int
			update(t, s, func(ch Change) (err error) {
				n, err = c.revoke(ch, ids)
				return err
			})
			for _, who := range c.gone {
				known[ids[who]] = false
			}
			if n != len(c.gone) {
				t.Errorf("%s: %d, want %d", name, n, len(c.gone))
			}
			wantKnown(t, s, known)
			wantKnown(t, there, known)
			update(t, s, func(c Change) error {
				for _, id := range ids {
					if _, err := c.Revoke(id); err != nil && !errors.Is(err, ErrNotFound) {
						return err
					}
				}
				return nil
			})
		}
	})
}

// A parked poll is woken by the topic of its token.
func TestTopic(t *testing.T) {
	everywhere(t, func(t *testing.T, db state.Store, _ *clock) {
		s := open(t, db)
		_, id := issue(t, s, grant(), noon.Add(time.Hour))
		heard := make(chan string, 100)
		defer db.Watch(func(topics []string) {
			for _, topic := range topics {
				heard <- topic
			}
		})()
		update(t, s, func(c Change) error {
			_, err := c.RevokeRule("github/main")
			return err
		})
		for {
			select {
			case topic := <-heard:
				if topic == access.Topic(id) {
					return
				}
			case <-time.After(10 * time.Second):
				t.Fatal("nobody was told")
			}
		}
	})
}

// One bearer cannot have more than his share, and takes nobody else's.
func TestBounds(t *testing.T) {
	db := memory.New((&clock{noon}).Now)
	s := open(t, db)
	_, foreign := issue(t, s, grant(func(g *access.Grant) { g.Subject = "another" }), noon.Add(time.Minute))
	_, host := issue(t, s, grant(func(g *access.Grant) { g.Host = "web-1" }), noon.Add(time.Minute))
	_, first := issue(t, s, grant(), noon.Add(2*time.Minute))
	_, second := issue(t, s, grant(), noon.Add(time.Minute)) // it ends before the first
	for range maxOfOne - 2 {
		issue(t, s, grant(), noon.Add(time.Hour))
	}
	wantKnown(t, s, map[string]bool{foreign: true, host: true, first: true, second: true})
	issue(t, s, grant(), noon.Add(time.Hour))
	wantKnown(t, s, map[string]bool{foreign: true, host: true, first: true, second: false})
	consistent(t, db)
	if n := len(s.List()); n != maxOfOne+2 {
		t.Errorf("there are %d", n)
	}
	err := s.Update(t.Context(), func(c Change) error {
		c.Keep(c.Put(countBucket, "github/main", []byte(state.Uint64Key(maxOfRule))))
		_, _, err := c.Issue(grant(func(g *access.Grant) { g.Subject = "a third" }), noon.Add(time.Hour), "")
		return err
	})
	if !errors.Is(err, ErrFull) {
		t.Errorf("one too many: %v", err)
	}
	_, other := issue(t, s, grant(func(g *access.Grant) { g.Rule = "other" }), noon.Add(time.Hour))
	wantKnown(t, s, map[string]bool{other: true})
}

func TestSweep(t *testing.T) {
	everywhere(t, func(t *testing.T, db state.Store, c *clock) {
		c.now = noon
		s := open(t, db)
		known := map[string]bool{}
		for i := range 5 {
			_, id := issue(t, s, grant(), noon.Add(time.Duration(i+1)*time.Minute))
			known[id] = i > 2
		}
		c.now = noon.Add(3*time.Minute + remembered + time.Second)
		if err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantKnown(t, s, known)
		consistent(t, db)
		c.now = noon.Add(24 * time.Hour)
		if err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		consistent(t, db)
		if list := s.List(); len(list) > 0 {
			t.Errorf("List = %+v", list)
		}
		for _, bucket := range []string{tokensBucket, indexBucket, countBucket} {
			if err := db.Scan(t.Context(), bucket, state.Range{}, func(page []state.Entry) error {
				return fmt.Errorf("%s has %q", bucket, page)
			}); err != nil {
				t.Error(err)
			}
		}
	})
}

// The format is fixed, and what a newer narwharf wrote gives no right and is swept.
func TestFormat(t *testing.T) {
	c := &clock{noon}
	db := memory.New(c.Now)
	text := `{"v":1,"hash":"` + strings.Repeat("ab", 32) + `","kind":"oidc","issuer":"github","rule":"main","subject":"s","scopes":["push"],"host":"web-1","owner":"o","ttl":60,"forget":90,"created":"2026-12-01T11:00:00Z","ends":"2026-12-01T12:30:00Z","note":"n"}`
	is := new(Token)
	if err := json.Unmarshal([]byte(text), is); err != nil {
		t.Fatal(err)
	}
	if again, err := json.Marshal(is); err != nil || string(again) != text {
		t.Errorf("it becomes %s, %v", again, err)
	}
	rows := map[string]string{
		"sh0rt00001": text,
		"sh0rt00002": strings.Replace(text, `"v":1`, `"v":2,"more":[]`, 1),
		"sh0rt00003": strings.Replace(text, `"push"`, `"push","fly"`, 1),
	}
	err := db.Update(t.Context(), nil, func(tx state.Tx) error {
		for id, text := range rows {
			is := new(Token)
			err := json.Unmarshal([]byte(text), is)
			is.ID = id
			for _, key := range indexKeys(is) {
				err = errors.Join(err, tx.Put(indexBucket, key, nil))
			}
			if err = errors.Join(err, tx.Put(tokensBucket, id, []byte(text)), tx.Put(countBucket, countKey(is), []byte(state.Uint64Key(3)))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, db)
	wantKnown(t, s, map[string]bool{"sh0rt00001": true, "sh0rt00002": false, "sh0rt00003": false})
	consistent(t, db)
	c.now = noon.Add(2 * time.Hour)
	if err := s.Sweep(t.Context()); err != nil || len(s.List()) > 0 {
		t.Errorf("%v, left %+v", err, s.List())
	}
	consistent(t, db)
}

// What another process made is known before its notice comes, and what fails is not made.
func TestLookupReadsTheState(t *testing.T) {
	db := memory.New((&clock{noon}).Now)
	here, there := open(t, deaf{db}), open(t, db)
	_, id := issue(t, there, grant(), noon.Add(time.Hour))
	wantKnown(t, here, map[string]bool{id: true})

	boom := errors.New("boom")
	var ghost string
	err := there.Update(t.Context(), func(c Change) error {
		_, is, err := c.Issue(grant(), noon.Add(time.Hour), "")
		ghost = is.ID
		return errors.Join(err, boom)
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	wantKnown(t, there, map[string]bool{id: true, ghost: false})
}

// deaf is a state without notices.
type deaf struct{ state.Store }

func (deaf) Watch(func([]string)) (stop func()) { return func() {} }

// A token is one change with whatever else its maker writes, in a Set of his own.
func TestIssueInsideAChange(t *testing.T) {
	everywhere(t, func(t *testing.T, db state.Store, _ *clock) {
		s := open(t, db)
		set := mirror.NewSet(db, nil)
		spent := errors.New("spent")
		spend := func() (id string, err error) {
			err = set.Update(t.Context(), []string{"nonces", Lock}, func(tx *mirror.Tx) error {
				if was, err := tx.Get("nonces", "one"); err != nil || was != nil {
					return errors.Join(err, spent)
				}
				tx.Keep(tx.Put("nonces", "one", nil))
				_, is, err := s.In(tx).Issue(grant(), noon.Add(time.Hour), "")
				id = is.ID
				return err
			})
			return id, err
		}
		id, err := spend()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := spend(); !errors.Is(err, spent) {
			t.Errorf("again: %s, %v", again, err)
		}
		wantKnown(t, s, map[string]bool{id: true})
		if n := len(s.List()); n != 1 {
			t.Errorf("there are %d", n)
		}
	})
}

// A token that is extended keeps its secret, is found by its new end, and counts once.
func TestExtend(t *testing.T) {
	everywhere(t, func(t *testing.T, db state.Store, c *clock) {
		s := open(t, db)
		var made Token
		err := s.Update(t.Context(), func(x Change) (err error) {
			_, made, err = x.Issue(access.Grant{Kind: "session", Issuer: "idp", Rule: "ops", Subject: "ada", Scopes: scope.Set{{Kind: scope.Pull}}}, noon.Add(time.Hour), "")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		later := noon.Add(3 * time.Hour)
		err = s.Update(t.Context(), func(x Change) error {
			if _, err := x.Extend("sh0rt00000", later); !errors.Is(err, ErrNotFound) {
				t.Errorf("one that is not there: %v", err)
			}
			if _, err := x.Extend(made.ID, noon.Add(-time.Hour)); err == nil {
				t.Error("to an end before its begin")
			}
			_, err := x.Extend(made.ID, later)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if hash, g, err := s.Lookup(t.Context(), made.ID); err != nil || hash != made.Hash || !g.Ends.Equal(later) {
			t.Errorf("%v %+v %v", hash, g, err)
		}
		c.now = noon.Add(2*time.Hour + time.Minute) // an hour after its first end
		if err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		err = s.Update(t.Context(), func(x Change) error {
			list, err := x.OfSubject("session", "idp", "ada")
			if len(list) != 1 || list[0].ID != made.ID {
				t.Errorf("found %v", list)
			}
			n, err2 := x.Get(countBucket, countKey(&made))
			if state.Uint64(n) != 1 {
				t.Errorf("it counts %d times", state.Uint64(n))
			}
			return errors.Join(err, err2)
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
