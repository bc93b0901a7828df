package signing

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"narwharf/signing/merkle"
)

// under adds a case with other rules than two of three.
func (c *cases) under(trust Trust, name string, text []byte, says string) {
	c.is(name, text, says)
	c.list[len(c.list)-1].trust = &trust
}

// signed is the JSON of an envelope over a payload, signed by keys.
func (c *cases) signed(payload string, keys ...SecretKey) []byte {
	return mustJSON(c.t, Seal(HeadKind, []byte(payload), keys...))
}

func (c *cases) signature(payload string, k SecretKey) Signature {
	name, sig, _ := strings.Cut(k.Sign([]byte(payload)), ":")
	return Signature{name, sig}
}

func envelopeCases(c *cases) {
	a, b, d := testKey(c.t, alice), testKey(c.t, bob), testKey(c.t, carol)
	const payload = "any bytes\n\x00"
	c.of("envelope", c.signed(payload, a, b))
	c.is("as made", c.base, "")
	c.is("all have signed", c.signed(payload, a, b, d), "")
	c.edit("an unknown name", `{"payload"`, `{"later":1,"payload"`, "")
	stranger := testKey(c.t, "mallory-1")
	c.is("a stranger has signed, too", c.signed(payload, stranger, a, b), "")

	c.is("nobody has signed", c.signed(payload), "0 of the 2")
	c.is("one has signed", c.signed(payload, a), "1 of the 2")
	c.is("one and a stranger", c.signed(payload, a, stranger), "1 of the 2")
	twice := Seal(HeadKind, []byte(payload), a)
	twice.Signatures = append(twice.Signatures, twice.Signatures...)
	c.is("one has signed twice", mustJSON(c.t, twice), "1 of the 2")
	c.is("a stranger under a known name", c.signed(payload, a, keyFrom(c.t, "mallory-1", bob)), "1 of the 2")
	c.is("a known key under another's name", c.signed(payload, a, keyFrom(c.t, alice, bob)), "1 of the 2")

	alias := testTrust(c.t, "")
	alias.Keys = []PublicKey{a.Public(), keyFrom(c.t, alice, "alice-2").Public(), b.Public()}
	c.under(alias, "one key under two names counts once", c.signed(payload, a, keyFrom(c.t, alice, "alice-2")), "1 of the 2")
	c.under(alias, "one key under two names, and another", c.signed(payload, keyFrom(c.t, alice, "alice-2"), b), "")
	same := testTrust(c.t, "")
	same.Keys = []PublicKey{a.Public(), keyFrom(c.t, bob, alice).Public()}
	c.under(same, "two keys of one name are two", c.signed(payload, a, keyFrom(c.t, bob, alice)), "")
	for _, n := range []int{0, -1} {
		none := testTrust(c.t, "")
		none.Threshold = n
		c.under(none, fmt.Sprintf("a threshold of %d", n), c.base, "would accept unsigned")
	}
	three := testTrust(c.t, "")
	three.Threshold = 3
	c.under(three, "two of three needed", c.base, "2 of the 3")
	four := testTrust(c.t, "")
	four.Threshold = 4
	c.under(four, "more needed than there are keys", c.signed(payload, a, b, d), "3 of the 4")
	nobody := testTrust(c.t, "")
	nobody.Keys, nobody.Threshold = nil, 1
	c.under(nobody, "no keys", c.base, "0 of the 1")

	other := Seal("narwharf/other/v1", []byte(payload), a, b)
	c.is("signed as another kind of statement", mustJSON(c.t, other), "0 of the 2")
	bare := Seal(HeadKind, []byte(payload))
	bare.Signatures = append(bare.Signatures, c.signature(payload, a), c.signature(payload, b))
	c.is("signed without kind and length", mustJSON(c.t, bare), "0 of the 2")
	wrong := Seal(HeadKind, []byte(payload))
	text := string(HeadKind) + "\n10\n" + payload
	wrong.Signatures = append(wrong.Signatures, c.signature(text, a), c.signature(text, b))
	c.is("signed with another length", mustJSON(c.t, wrong), "0 of the 2")
	moved := Seal(HeadKind, []byte("other bytes"), a, b)
	moved.Payload = []byte(payload)
	c.is("signatures of another payload", mustJSON(c.t, moved), "0 of the 2")

	c.is("an empty object", []byte("{}"), "payload is missing")
	c.is("null", []byte("null"), "an object has to stand here")
	c.is("something behind it", append(bytes.Clone(c.base), c.base...), "something follows")
	c.is("an empty payload", c.signed("", a, b), "0 bytes")
	c.is("too large a payload", c.signed(strings.Repeat("x", maxPayload+1), a, b), "65537 bytes")
	c.edit("white space without end", "{\"payload\"", strings.Repeat(" ", 10)+"{\"payload\"", "")
	c.is("longer than any envelope", append(bytes.Clone(c.base), bytes.Repeat([]byte("\n"), maxEnvelope)...), "at most 262144")
	c.edit("payload twice", `{"payload"`, `{"payload":"AA==","payload"`, "stands there twice")
	c.edit("Payload", `{"payload"`, `{"Payload":"AA==","payload"`, "is not the name of a field")
	c.edit("critical", `{"payload"`, `{"crit":["x"],"payload"`, `it needs "x"`)
	b64 := base64.StdEncoding.EncodeToString([]byte(payload))
	c.edit("a payload without padding", b64+`"`, strings.TrimRight(b64, "=")+`"`, "")
	if !strings.HasSuffix(b64, "=") {
		c.t.Fatal("the payload should need padding")
	}
	c.list[len(c.list)-1].says = "not padded base64"
	c.edit("a payload with a line break", b64, b64[:8]+`\n`+b64[8:], "not padded base64")
	c.edit("a payload with bits to spare", b64, spare(b64), "not padded base64")
	c.edit("a payload in the URL's base64", b64, "-_8=", "not padded base64")
	c.edit("a payload as a list", `"`+b64+`"`, `[1,2]`, "payload is not a string")
	c.is("no signatures", []byte(`{"payload":"`+b64+`"}`), "signatures is missing")
	c.is("signatures are null", []byte(`{"payload":"`+b64+`","signatures":null}`), "signatures is not a list")
	c.is("a signature is null", []byte(`{"payload":"`+b64+`","signatures":[null]}`), "signature 1 is not an object")
	c.is("a signature without its key", []byte(`{"payload":"`+b64+`","signatures":[{"sig":"AA=="}]}`), "signature 1: key is missing")
	sig := Seal(HeadKind, []byte(payload), a).Signatures[0].Sig
	c.edit("Sig", `"sig":"`+sig+`"`, `"sig":"`+sig+`","Sig":"`+sig+`"`, "is not the name of a field")
	c.edit("a signature without padding", sig, sig[:86], "not padded base64")
	c.edit("a signature with bits to spare", sig, spare(sig), "not padded base64")
	c.edit("a short signature", sig, sig[:84], "has 63 bytes")
	for _, bad := range []string{"", "alice 1", "alice-1:x", ":", "älice-1", `alice\n`, `\u007f`, strings.Repeat("a", 256)} {
		c.edit(fmt.Sprintf("a key named %q", bad), `"alice-1"`, `"`+bad+`"`, "without a colon")
	}
	c.edit("an odd name of a stranger's key", `"alice-1"`, `"!/{}~"`, "1 of the 2")
	many := Seal(HeadKind, []byte(payload), a, b)
	for len(many.Signatures) < maxEnvelopeSignatures+1 {
		many.Signatures = append(many.Signatures, Signature{fmt.Sprint("x-", len(many.Signatures)), sig})
	}
	full := &Envelope{many.Payload, many.Signatures[:maxEnvelopeSignatures]}
	c.is("as many signatures as may be", mustJSON(c.t, full), "")
	c.is("too many signatures", mustJSON(c.t, many), "65 signatures")

	// S and S+L are one number modulo the order L of the group: RFC 8032 has
	// verifiers refuse the second, or there would be two texts of a signature.
	raw, err := base64.StdEncoding.DecodeString(sig)
	if err != nil {
		c.t.Fatal(err)
	}
	c.edit("a signature with S+L for S", sig, base64.StdEncoding.EncodeToString(addOrder(raw)), "1 of the 2")
}

// spare sets a bit in the last digit of base64 that no byte has.
func spare(s string) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	i := len(strings.TrimRight(s, "=")) - 1
	return s[:i] + string(digits[strings.IndexByte(digits, s[i])+1]) + s[i+1:]
}

// addOrder adds the order of the group of Ed25519 to the second half of sig.
func addOrder(sig []byte) []byte {
	order := []byte{0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 31: 0x10}
	sum := bytes.Clone(sig)
	carry := 0
	for i, o := range order {
		n := int(sig[32+i]) + int(o) + carry
		sum[32+i], carry = byte(n), n>>8
	}
	return sum
}

func pointerCases(c *cases) {
	by := []string{alice, bob}
	r := testRelease(c.t, by, "db-1", "role:web", "web-1")
	c.of("pointer", mustJSON(c.t, testPointer(c.t, r, 2)))
	c.is("as made", c.base, "")
	show := func(p *Pointer) []byte { return mustJSON(c.t, p) }
	with := func(change func(p *Pointer)) []byte {
		p := *testPointer(c.t, r, 2)
		p.Proof = slices.Clone(p.Proof)
		change(&p)
		return show(&p)
	}
	everyone := testRelease(c.t, by, "*")
	c.is("for everyone", show(testPointer(c.t, everyone, 0)), "")
	c.is("the only target", show(testPointer(c.t, testRelease(c.t, by, "web-1"), 0)), "")

	c.is("another host's", show(testPointer(c.t, r, 0)), `the entry is for "db-1", this host is "web-1"`)
	c.is("another host's in another case", show(testPointer(c.t, testRelease(c.t, by, "Web-1"), 0)), `is for "Web-1"`)
	for _, t := range []struct {
		name, says string
		change     func(t *Trust)
	}{
		{"another origin", "the release is of", func(t *Trust) { t.Origin = "other.example.org/prod" }},
		{"another channel", "the release is of the channel", func(t *Trust) { t.Channel = "staging" }},
		{"no origin", "the release is of", func(t *Trust) { t.Origin = "" }},
		{"a host that wants three signatures", "2 of the 3", func(t *Trust) { t.Threshold = 3 }},
		{"a host that wants none", "would accept unsigned", func(t *Trust) { t.Threshold = 0 }},
	} {
		trust := testTrust(c.t, "web-1")
		t.change(&trust)
		c.under(trust, t.name, c.base, t.says)
	}
	c.is("one signature", show(testPointer(c.t, testRelease(c.t, by[:1], "db-1", "web-1"), 1)), "1 of the 2")

	const notPart = "not part of the release"
	own := testPointer(c.t, r, 2)
	left := testPointer(c.t, r, 0)
	c.is("another index", with(func(p *Pointer) { p.Index = 1 }), notPart)
	c.is("an index beyond the last", with(func(p *Pointer) { p.Index = 3 }), notPart)
	c.is("a negative index", with(func(p *Pointer) { p.Index = -1 }), notPart)
	c.is("another proof", with(func(p *Pointer) { p.Proof = left.Proof }), notPart)
	c.is("no proof", with(func(p *Pointer) { p.Proof = tlog.RecordProof{} }), notPart)
	c.is("a proof with a bit changed", with(func(p *Pointer) { p.Proof[0][31] ^= 1 }), notPart)
	c.is("a proof that is too long", with(func(p *Pointer) { p.Proof = append(p.Proof, p.Proof[0]) }), notPart)
	c.is("the entry with a space behind it", with(func(p *Pointer) { p.Entry = append(bytes.Clone(p.Entry), ' ') }), notPart)
	c.is("an entry of ours", with(func(p *Pointer) { p.Entry = edit(c.t, p.Entry, "auto", "boot") }), notPart)
	c.is("a proof for one target", with(func(p *Pointer) { *p = Pointer{p.Head, p.Entry, 0, tlog.RecordProof{}} }), notPart)
	node := append(slices.Clone(left.Proof[0][:]), left.Proof[1][:]...)
	c.is("an inner node for an entry", with(func(p *Pointer) { *p = Pointer{p.Head, node, 0, tlog.RecordProof{own.Proof[0]}} }), notPart)
	reverse := testPointer(c.t, testRelease(c.t, by, "a", "b", "c", "web-1"), 3)
	flipped := *reverse
	flipped.Proof = tlog.RecordProof{reverse.Proof[1], reverse.Proof[0]}
	c.is("a proof upside down", show(&flipped), notPart)

	// Heads that a promoter's broken tool might sign.
	head := string(r.Head.Payload)
	resign := func(old, new string, entry []byte, index int64, proof tlog.RecordProof) []byte {
		text := edit(c.t, []byte(head), old, new)
		return show(&Pointer{Seal(HeadKind, text, testKey(c.t, alice), testKey(c.t, bob)), entry, index, proof})
	}
	c.is("a count that is too small", resign(`"count":3`, `"count":2`, left.Entry, 0, left.Proof), notPart)
	c.is("a count that is too large", resign(`"count":3`, `"count":4`, own.Entry, own.Index, own.Proof), notPart)
	c.is("a head of version 2", resign(`"v":1`, `"v":2`, own.Entry, own.Index, own.Proof), "version 2 is not known")
	c.is("a head that says seq twice", resign(`"seq":42`, `"seq":42,"seq":43`, own.Entry, own.Index, own.Proof), "stands there twice")
	starred := [][]byte{everyone.Entries[0], own.Entry}
	two := merkle.New(starred)
	root := r.headRoot(c)
	payload := edit(c.t, edit(c.t, []byte(head), `"count":3`, `"count":2`), root, Digest(two.Root()).String())
	env := Seal(HeadKind, payload, testKey(c.t, alice), testKey(c.t, bob))
	c.is("everyone's entry beside others", show(&Pointer{env, starred[0], 0, two.Proof(0)}), "is one of 2")
	broken := [][]byte{[]byte(`{"target":"web-1"}`)}
	one := merkle.New(broken)
	payload = edit(c.t, edit(c.t, []byte(head), `"count":3`, `"count":1`), root, Digest(one.Root()).String())
	env = Seal(HeadKind, payload, testKey(c.t, alice), testKey(c.t, bob))
	c.is("an entry that says nothing", show(&Pointer{env, broken[0], 0, one.Proof(0)}), "store_path is missing")

	c.is("an empty object", []byte("{}"), "entry is missing")
	c.is("null", []byte("null"), "an object has to stand here")
	c.is("something behind it", append(bytes.Clone(c.base), '0'), "something follows")
	c.is("without end", append(bytes.Clone(c.base), bytes.Repeat([]byte(" "), maxPointer)...), "at most")
	c.edit("index twice", `"index":2`, `"index":1,"index":2`, "stands there twice")
	c.edit("Index", `"index":2`, `"index":2,"Index":2`, "is not the name of a field")
	c.edit("an index with a fraction", `"index":2`, `"index":2.0`, "not a whole number")
	c.edit("no index", `"index":2`, `"no_index":2`, "index is missing")
	c.edit("no head", `"head":{`, `"no_head":{`, "head is missing")
	c.is("the head is null", mustJSON(c.t, map[string]any{"head": nil, "entry": own.Entry, "index": 2, "proof": own.Proof}), "head is not an object")
	c.is("the proof is null", mustJSON(c.t, map[string]any{"head": own.Head, "entry": own.Entry, "index": 2, "proof": nil}), "proof is not a list")
	c.is("the entry is null", mustJSON(c.t, map[string]any{"head": own.Head, "entry": nil, "index": 2, "proof": own.Proof}), "entry is not a string")
	c.is("a number in the proof", mustJSON(c.t, map[string]any{"head": own.Head, "entry": own.Entry, "index": 2, "proof": []int{1}}), "hash 1 is not base64")
	c.is("a long proof", with(func(p *Pointer) { p.Proof = make(tlog.RecordProof, maxProof+1) }), "at most 17")
	hash := own.Proof[0].String()
	c.edit("a hash in the proof with bits to spare", hash, spare(hash), "hash 1 is not base64")
	c.edit("a hash in the proof in hex", hash, fmt.Sprintf("%x", own.Proof[0][:]), "hash 1 is not base64")
}

// headRoot is the text of the root in the head.
func (r *Release) headRoot(c *cases) string {
	h, _, err := r.Check()
	if err != nil {
		c.t.Fatal(err)
	}
	return h.Targets.Root.String()
}

func releaseCases(c *cases) {
	r := testRelease(c.t, []string{alice}, "db-1", "role:web", "web-1")
	c.of("release", mustJSON(c.t, r))
	c.is("as made", c.base, "")
	c.is("for everyone", mustJSON(c.t, testRelease(c.t, nil, "*")), "")
	e := r.Entries
	// sealed is a release whose head fits its entries, whatever they are.
	sealed := func(leaves ...[]byte) []byte {
		text := edit(c.t, r.Head.Payload, `"count":3`, fmt.Sprintf(`"count":%d`, len(leaves)))
		text = edit(c.t, text, r.headRoot(c), Digest(merkle.New(leaves).Root()).String())
		return mustJSON(c.t, &Release{Head: Seal(HeadKind, text), Entries: leaves})
	}
	c.is("sealed by hand", sealed(e...), "")
	c.is("entries out of order", sealed(e[1], e[0], e[2]), "twice or out of order")
	c.is("an entry twice", sealed(e[0], e[0], e[2]), "twice or out of order")
	c.is("two entries for one target", sealed(e[0], edit(c.t, e[0], "auto", "boot")), "twice or out of order")
	c.is("everyone beside others", sealed(testRelease(c.t, nil, "*").Entries[0], e[0]), "must be the only one")
	c.is("a bad entry", sealed(e[0], []byte("{}")), "target is missing")
	c.is("an empty entry", sealed(e[0], []byte{}), "an object has to stand here")
	c.is("a head that is none", mustJSON(c.t, &Release{Head: Seal(HeadKind, []byte("{}")), Entries: e}), "head: v is missing")
	c.edit("an entry's string does not end well", `"entries":["`, `"entries":["\ud800","`, "surrogate")
	c.is("an entry missing", mustJSON(c.t, &Release{Head: r.Head, Entries: e[:2]}), "2 entries, the head says 3")
	c.is("an entry changed", mustJSON(c.t, &Release{Head: r.Head, Entries: Leaves{e[0], e[1], edit(c.t, e[2], "auto", "boot")}}), "the entries have the root")
	c.is("an empty object", []byte("{}"), "head is missing")
	c.is("the head is null", mustJSON(c.t, &Release{Entries: e}), "head is missing")
	c.is("no entries", mustJSON(c.t, &Release{Head: r.Head, Entries: Leaves{}}), "0 entries, the head says 3")
	c.edit("an entry is null", `"entries":["`, `"entries":[null,"`, "a string is missing")
	c.edit("entries as a string", `"entries":[`, `"entries":"","x":[`, "'[' is missing")
	b64 := base64.StdEncoding.EncodeToString(e[0])
	c.edit("an entry with a line break", b64, b64[:4]+`\n`+b64[4:], "not padded base64")
	c.edit("the head's payload twice", `"payload":`, `"payload":"AA==","payload":`, "stands there twice")
}
