package keyring

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"narwharf/signing"
)

type world struct {
	keys map[string]signing.SecretKey
}

// key is the key of a name; names that begin with p- have one of P-256.
func (w *world) key(name string) signing.SecretKey {
	if w.keys == nil {
		w.keys = make(map[string]signing.SecretKey)
	}
	if _, ok := w.keys[name]; !ok {
		make := signing.GenerateKey
		if strings.HasPrefix(name, "p-") {
			make = signing.GenerateP256
		}
		k, err := make(name)
		if err != nil {
			panic(err)
		}
		w.keys[name] = k
	}
	return w.keys[name]
}

func (w *world) publics(names ...string) (list []signing.PublicKey) {
	for _, n := range names {
		list = append(list, w.key(n).Public())
	}
	return list
}

func (w *world) base(threshold int, names ...string) Base {
	return Base{Origin: "cache.example.org/prod", Channel: "prod", Keys: w.publics(names...), Threshold: threshold, Recovery: w.publics("recovery")}
}

var made = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// next is the statement after a ring.
func (w *world) next(b Base, r *Ring, threshold int, keys []string, signers ...string) *signing.Envelope {
	k := r.Next(b, w.publics(keys...), threshold)
	k.Created = made
	e, err := k.Seal()
	if err != nil {
		panic(err)
	}
	for _, s := range signers {
		e.Sign(KeysKind, w.key(s))
	}
	return e
}

// revoke is a revocation that vouches for where a ring is.
func (w *world) revoke(b Base, r *Ring, signer string, names ...string) *signing.Envelope {
	v := &Revocation{Origin: b.Origin, Channel: b.Channel, Keys: Texts(w.publics(names...)), Version: r.Version, Digest: r.Digest, Reason: "stolen", Created: made}
	e, err := v.Seal()
	if err != nil {
		panic(err)
	}
	e.Sign(RevocationKind, w.key(signer))
	return e
}

func wantRing(t *testing.T, what string, r *Ring, version int64, names ...string) {
	t.Helper()
	if got := Names(r.Keys); r.Version != version || got != strings.Join(names, ", ") {
		t.Errorf("%s: version %d of %s, want %d of %s (%s)", what, r.Version, got, version, names, r.Why)
	}
}

type list = []*signing.Envelope

// TestWalk: from alice alone, by way of both, to bob alone; at once or step by step.
func TestWalk(t *testing.T) {
	w := &world{}
	b := w.base(1, "alice")
	r0 := Walk(b, nil, nil)
	wantRing(t, "the configuration", r0, 0, "alice")
	both := w.next(b, r0, 1, []string{"alice", "p-bob"}, "alice")
	r1 := Walk(b, list{both}, nil)
	wantRing(t, "added", r1, 1, "alice", "p-bob")
	bob := w.next(b, r1, 1, []string{"p-bob"}, "p-bob")
	all := list{both, bob}
	wantRing(t, "retired", Walk(b, all, nil), 2, "p-bob")
	wantRing(t, "kept, then served", Walk(b, append(slices.Clone(r1.Statements), bob), nil), 2, "p-bob")
	wantRing(t, "the first is withheld", Walk(b, list{bob}, nil), 0, "alice")
	wantRing(t, "in the wrong order", Walk(b, list{bob, both}, nil), 1, "alice", "p-bob")
	wantRing(t, "twice, and with nothing", Walk(b, list{nil, both, both, bob, bob}, nil), 2, "p-bob")

	later := w.base(1, "p-bob")
	later.Version = 2
	wantRing(t, "a newer configuration", Walk(later, all, nil), 2, "p-bob")
	later.Version = 1
	wantRing(t, "one that says which it is, and begins there", Walk(later, all, nil), 2, "p-bob")
	other := b
	other.Origin = "cache.example.org/other"
	wantRing(t, "another origin", Walk(other, all, nil), 0, "alice")
	other = b
	other.Channel = "other"
	wantRing(t, "another channel", Walk(other, all, nil), 0, "alice")
}

// TestWalkNeedsBoth: as many of the keys before and of the keys after as had to sign.
func TestWalkNeedsBoth(t *testing.T) {
	w := &world{}
	b := w.base(2, "a", "b", "c")
	r := Walk(b, nil, nil)
	for name, tt := range map[string]struct {
		threshold int
		keys      []string
		signers   []string
		ok        bool
	}{
		"one of two before":      {1, []string{"a", "d"}, []string{"a"}, false},
		"two before, none after": {1, []string{"d"}, []string{"a", "b"}, false},
		"two before, one after":  {1, []string{"d"}, []string{"a", "b", "d"}, true},
		"the new alone":          {2, []string{"d", "e"}, []string{"d", "e"}, false},
		"two and two":            {2, []string{"c", "d"}, []string{"b", "c", "d"}, true},
		"a stranger":             {2, []string{"a", "b"}, []string{"a", "x"}, false},
		"the recovery key":       {1, []string{"recovery"}, []string{"recovery"}, false},
	} {
		got := Walk(b, list{w.next(b, r, tt.threshold, tt.keys, tt.signers...)}, nil)
		if ok := got.Version == 1; ok != tt.ok || !ok && got.Why == "" {
			t.Errorf("%s: %v (%s)", name, ok, got.Why)
		}
	}
	// A signature over a head of the same text is none over a statement.
	e := w.next(b, r, 1, []string{"a"})
	e.Sign(signing.HeadKind, w.key("a"))
	e.Sign(signing.HeadKind, w.key("b"))
	if got := Walk(b, list{e}, nil); got.Version != 0 {
		t.Error("a signature of another kind counts")
	}
}

// TestRevoked: a stolen key counts nowhere, what it signed before stands, and what the
// thief did with it does not.
func TestRevoked(t *testing.T) {
	w := &world{}
	b := w.base(1, "alice")
	r0 := Walk(b, nil, nil)
	both := w.next(b, r0, 1, []string{"alice", "bob"}, "alice")
	r1 := Walk(b, list{both}, nil)
	revocation := w.revoke(b, r1, "recovery", "alice")
	wantRing(t, "at once", Walk(b, list{both}, list{revocation}), 1, "bob")
	wantRing(t, "by another key", Walk(b, list{both}, list{w.revoke(b, r1, "alice", "bob")}), 1, "alice", "bob")
	bob := w.next(b, r1, 1, []string{"bob", "carol"}, "bob")
	wantRing(t, "and on", Walk(b, list{both, bob}, list{revocation}), 2, "bob", "carol")
	back := w.next(b, Walk(b, list{both, bob}, nil), 1, []string{"alice", "bob"}, "bob")
	wantRing(t, "brought in again", Walk(b, list{both, bob, back}, list{revocation}), 3, "bob")

	thief := w.next(b, r1, 1, []string{"thief"}, "alice", "thief")
	stolen := Walk(b, list{both, thief}, nil)
	wantRing(t, "the thief has changed the keys", stolen, 2, "thief")
	wantRing(t, "and is undone", Walk(b, stolen.Statements, list{revocation}), 1, "bob")
	wantRing(t, "and bob goes on", Walk(b, append(slices.Clone(stolen.Statements), bob), list{revocation}), 2, "bob", "carol")

	early := w.next(b, r0, 1, []string{"thief"}, "alice", "thief")
	forked := Walk(b, list{early, both}, nil)
	wantRing(t, "a host was shown the thief's statement instead", forked, 1, "thief")
	wantRing(t, "and is led back", Walk(b, append(slices.Clone(forked.Statements), both, bob), list{revocation}), 2, "bob", "carol")
	wantRing(t, "while the true one is withheld", Walk(b, forked.Statements, list{revocation}), 0)

	// What vouches for the second vouches for the first, which the second names.
	r2 := Walk(b, list{both, bob}, nil)
	late := w.revoke(b, r2, "recovery", "alice")
	wantRing(t, "vouched for by the next", Walk(b, list{early, both, bob}, list{late}), 2, "bob", "carol")
	wantRing(t, "the next is withheld", Walk(b, list{both}, list{late}), 0)

	none := b
	none.Recovery = nil
	wantRing(t, "no recovery key", Walk(none, list{both}, list{revocation}), 1, "alice", "bob")
	if _, err := OpenRevocation(none, revocation); err == nil {
		t.Error("a revocation was believed without a key")
	}
	elsewhere := b
	elsewhere.Channel = "other"
	if _, err := OpenRevocation(elsewhere, revocation); err == nil || !strings.Contains(err.Error(), "is of the channel prod") {
		t.Errorf("of another channel: %v", err)
	}
}

// TestWalkNeverLoses: whatever a server shows, in whatever order and how often, a host that
// keeps what it has accepted never falls back to a version below, comes to keys that the
// signers' rules allow, and ends where everybody ends once all is shown.
func TestWalkNeverLoses(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e"}
	w := &world{}
	for _, n := range append(names, "thief", "recovery") {
		w.key(n)
	}
	rapid.Check(t, func(t *rapid.T) {
		b := w.base(1, "a", "b")
		var chain list
		ring := Walk(b, nil, nil)
		some := rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 3, rapid.ID[string])
		for range rapid.IntRange(0, 5).Draw(t, "statements") {
			keys := some.Draw(t, "keys")
			signers := append(strings.Split(Names(ring.Keys), ", "), keys...)
			chain = append(chain, w.next(b, ring, rapid.IntRange(1, len(keys)).Draw(t, "threshold"), keys, signers...))
			if ring = Walk(b, chain, nil); ring.Version != int64(len(chain)) {
				t.Fatalf("%d statements lead to %d: %s", len(chain), ring.Version, ring.Why)
			}
		}
		// Somebody without a key forges what he likes.
		shown := slices.Clone(chain)
		for i := range rapid.IntRange(0, 3).Draw(t, "forged") {
			at := Walk(b, chain[:rapid.IntRange(0, len(chain)).Draw(t, fmt.Sprint("at", i))], nil)
			shown = append(shown, w.next(b, at, 1, []string{"thief"}, "thief"))
		}
		var kept list
		version := int64(0)
		for i := range 6 {
			served := rapid.SliceOf(rapid.SampledFrom(append(shown, nil))).Draw(t, fmt.Sprint("served", i))
			r := Walk(b, append(slices.Clone(kept), served...), nil)
			if r.Version < version || slices.ContainsFunc(r.Keys, w.key("thief").Public().Same) {
				t.Fatalf("from %d to %d of %s", version, r.Version, Names(r.Keys))
			}
			kept, version = r.Statements, r.Version
		}
		end := Walk(b, append(slices.Clone(kept), chain...), nil)
		if end.Version != ring.Version || Names(end.Keys) != Names(ring.Keys) {
			t.Fatalf("it ends at %d of %s, not at %d of %s", end.Version, Names(end.Keys), ring.Version, Names(ring.Keys))
		}
	})
}
