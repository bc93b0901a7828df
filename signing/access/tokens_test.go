package access

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/bolt"
	"narwharf/cache/state/memory"
	"narwharf/cache/state/statetest"
)

func TestTokens(t *testing.T) {
	t.Run("memory", func(t *testing.T) { testStore(t, func(t *testing.T) Store { return inMemory(t) }) })
	t.Run("bolt", func(t *testing.T) {
		testStore(t, func(t *testing.T) Store {
			return mustOpen(t, openDB(t, filepath.Join(t.TempDir(), "db")))
		})
	})
	t.Run("each change twice", func(t *testing.T) {
		testStore(t, func(t *testing.T) Store { return mustOpen(t, statetest.Twice(memory.New(nil))) })
	})
	t.Run("known to nobody", func(t *testing.T) { // every Lookup reads the state
		testStore(t, func(t *testing.T) Store { return forgetful{inMemory(t)} })
	})
}

// forgetful is a store whose memory something else empties.
type forgetful struct{ *Tokens }

func (f forgetful) Lookup(ctx context.Context, id string) (Token, error) {
	f.forget([]string{state.All})
	return f.Tokens.Lookup(ctx, id)
}

// What one process wrote another reads, revocations included; and the file never
// holds a secret.
func TestTokensReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := openDB(t, path)
	s := mustOpen(t, db)
	var secrets []string
	for _, name := range []string{"ci", "web", "db"} {
		secret, token, err := New(name, "", scopes(t, "push", "follow:web-*"), noon, noon.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		token.By = "admin"
		mustAdd(t, s, token)
		secrets = append(secrets, secret)
	}
	if _, err := s.Revoke(t.Context(), "web", noon); err != nil {
		t.Fatal(err)
	}
	want, err := s.List(t.Context())
	if err != nil || len(want) != 3 {
		t.Fatalf("List = %v, %v", want, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, token := range want {
		// Sanity of the search: the id and the hash are there.
		if !bytes.Contains(file, []byte(token.ID)) || !bytes.Contains(file, []byte(hex.EncodeToString(token.Hash[:]))) {
			t.Errorf("the database lacks token %+v", token)
		}
		body := secrets[i][len(secretPrefix)+idLen+1:]
		for _, part := range []string{body[:bodyLen], body[:12], body[bodyLen-12:]} {
			if bytes.Contains(file, []byte(part)) {
				t.Errorf("the database holds a part of secret %d", i)
			}
		}
	}
	if bytes.Contains(file, []byte(secretPrefix)) {
		t.Error("the database holds something that begins like a secret")
	}

	for range 2 {
		db := openDB(t, path)
		s := mustOpen(t, db)
		if got, err := s.List(t.Context()); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("after reopening: %+v, %v; want %+v", got, err, want)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A write that fails changes nothing that readers see.
func TestTokensFailedWrite(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "db"))
	s := mustOpen(t, db)
	token := newToken(t, "ci", noon, time.Time{}, "push")
	mustAdd(t, s, token)
	if _, err := s.Lookup(t.Context(), token.ID); err != nil { // which memory keeps
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Revoke(t.Context(), "ci", noon); !errors.Is(err, state.ErrClosed) || got.ID != "" {
		t.Errorf("Revoke = %+v, %v", got, err)
	}
	if err := s.Add(t.Context(), newToken(t, "web", noon, time.Time{}, "pull")); !errors.Is(err, state.ErrClosed) {
		t.Errorf("Add: %v", err)
	}
	if got, err := s.Lookup(t.Context(), token.ID); err != nil || !got.Active(noon) {
		t.Errorf("Lookup = %+v, %v", got, err)
	}
	if _, _, err := Open(t.Context(), db, ""); !errors.Is(err, state.ErrClosed) {
		t.Errorf("Open of a closed state: %v", err)
	}
}

// Another process, with a memory of its own, makes, revokes and redeems tokens: what
// this one decides is as if it had seen it, whether a notice came or not.
func TestTokensDecideOnTheState(t *testing.T) {
	db := memory.New(nil)
	here, there := mustOpen(t, db), mustOpen(t, deaf{db})
	ci := newToken(t, "ci", noon, time.Time{}, "push")
	mustAdd(t, there, ci)
	if err := here.Add(t.Context(), newToken(t, "ci", noon, time.Time{}, "push")); !errors.Is(err, ErrExists) {
		t.Errorf("Add of a name that was taken elsewhere: %v", err)
	}
	join := newJoin(t, "rack-7", "", 1)
	mustAdd(t, there, join)
	if err := there.Redeem(t.Context(), join.ID, one, newHost(t, "web-1", noon)); err != nil {
		t.Fatal(err)
	}
	if err := here.Redeem(t.Context(), join.ID, two, newHost(t, "web-2", noon)); !errors.As(err, new(*JoinError)) {
		t.Errorf("Redeem of what was spent elsewhere: %v", err)
	}
	if _, err := here.Revoke(t.Context(), "rack-7", noon); err != nil {
		t.Fatal(err)
	}
	if err := there.Redeem(t.Context(), join.ID, one, newHost(t, "web-1", noon)); err == nil || !strings.Contains(err.Error(), "was revoked") {
		t.Errorf("Redeem of what was revoked elsewhere: %v", err)
	}
	if all, err := there.List(t.Context()); err != nil || len(all) != 3 || all[2].Revoked.IsZero() {
		t.Errorf("List = %+v, %v", all, err)
	}
}

// deaf is a state whose notices get lost.
type deaf struct{ state.Store }

func (deaf) Watch(func([]string)) (stop func()) { return func() {} }

// An older narwharf writes tokens and no index.
func TestTokensIndexIsDerived(t *testing.T) {
	db := memory.New(nil)
	s := mustOpen(t, db)
	ci, web := newToken(t, "ci", noon, time.Time{}, "push"), newToken(t, "web", noon, time.Time{}, "pull")
	mustAdd(t, s, ci)
	value, err := encodeToken(web)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(t.Context(), nil, func(tx state.Tx) error {
		return errors.Join(tx.Put(tokensBucket, web.ID, value), tx.Delete(indexBucket, indexKey(ci.Name, ci.ID)))
	})
	if err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, db)
	for _, name := range []string{"ci", "web"} {
		if _, err := s.Revoke(t.Context(), name, noon); err != nil {
			t.Error(err)
		}
	}
}

// A write touches the tokens that it is about, and no other: one that cannot be read
// is in nobody's way but its own.
func TestTokensWritesTouchWhatTheyAreAbout(t *testing.T) {
	db := memory.New(nil)
	s := mustOpen(t, db)
	ci := newToken(t, "ci", noon, time.Time{}, "push")
	mustAdd(t, s, ci)
	put(t, db, "0123456789", "nonsense")
	mustAdd(t, s, newToken(t, "web", noon, time.Time{}, "pull"))
	if _, err := s.Revoke(t.Context(), "ci", noon); err != nil {
		t.Error(err)
	}
}

func put(t *testing.T, db state.Store, id, value string) {
	t.Helper()
	err := db.Update(t.Context(), nil, func(tx state.Tx) error { return tx.Put(tokensBucket, id, []byte(value)) })
	if err != nil {
		t.Fatal(err)
	}
}

// The format of values in the field, held by an example.
func TestTokensFormat(t *testing.T) {
	const value = `{"v":1,"name":"ci","hash":"` + hash64 + `","scopes":["push","promote:web-*"],"created":"2026-03-04T12:00:00Z","expires":"2026-03-04T13:00:00Z","by":"root"}`
	want := Token{ID: "0123456789", Name: "ci", Scopes: scopes(t, "push", "promote:web-*"), Created: noon, Expires: noon.Add(time.Hour), By: "root"}
	if _, err := hex.Decode(want.Hash[:], []byte(hash64)); err != nil {
		t.Fatal(err)
	}
	got, err := decodeToken(want.ID, []byte(value))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("decode = %+v, %v", got, err)
	}
	if out, err := encodeToken(want); err != nil || string(out) != value {
		t.Errorf("encode = %s, %v", out, err)
	}
}

const hash64 = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

// A value that is not understood stops the opening, and later everything that is
// about its token: what is not read might be a revocation.
func TestTokensRefusesForeignValues(t *testing.T) {
	const rest = `"name":"ci","scopes":["push"],"created":"2026-03-04T12:00:00Z"`
	for _, c := range []struct{ key, value, want string }{
		{"0123456789", `{"v":5,"anything":[]}`, "version 5, and this narwharf knows versions up to 4 only"},
		{"0123456789", `{` + rest + `,"hash":"` + hash64 + `"}`, "version 0"},
		{"0123456789", ``, "decode token"},
		{"0123456789", `{"v":1`, "decode token"},
		{"0123456789", `{"v":1,` + rest + `,"hash":"` + hash64 + `"} {}`, "decode token"},
		{"0123456789", `{"v":1,` + rest + `,"hash":"` + hash64 + `","until":1}`, "unknown field"},
		{"0123456789", `{"v":1,` + rest + `,"hash":"00"}`, "64 hex digits"},
		{"0123456789", `{"v":1,` + rest + `,"hash":"` + hash64 + `00"}`, "64 hex digits"},
		{"0123456789", `{"v":1,` + rest + `,"hash":"` + strings.Repeat("0", 64) + `"}`, "hash of the secret is missing"},
		{"0123456789", `{"v":1,"name":"ci","scopes":["root"],"created":"2026-03-04T12:00:00Z","hash":"` + hash64 + `"}`, "is not one of"},
		{"0123456789", `{"v":1,"name":"ci","scopes":null,"created":"2026-03-04T12:00:00Z","hash":"` + hash64 + `"}`, "no scopes"},
		{"short", `{"v":1,` + rest + `,"hash":"` + hash64 + `"}`, "10 symbols"},
	} {
		db := memory.New(nil)
		early := mustOpen(t, db)
		put(t, db, c.key, c.value)
		if _, _, err := Open(t.Context(), db, ""); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Open with %s: %v; want %q", c.value, err, c.want)
		}
		_, lookup := early.Lookup(t.Context(), c.key)
		_, list := early.List(t.Context())
		_, revoke := early.Revoke(t.Context(), c.key, noon)
		add := early.Add(t.Context(), withID(newToken(t, "web", noon, time.Time{}, "pull"), c.key))
		for op, err := range map[string]error{"Lookup": lookup, "List": list, "Revoke": revoke, "Add": add} {
			if err == nil || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s with %s: %v; want %q", op, c.value, err, c.want)
			}
		}
	}
}

func FuzzDecodeToken(f *testing.F) {
	f.Add("0123456789", []byte(`{"v":1,"name":"ci","hash":"`+hash64+`","scopes":["push"],"created":"2026-03-04T12:00:00Z"}`))
	f.Add("0123456789", []byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, id string, value []byte) {
		token, err := decodeToken(id, value)
		if err != nil {
			return
		}
		out, err := encodeToken(token)
		if err != nil {
			t.Fatalf("%s decodes to %+v, which does not encode: %v", value, token, err)
		}
		if again, err := decodeToken(id, out); err != nil || !reflect.DeepEqual(again, token) {
			t.Fatalf("%+v came back as %+v, %v", token, again, err)
		}
	})
}

func openDB(t testing.TB, path string) *bolt.Store {
	t.Helper()
	db, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() }) // twice is fine
	return db
}

func mustOpen(t testing.TB, db state.Store) *Tokens {
	t.Helper()
	s, _, err := Open(t.Context(), db, "")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func inMemory(t testing.TB) *Tokens {
	t.Helper()
	return mustOpen(t, memory.New(nil))
}
