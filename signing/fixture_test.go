package signing

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"narwharf/narinfo"
)

// seedOf makes the seed of a key that everybody knows.
func seedOf(name string) [32]byte { return sha256.Sum256([]byte("narwharf test vectors: " + name)) }

// testKey is the key of that name in docs/vectors/keys.json.
func testKey(t testing.TB, name string) SecretKey {
	t.Helper()
	return keyFrom(t, name, name)
}

// keyFrom is a key with the bytes of one name and another name.
func keyFrom(t testing.TB, seed, name string) SecretKey {
	t.Helper()
	s := seedOf(seed)
	return secretKey(t, name+":"+base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed(s[:])))
}

const (
	alice, bob, carol = "alice-1", "bob-1", "carol-1"
	testOrigin        = "cache.example.org/prod"
	testChannel       = "prod"
)

// testTrust wants two of alice, bob and carol.
func testTrust(t testing.TB, target string) Trust {
	t.Helper()
	trust := Trust{Threshold: 2, Origin: testOrigin, Channel: testChannel, Target: target}
	for _, name := range []string{alice, bob, carol} {
		trust.Keys = append(trust.Keys, testKey(t, name).Public())
	}
	return trust
}

// testPath is a store path with a hash made of its name.
func testPath(name string) narinfo.Path {
	return narinfo.Path(narinfo.Hash(sha256.Sum256([]byte("path " + name))).Base32()[:32] + "-" + name)
}

func testInfo(storeDir, name string, size int64, refs ...string) *narinfo.Info {
	i := &narinfo.Info{StoreDir: storeDir, Path: testPath(name), NarHash: sha256.Sum256([]byte("nar " + name)), NarSize: size}
	for _, r := range refs {
		i.References = append(i.References, testPath(r))
	}
	return i
}

// testClosure is the closure of a system: glibc refers to itself, as it does.
func testClosure(t testing.TB, storeDir, system string) *Manifest {
	t.Helper()
	m, err := NewManifest([]*narinfo.Info{
		testInfo(storeDir, system, 4321, "bash-5.3", "linux-6.12.1", "glibc-2.42"),
		testInfo(storeDir, "bash-5.3", 1618944, "glibc-2.42"),
		testInfo(storeDir, "glibc-2.42", 31264568, "glibc-2.42"),
		testInfo(storeDir, "linux-6.12.1", 155189248),
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func testEntry(t testing.TB, target string) Entry {
	t.Helper()
	name := "nixos-system-" + strings.NewReplacer("*", "any", ":", "-").Replace(target) + "-25.11"
	return Entry{
		Target: target, StorePath: testPath(name).In("/nix/store"), Closure: testClosure(t, "/nix/store", name).Digest(),
		System: "x86_64-linux", Action: Auto,
	}
}

func testHead() Head {
	order, expires := int64(1287), time.Date(2026, 8, 3, 4, 5, 6, 0, time.UTC)
	return Head{
		Origin: testOrigin, Channel: testChannel, Seq: 42, Order: &order,
		Created: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC), Expires: &expires,
		Meta: map[string]string{"rev": "0123abc", "by": "Zoë <zoe@example.org>"},
	}
}

// testRelease has the targets, signed by those.
func testRelease(t testing.TB, signers []string, targets ...string) *Release {
	t.Helper()
	var entries []Entry
	for _, target := range targets {
		entries = append(entries, testEntry(t, target))
	}
	var keys []SecretKey
	for _, s := range signers {
		keys = append(keys, testKey(t, s))
	}
	r, err := NewRelease(testHead(), entries, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func testPointer(t testing.TB, r *Release, index int) *Pointer {
	t.Helper()
	p, err := r.Pointer(index)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// edit replaces the one occurrence of old.
func edit(t testing.TB, text []byte, old, with string) []byte {
	t.Helper()
	if n := bytes.Count(text, []byte(old)); n != 1 {
		t.Fatalf("%q stands %d times in %s", old, n, text)
	}
	return bytes.Replace(text, []byte(old), []byte(with), 1)
}

func wantError(t testing.TB, what string, err error, says string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: %v, want … %s …", what, err, says)
	}
}

func manyTargets(n int) []string {
	targets := make([]string, n)
	for i := range targets {
		targets[i] = fmt.Sprintf("host-%06d", i)
	}
	return targets
}

func parseEnvelope(text []byte) (*Envelope, error) {
	e := new(Envelope)
	if err := e.UnmarshalJSON(text); err != nil {
		return nil, err
	}
	return e, nil
}
