package signing

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"
)

func TestSealedTimesArePlain(t *testing.T) {
	h := testHead()
	zone := time.FixedZone("east", 3600)
	h.Created = time.Date(2026, 2, 3, 5, 5, 6, 999, zone)
	expires := h.Created.Add(time.Hour + time.Millisecond)
	h.Expires = &expires
	r, err := NewRelease(h, []Entry{testEntry(t, "*")})
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := r.Check()
	if err != nil {
		t.Fatal(err)
	}
	if !got.Created.Equal(testHead().Created) || !got.Expires.Equal(testHead().Created.Add(time.Hour)) {
		t.Errorf("created %s, expires %s", got.Created, got.Expires)
	}
	if !expires.Equal(h.Created.Add(time.Hour + time.Millisecond)) {
		t.Error("the caller's head was changed")
	}
}

// What Check lets through can be read again; the rest is not signed.
func TestSealRefusesBadHeads(t *testing.T) {
	for name, v := range map[string]struct {
		change func(h *Head)
		says   string
	}{
		"seq 0":          {func(h *Head) { h.Seq = 0 }, "seq 0"},
		"seq 2^53":       {func(h *Head) { h.Seq = MaxSeq + 1 }, "2^53-1"},
		"order 2^53":     {func(h *Head) { h.Order = new(int64); *h.Order = -(MaxSeq + 1) }, "order -9007199254740992"},
		"no origin":      {func(h *Head) { h.Origin = "" }, "origin"},
		"no channel":     {func(h *Head) { h.Channel = "" }, "is not a channel name"},
		"no time":        {func(h *Head) { h.Created = time.Time{} }, "created is missing"},
		"far future":     {func(h *Head) { h.Created = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "created is missing"},
		"expires 1969":   {func(h *Head) { at := time.Unix(-1, 0); h.Expires = &at }, "expires is before 1970"},
		"expired":        {func(h *Head) { h.Expires = &h.Created }, "expires before it was created"},
		"meta not UTF-8": {func(h *Head) { h.Meta["rev"] = "\xff" }, "is not UTF-8"},
		"meta's name":    {func(h *Head) { h.Meta["\xff"] = "" }, "is not a name"},
		"too large": {func(h *Head) {
			h.Meta = make(map[string]string)
			for i := range maxMeta {
				h.Meta[string(rune('a'+i%26))+strings.Repeat("x", i/26)] = strings.Repeat("\n", maxValue)
			}
		}, "too much meta"},
	} {
		h := testHead()
		v.change(&h)
		r, err := NewRelease(h, []Entry{testEntry(t, "*")}, testKey(t, alice))
		wantError(t, name, err, v.says)
		if r != nil {
			t.Errorf("%s: a release was made", name)
		}
	}
}

func TestHeadCheckOfAnotherVersion(t *testing.T) {
	h := testHead()
	h.V = 2
	wantError(t, "2", h.Check(), "version 2 is not known here")
	r := &Release{Head: &Envelope{}}
	_, _, err := r.Check()
	wantError(t, "no payload", err, "0 bytes")
}

func FuzzParseHead(f *testing.F) {
	for _, tc := range allCases(f) {
		if tc.what == "head" && len(tc.text) < 8<<10 {
			f.Add(tc.text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := ParseHead(text)
		if err != nil {
			return
		}
		// It can be printed and read again.
		payload, err := h.payload()
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		again, err := ParseHead(payload)
		if err != nil || !sameHead(h, again) {
			t.Fatalf("%q was read as %+v and printed as %s (%v)", text, h, payload, err)
		}
		// Others read the same in it.
		var other Head
		if err := json.Unmarshal(text, &other); err != nil || !sameHead(h, &other) {
			t.Fatalf("%q is %+v, to others %+v (%v)", text, h, other, err)
		}
		// No text in it can move a terminal's cursor.
		for k, v := range h.Meta {
			if strings.ContainsAny(k+v, "\x1b\r\b\x7f\u009b\u202e") {
				t.Fatalf("meta %q %q", k, v)
			}
		}
	})
}

func sameHead(a, b *Head) bool {
	x, y := *a, *b
	same := maps.Equal(x.Meta, y.Meta)
	x.Meta, y.Meta = nil, nil
	s, errS := json.Marshal(x)
	u, errU := json.Marshal(y)
	return same && errS == nil && errU == nil && bytes.Equal(s, u)
}
