package keyring

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"narwharf/signing"
)

var update = flag.Bool("update", false, "write docs/vectors anew")

const vectorFile = "../../docs/vectors/keyring.json"

// A walkVector is statements and revocations with where they lead from a base.
type walkVector struct {
	Name        string              `json:"name"`
	Origin      string              `json:"origin"`
	Channel     string              `json:"channel"`
	From        int64               `json:"from"`
	Keys        []string            `json:"keys"`
	Threshold   int                 `json:"threshold"`
	Recovery    []string            `json:"recovery"`
	Statements  []*signing.Envelope `json:"statements"`
	Revocations []*signing.Envelope `json:"revocations"`
	Version     int64               `json:"version"`
	Count       []string            `json:"count"` // the keys that count in the end
}

type textVector struct {
	What  string `json:"what"` // keys, revocation
	Name  string `json:"name"`
	Valid bool   `json:"valid"`
	Text  string `json:"text"`
}

// fixed is a world whose keys are always the same.
func fixed(t *testing.T) *world {
	w := &world{keys: make(map[string]signing.SecretKey)}
	for _, name := range []string{"alice-1", "bob-1", "p-carol", "thief-1", "recovery-1"} {
		seed := sha256.Sum256([]byte(name))
		text := name + ":" + base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed(seed[:]))
		if strings.HasPrefix(name, "p-") {
			text = name + ":ecdsa-p256:" + base64.StdEncoding.EncodeToString(seed[:])
		}
		k, err := signing.ParsePromoterSecretKey(text)
		if err != nil {
			t.Fatal(err)
		}
		w.keys[name] = k
	}
	return w
}

func walkVectors(t *testing.T) (walks []walkVector) {
	w := fixed(t)
	b := w.base(1, "alice-1")
	b.Recovery = w.publics("recovery-1")
	say := func(name string, b Base, statements, revocations list) {
		r := Walk(b, statements, revocations)
		v := walkVector{name, b.Origin, b.Channel, b.Version, Texts(b.Keys), b.Threshold, Texts(b.Recovery), statements, revocations, r.Version, Texts(r.Keys)}
		if v.Count == nil {
			v.Count = []string{}
		}
		for _, l := range []*list{&v.Statements, &v.Revocations} {
			if *l == nil {
				*l = list{}
			}
		}
		walks = append(walks, v)
	}
	r0 := Walk(b, nil, nil)
	both := w.next(b, r0, 1, []string{"alice-1", "p-carol"}, "alice-1")
	r1 := Walk(b, list{both}, nil)
	carol := w.next(b, r1, 2, []string{"p-carol", "bob-1"}, "p-carol", "bob-1")
	thief := w.next(b, r1, 1, []string{"thief-1"}, "alice-1", "thief-1")
	early := w.next(b, r0, 1, []string{"thief-1"}, "alice-1", "thief-1")
	revoked := w.revoke(b, r1, "recovery-1", "alice-1")
	say("nothing", b, nil, nil)
	say("a key comes", b, list{both}, nil)
	say("and another goes", b, list{both, carol}, nil)
	say("the first is missing", b, list{carol}, nil)
	say("too few of the new keys", b, list{both, w.next(b, r1, 2, []string{"p-carol", "bob-1"}, "p-carol")}, nil)
	say("none of the keys before", b, list{w.next(b, r0, 1, []string{"bob-1"}, "bob-1")}, nil)
	say("a revocation", b, list{both}, list{revoked})
	say("by a promoter's key", b, list{both}, list{w.revoke(b, r1, "alice-1", "p-carol")})
	say("a thief undone", b, list{both, thief, carol}, list{revoked})
	say("a thief who was first", b, list{early, both, carol}, list{revoked})
	say("what is vouched for is missing", b, list{early}, list{revoked})
	later := w.base(2, "p-carol", "bob-1")
	later.Version, later.Recovery = 2, b.Recovery
	say("a newer configuration", later, list{both, carol}, list{revoked})
	return walks
}

func textVectors(t *testing.T) (texts []textVector) {
	w := fixed(t)
	b := w.base(1, "alice-1")
	r := Walk(b, nil, nil)
	keys := string(w.next(b, r, 1, []string{"alice-1", "p-carol"}).Payload)
	revocation := string(w.revoke(b, r, "recovery-1", "alice-1").Payload)
	say := func(what, name, text, old, new string) {
		changed := strings.Replace(text, old, new, 1)
		if changed == text && old != new {
			t.Fatalf("%s: nothing changed", name)
		}
		var err error
		if what == "keys" {
			_, err = ParseKeys([]byte(changed))
		} else {
			_, err = ParseRevocation([]byte(changed))
		}
		texts = append(texts, textVector{what, name, err == nil, changed})
	}
	say("keys", "as made", keys, "", "")
	say("keys", "more fields", keys, `"v":1`, `"v":1,"more":[1,{"x":null}]`)
	say("keys", "crit", keys, `"v":1`, `"v":1,"crit":["more"]`)
	say("keys", "another v", keys, `"v":1`, `"v":2`)
	say("keys", "version 0", keys, `"version":1`, `"version":0`)
	say("keys", "the second without a digest", keys, `"version":1`, `"version":2`)
	say("keys", "threshold 0", keys, `"threshold":1`, `"threshold":0`)
	say("keys", "threshold above the keys", keys, `"threshold":1`, `"threshold":3`)
	say("keys", "one key twice under two names", keys, `["alice-1:`, `["`+strings.Replace(w.key("alice-1").Public().String(), "alice", "alias", 1)+`","alice-1:`)
	say("keys", "an algorithm that nobody knows", keys, "ecdsa-p256", "ecdsa-p521")
	say("keys", "white space in a key", keys, `["alice-1:`, `[" alice-1:`)
	say("keys", "previous left out", keys, `"previous":null,`, ``)
	say("revocation", "as made", revocation, "", "")
	say("revocation", "a version without a digest", revocation, `"version":0`, `"version":1`)
	say("revocation", "a reason that moves the cursor", revocation, `stolen`, `\u001b[1A`)
	say("revocation", "no keys", revocation, `["`+w.key("alice-1").Public().String()+`"]`, `[]`)
	return texts
}

// TestVectors: docs/vectors/keyring.json is what this package makes and says.
func TestVectors(t *testing.T) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(map[string]any{"walks": walkVectors(t), "texts": textVectors(t)}); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(vectorFile, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, b.Bytes()) {
		t.Errorf("%s is not what the code makes; if a format was changed on purpose: go test ./signing/keyring -run Vectors -update", vectorFile)
	}
}
