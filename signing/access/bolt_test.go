package access

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

func TestBolt(t *testing.T) {
	testStore(t, func(t *testing.T) Store {
		return mustNewBolt(t, openDB(t, filepath.Join(t.TempDir(), "db"), nil))
	})
}

// What one process wrote another reads, revocations included; and the file never
// holds a secret.
func TestBoltReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := openDB(t, path, nil)
	s := mustNewBolt(t, db)
	var secrets []string
	for _, name := range []string{"ci", "web", "db"} {
		secret, token, err := New(name, scopes(t, "push", "follow:web-*"), noon, noon.Add(time.Hour))
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

	for _, options := range []*bbolt.Options{nil, {ReadOnly: true}} {
		db := openDB(t, path, options)
		s := mustNewBolt(t, db)
		if got, err := s.List(t.Context()); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("after reopening: %+v, %v; want %+v", got, err, want)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBoltReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	if err := openDB(t, path, nil).Close(); err != nil {
		t.Fatal(err)
	}
	s := mustNewBolt(t, openDB(t, path, &bbolt.Options{ReadOnly: true}))
	if all, err := s.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("List without a bucket = %v, %v", all, err)
	}
	token := newToken(t, "ci", noon, time.Time{}, "push")
	if err := s.Add(t.Context(), token); !errors.Is(err, bolterrors.ErrDatabaseReadOnly) {
		t.Errorf("Add: %v", err)
	}
}

// A write that fails changes nothing that readers see.
func TestBoltFailedWrite(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "db"), nil)
	s := mustNewBolt(t, db)
	token := newToken(t, "ci", noon, time.Time{}, "push")
	mustAdd(t, s, token)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Revoke(t.Context(), "ci", noon); !errors.Is(err, bolterrors.ErrDatabaseNotOpen) || got.ID != "" {
		t.Errorf("Revoke = %+v, %v", got, err)
	}
	if err := s.Add(t.Context(), newToken(t, "web", noon, time.Time{}, "pull")); !errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		t.Errorf("Add: %v", err)
	}
	if all, err := s.List(t.Context()); err != nil || len(all) != 1 || !all[0].Active(noon) {
		t.Errorf("List = %+v, %v", all, err)
	}
	if _, err := NewBolt(db); !errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		t.Errorf("NewBolt of a closed database: %v", err)
	}
}

func TestBoltBucketGone(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "db"), nil)
	s := mustNewBolt(t, db)
	if err := db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket(tokensBucket) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(t.Context(), newToken(t, "ci", noon, time.Time{}, "push")); err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("Add: %v", err)
	}
}

// The format of values in the field, held by an example.
func TestBoltFormat(t *testing.T) {
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

// A value that is not understood stops the opening, and later writes too: what is
// not read might be a revocation.
func TestBoltRefusesForeignValues(t *testing.T) {
	const rest = `"name":"ci","scopes":["push"],"created":"2026-03-04T12:00:00Z"`
	for _, c := range []struct{ key, value, want string }{
		{"0123456789", `{"v":3,"anything":[]}`, "version 3, and this narwharf knows versions up to 2 only"},
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
		db := openDB(t, filepath.Join(t.TempDir(), "db"), nil)
		early := mustNewBolt(t, db)
		if err := db.Update(func(tx *bbolt.Tx) error {
			return tx.Bucket(tokensBucket).Put([]byte(c.key), []byte(c.value))
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := NewBolt(db); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), db.Path()) {
			t.Errorf("NewBolt with %s: %v; want %q", c.value, err, c.want)
		}
		if err := early.Add(t.Context(), newToken(t, "web", noon, time.Time{}, "pull")); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Add with %s: %v; want %q", c.value, err, c.want)
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

func openDB(t testing.TB, path string, options *bbolt.Options) *bbolt.DB {
	t.Helper()
	db, err := bbolt.Open(path, fs.FileMode(0o600), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() }) // twice is fine
	return db
}

func mustNewBolt(t testing.TB, db *bbolt.DB) *Bolt {
	t.Helper()
	s, err := NewBolt(db)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
