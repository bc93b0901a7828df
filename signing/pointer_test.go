package signing

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"narwharf/signing/merkle"
)

func TestPointerVerify(t *testing.T) {
	r := testRelease(t, []string{alice, carol}, "db-1", "web-1")
	for i, target := range []string{"db-1", "web-1"} {
		h, e, err := testPointer(t, r, i).Verify(testTrust(t, target))
		if err != nil || h.Seq != 42 || *e != testEntry(t, target) {
			t.Errorf("%s: %+v, %+v, %v", target, h, e, err)
		}
	}
	everyone := testPointer(t, testRelease(t, []string{alice, carol}, "*"), 0)
	for _, host := range []string{"db-1", "anything", "*"} {
		if _, e, err := everyone.Verify(testTrust(t, host)); err != nil || e.Target != Everyone {
			t.Errorf("%s: %v", host, err)
		}
	}
	var none *Pointer
	_, _, err := none.Verify(testTrust(t, "db-1"))
	wantError(t, "nil", err, "no pointer")
	_, _, err = new(Pointer).Verify(testTrust(t, "db-1"))
	wantError(t, "empty", err, "no head")
	_, err = VerifyHead(nil, testTrust(t, ""))
	wantError(t, "nil", err, "no head")
	for _, i := range []int{-1, 2} {
		_, err := r.Pointer(i)
		wantError(t, "beyond", err, "in a release of 2")
	}
	_, err = new(Release).Pointer(0)
	wantError(t, "no entries", err, "in a release of 0")
}

// A release that nobody checked, and one whose entries were exchanged after
// it was checked, give pointers that fit the entries they have now.
func TestPointerOfAnotherTree(t *testing.T) {
	r := testRelease(t, nil, "a", "b", "c")
	unchecked := &Release{Head: r.Head, Entries: r.Entries}
	for i := range r.Entries {
		a, b := testPointer(t, r, i), testPointer(t, unchecked, i)
		if !slices.Equal(a.Proof, b.Proof) {
			t.Errorf("proof %d differs", i)
		}
	}
	longer := testRelease(t, nil, "a", "b", "c", "d")
	swapped := *r
	swapped.Entries = longer.Entries
	want := testPointer(t, longer, 1)
	if got := testPointer(t, &swapped, 1); !slices.Equal(got.Proof, want.Proof) {
		t.Error("a proof from a tree of other entries")
	}
	other := testRelease(t, nil, "x", "y", "z")
	swapped = *r
	swapped.Entries = other.Entries
	want = testPointer(t, other, 2)
	if got := testPointer(t, &swapped, 2); !slices.Equal(got.Proof, want.Proof) {
		t.Error("a proof from a tree of as many other entries")
	}
}

func TestPointersAtOnce(t *testing.T) {
	targets := manyTargets(200)
	made := testRelease(t, []string{alice, bob}, targets...)
	r := &Release{Head: made.Head, Entries: made.Entries} // nobody built its tree
	trust := testTrust(t, "")
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			mine := trust
			for i := g; i < len(targets); i += 8 {
				mine.Target = targets[i]
				p, err := r.Pointer(i)
				if err == nil {
					_, _, err = p.Verify(mine)
				}
				if err != nil {
					t.Errorf("%d: %v", i, err)
				}
				if g == 0 && i%40 == 0 {
					if _, _, err := r.Check(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestPointerIsSmall(t *testing.T) {
	r, err := NewRelease(testHead(), []Entry{testEntry(t, "db-1")}, testKey(t, alice), testKey(t, bob))
	if err != nil {
		t.Fatal(err)
	}
	p := testPointer(t, r, 0)
	p.Proof = make(tlog.RecordProof, maxProof)
	if n := len(mustJSON(t, p)); n > 3<<10 {
		t.Errorf("%d bytes for each host of %d", n, MaxTargets)
	}
}

func TestPointerKeepsWhatItHad(t *testing.T) {
	p := testPointer(t, testRelease(t, nil, "a", "b"), 0)
	before := mustJSON(t, p)
	for _, text := range []string{`{}`, `{"head":{},"entry":"AA==","index":1,"proof":[]}`, `{"head":null,"entry":"AA==","index":1,"proof":[]}`} {
		if err := json.Unmarshal([]byte(text), p); err == nil {
			t.Errorf("%s was read", text)
		}
		if !bytes.Equal(before, mustJSON(t, p)) {
			t.Errorf("%s: changed by a failed read", text)
		}
	}
}

// splice replaces n bytes of b at a place by others.
func splice(b []byte, at, n uint16, with []byte) []byte {
	from := min(int(at), len(b))
	return slices.Concat(b[:from], with, b[min(len(b), from+int(n)):])
}

// No change to a valid pointer leaves it valid, but one that changes nothing
// of what a host acts on: signatures may come and go while enough are left.
func FuzzPointerVerify(f *testing.F) {
	made := testRelease(f, []string{alice, bob, carol}, "a", "b", "c", "d", "web-1")
	trust := testTrust(f, "web-1")
	base := testPointer(f, made, 4)
	text := mustJSON(f, base)
	if _, _, err := base.Verify(trust); err != nil {
		f.Fatal(err)
	}
	for part := range uint8(7) {
		f.Add(part, uint16(0), uint16(0), []byte(nil))
		f.Add(part, uint16(9), uint16(1), []byte("x"))
		f.Add(part, uint16(40), uint16(0), []byte(" "))
		f.Add(part, uint16(3), uint16(0), []byte{0})
	}
	f.Add(uint8(4), uint16(3), uint16(0), []byte(nil))
	f.Fuzz(func(t *testing.T, part uint8, at, n uint16, with []byte) {
		p := &Pointer{Head: &Envelope{base.Head.Payload, slices.Clone(base.Head.Signatures)}, Entry: base.Entry, Index: base.Index, Proof: slices.Clone(base.Proof)}
		switch part % 7 {
		case 0: // the text on the wire
			p = new(Pointer)
			if err := json.Unmarshal(splice(text, at, n, with), p); err != nil {
				return
			}
		case 1:
			p.Head.Payload = splice(p.Head.Payload, at, n, with)
		case 2:
			p.Entry = splice(p.Entry, at, n, with)
		case 3: // the proof as a row of bytes
			var row []byte
			for _, h := range p.Proof {
				row = append(row, h[:]...)
			}
			p.Proof = nil
			for chunk := range slices.Chunk(splice(row, at, n, with), tlog.HashSize) {
				if len(chunk) == tlog.HashSize {
					p.Proof = append(p.Proof, tlog.Hash(chunk))
				}
			}
		case 4:
			p.Index = int64(int16(at))
		case 5: // two of the signatures
			for i := range 2 {
				p.Head.Signatures[i].Sig = string(splice([]byte(p.Head.Signatures[i].Sig), at, n, with))
			}
		case 6: // all names of keys
			for i := range p.Head.Signatures {
				p.Head.Signatures[i].Key = string(splice([]byte(p.Head.Signatures[i].Key), at, n, with))
			}
		}
		h, e, err := p.Verify(trust)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Head.Payload, base.Head.Payload) || !bytes.Equal(p.Entry, base.Entry) || p.Index != base.Index || !slices.Equal(p.Proof, base.Proof) {
			t.Fatalf("a changed pointer verifies: %s", mustJSON(t, p))
		}
		kept := 0
		for _, s := range p.Head.Signatures {
			if slices.Contains(base.Head.Signatures, s) {
				kept++
			}
		}
		if kept < trust.Threshold {
			t.Fatalf("changed signatures verify: %v", p.Head.Signatures)
		}
		if h.Seq != 42 || e.Target != trust.Target {
			t.Fatalf("%+v %+v", h, e)
		}
	})
}

func BenchmarkPointer(b *testing.B) {
	for _, n := range []int{1, 10_000, MaxTargets} {
		release, err := NewRelease(testHead(), manyEntries(b, n), testKey(b, alice), testKey(b, bob))
		if err != nil {
			b.Fatal(err)
		}
		i := 0
		b.Run(fmt.Sprint("cut/", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				i = (i + 7919) % n
				if _, err := release.Pointer(i); err != nil {
					b.Fatal(err)
				}
			}
		})
		p := testPointer(b, release, 0)
		trust := testTrust(b, manyTargets(1)[0])
		b.Run(fmt.Sprint("verify/", n), func(b *testing.B) {
			for b.Loop() {
				if _, _, err := p.Verify(trust); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	raw := make([][]byte, MaxTargets)
	for i := range raw {
		raw[i] = make([]byte, 250)
	}
	b.Run(fmt.Sprint("tree/", MaxTargets), func(b *testing.B) {
		for b.Loop() {
			merkle.New(raw)
		}
	})
}
