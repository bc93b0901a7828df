package signing

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestStatement(t *testing.T) {
	if got := string(statement("a/b/v1", []byte("x\ny"))); got != "a/b/v1\n3\nx\ny" {
		t.Errorf("signed are %q", got)
	}
	if got := string(statement(HeadKind, nil)); got != "narwharf/head/v1\n0\n" {
		t.Errorf("signed are %q", got)
	}
}

func TestSealAndSign(t *testing.T) {
	a, b := testKey(t, alice), testKey(t, bob)
	payload := []byte("payload")
	e := Seal(HeadKind, payload)
	if text := mustJSON(t, e); string(text) != `{"payload":"cGF5bG9hZA==","signatures":[]}` {
		t.Errorf("an unsigned envelope is %s", text)
	}
	payload[0] = 'P'
	if string(e.Payload) != "payload" {
		t.Error("an envelope shares its payload's memory")
	}
	e.Sign(HeadKind, b)
	e.Sign(HeadKind, a)
	e.Sign(HeadKind, b)
	if !slices.Equal(names(e.Signers(HeadKind, testTrust(t, "").Keys)), []string{alice, bob}) || len(e.Signatures) != 2 || e.Signatures[0].Key != alice {
		t.Errorf("signatures %v", e.Signatures)
	}
	again, err := parseEnvelope(mustJSON(t, e))
	if err != nil || !bytes.Equal(mustJSON(t, again), mustJSON(t, e)) {
		t.Errorf("read as %v, %v", again, err)
	}
	if e, err := parseEnvelope([]byte("{}")); err == nil || e != nil {
		t.Errorf("an empty object was read as %v", e)
	}
}

// What was there before a failed read stays.
func TestEnvelopeKeepsWhatItHad(t *testing.T) {
	e := Seal(HeadKind, []byte("payload"), testKey(t, alice))
	before := mustJSON(t, e)
	for _, text := range []string{`{"payload":"","signatures":[]}`, `{"payload":"AA==","signatures":[{}]}`, `{"payload":"AA==","signatures":[{"key":"a","sig":"AA=="}]}`} {
		if err := json.Unmarshal([]byte(text), e); err == nil {
			t.Errorf("%s was read", text)
		}
		if !bytes.Equal(before, mustJSON(t, e)) {
			t.Errorf("%s: changed by a failed read", text)
		}
	}
}

func TestMerge(t *testing.T) {
	a, b := testKey(t, alice), testKey(t, bob)
	e := Seal(HeadKind, []byte("payload"), a)
	added, err := e.Merge(Seal(HeadKind, []byte("payload"), a, b))
	if err != nil || !added || len(e.Signatures) != 2 {
		t.Errorf("merged: %v, %v, %v", added, err, e.Signatures)
	}
	if added, err = e.Merge(Seal(HeadKind, []byte("payload"), b)); err != nil || added || len(e.Signatures) != 2 {
		t.Errorf("nothing new: %v, %v, %v", added, err, e.Signatures)
	}
	_, err = e.Merge(Seal(HeadKind, []byte("other"), b))
	wantError(t, "two payloads", err, "two statements")

	// Whoever may add signatures must not be able to make an envelope that
	// nobody reads any more.
	junk := Seal(HeadKind, []byte("payload"))
	for i := range maxEnvelopeSignatures - 1 {
		junk.Signatures = append(junk.Signatures, Signature{fmt.Sprint("junk-", i), e.Signatures[0].Sig})
	}
	before := mustJSON(t, e)
	added, err = e.Merge(junk)
	wantError(t, "too many", err, "at most 64")
	if added || !bytes.Equal(before, mustJSON(t, e)) {
		t.Error("a refused merge changed the envelope")
	}
	junk.Signatures = junk.Signatures[1:]
	if added, err = e.Merge(junk); err != nil || !added || e.check() != nil || len(e.Signatures) != maxEnvelopeSignatures {
		t.Errorf("as many as may be: %v, %v, %d", added, err, len(e.Signatures))
	}
}

func TestTooFewSignatures(t *testing.T) {
	e := Seal(HeadKind, []byte("payload"), testKey(t, alice), testKey(t, "mallory-1"))
	_, err := e.Open(HeadKind, testTrust(t, "").Keys, 2)
	want := "1 of the 2 needed signatures are good (signed by alice-1, mallory-1; keys that count: alice-1, bob-1, carol-1)"
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	_, err = Seal(HeadKind, []byte("payload")).Open(HeadKind, testTrust(t, "").Keys, 2)
	wantError(t, "unsigned", err, "signed by none")
	crowd := Seal(HeadKind, []byte("payload"))
	for i := range maxEnvelopeSignatures {
		crowd.Signatures = append(crowd.Signatures, Signature{strings.Repeat("x", 200) + fmt.Sprint(i), e.Signatures[0].Sig})
	}
	_, err = crowd.Open(HeadKind, testTrust(t, "").Keys, 2)
	wantError(t, "a crowd", err, "… and 56 more")
	if len(err.Error()) > 1000 {
		t.Errorf("a message of %d bytes", len(err.Error()))
	}
	_, err = (&Envelope{}).Open(HeadKind, testTrust(t, "").Keys, 1)
	wantError(t, "empty", err, "0 bytes")
	zero := []PublicKey{{}, {}}
	_, err = e.Open(HeadKind, zero, 1)
	wantError(t, "keys of nothing", err, "0 of the 1")
}

// However signatures and keys are repeated and renamed, what counts is how
// many different keys signed.
func TestSignersCountKeys(t *testing.T) {
	seeds := []string{alice, bob, carol, "mallory-1"}
	rapid.Check(t, func(r *rapid.T) {
		var trusted []PublicKey
		good := make(map[string]map[string]bool) // seed -> names it is trusted under
		for range rapid.IntRange(0, 6).Draw(r, "keys") {
			seed := rapid.SampledFrom(seeds[:3]).Draw(r, "seed")
			name := rapid.SampledFrom([]string{"x", "y", "z"}).Draw(r, "name")
			trusted = append(trusted, keyFrom(t, seed, name).Public())
			if good[seed] == nil {
				good[seed] = make(map[string]bool)
			}
			good[seed][name] = true
		}
		e := Seal(HeadKind, []byte("payload"))
		signed := make(map[string]bool)
		for range rapid.IntRange(0, 8).Draw(r, "signatures") {
			seed := rapid.SampledFrom(seeds).Draw(r, "seed")
			name := rapid.SampledFrom([]string{"x", "y", "z"}).Draw(r, "name")
			kind := rapid.SampledFrom([]Kind{HeadKind, HeadKind, "narwharf/other/v1"}).Draw(r, "kind")
			n, sig, _ := strings.Cut(keyFrom(t, seed, name).Sign(statement(kind, e.Payload)), ":")
			e.Signatures = append(e.Signatures, Signature{n, sig})
			if kind == HeadKind && good[seed][name] {
				signed[seed] = true
			}
		}
		need := rapid.IntRange(-1, 4).Draw(r, "threshold")
		payload, err := e.Open(HeadKind, trusted, need)
		if want := need >= 1 && len(signed) >= need; want != (err == nil) {
			r.Fatalf("%d of %d needed signed, and: %v", len(signed), need, err)
		}
		if err == nil && string(payload) != "payload" {
			r.Fatalf("opened as %q", payload)
		}
	})
}

// What is accepted is printed as something that means the same, and no text
// makes signatures good that were not.
func FuzzEnvelope(f *testing.F) {
	for _, tc := range allCases(f) {
		if tc.what == "envelope" && len(tc.text) < 8<<10 {
			f.Add(tc.text)
		}
	}
	keys := testTrust(f, "").Keys
	const payload = "any bytes\n\x00"
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := parseEnvelope(text)
		if err != nil {
			return
		}
		again, err := parseEnvelope(mustJSON(t, e))
		if err != nil || !bytes.Equal(again.Payload, e.Payload) || !slices.Equal(again.Signatures, e.Signatures) {
			t.Fatalf("%q was printed as %s", text, mustJSON(t, e))
		}
		// What others read in it must be the same.
		var other struct {
			Payload    []byte
			Signatures []Signature
		}
		if err := json.Unmarshal(text, &other); err != nil || !bytes.Equal(other.Payload, e.Payload) || !slices.Equal(other.Signatures, e.Signatures) {
			t.Fatalf("%q is %+v to others (%v)", text, other, err)
		}
		if got, err := e.Open(HeadKind, keys, 1); err == nil && string(got) != payload {
			t.Fatalf("%q has a good signature over %q", text, got)
		}
	})
}
