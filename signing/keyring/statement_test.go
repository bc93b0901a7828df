package keyring

import (
	"encoding/json"
	"strings"
	"testing"

	"narwharf/signing"
)

func keysText(t testing.TB) string {
	w := &world{}
	b := w.base(1, "alice")
	return string(w.next(b, Walk(b, nil, nil), 1, []string{"alice", "p-bob"}, "alice").Payload)
}

// TestParseKeys: what is wrong is said.
func TestParseKeys(t *testing.T) {
	good := keysText(t)
	if _, err := ParseKeys([]byte(good)); err != nil {
		t.Fatal(err)
	}
	var k Keys
	if err := json.Unmarshal([]byte(good), &k); err != nil {
		t.Fatal(err)
	}
	first := `"` + k.Keys[0] + `"`
	for name, tt := range map[string]struct{ old, text, want string }{
		"another version":   {`"v":1`, `"v":2`, "version 2 of the format is not known"},
		"no version":        {`"version":1`, `"version":0`, "not between 1 and"},
		"case":              {`"version":1`, `"Version":1`, `"Version" is not the name of a field`},
		"crit":              {`"v":1`, `"crit":["x"],"v":1`, `it needs "x"`},
		"previous":          {`"previous":null`, `"previous":"sha256:` + strings.Repeat("01", 32) + `"`, "null in the first statement"},
		"zeros":             {`"previous":null`, `"previous":"sha256:` + strings.Repeat("0", 64) + `"`, "all zeros"},
		"no keys":           {first, ``, ""},
		"no key":            {first, `"x"`, "no colon"},
		"another algorithm": {first, `"alice:ed448:AAAA"`, "algorithm is not known here"},
		"no string":         {first, `7`, "no string"},
		"twice":             {first, first + "," + first, "there twice"},
		"threshold":         {`"threshold":1`, `"threshold":3`, "does not go with 2 keys"},
		"threshold of none": {`"threshold":1`, `"threshold":0`, "does not go with 2 keys"},
		"origin":            {`"origin":"cache`, `"origin":"/cache`, "is not like"},
		"channel":           {`"channel":"p`, `"channel":"P`, "not a channel name"},
		"time":              {`T00:00:00Z`, `T00:00:00.5Z`, "not a time"},
		"a fraction":        {`"v":1`, `"x":1.5,"v":1`, ""},
		"not JSON":          {`{`, `[`, ""},
		"long":              {`{`, `{"x":"` + strings.Repeat("x", maxPayload) + `",`, "at most"},
	} {
		text := strings.Replace(good, tt.old, tt.text, 1)
		if text == good {
			t.Errorf("%s: nothing was changed in %s", name, good)
		}
		if _, err := ParseKeys([]byte(text)); err == nil || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 500 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseRevocation(t *testing.T) {
	w := &world{}
	b := w.base(1, "alice")
	good := string(w.revoke(b, Walk(b, nil, nil), "recovery", "alice").Payload)
	if _, err := ParseRevocation([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ old, text, want string }{
		"another version": {`"v":1`, `"v":3`, "version 3 of the format"},
		"digest":          {`"digest":null`, `"digest":"sha256:` + strings.Repeat("01", 32) + `"`, "null with the version 0"},
		"version":         {`"version":0`, `"version":1`, "null with the version 0"},
		"reason":          {`"stolen"`, `"\u001b[2J"`, "control character"},
		"long":            {`"stolen"`, `"` + strings.Repeat("x", 2000) + `"`, "at most 1024"},
		"no reason":       {`"reason":"stolen",`, ``, "reason is missing"},
	} {
		text := strings.Replace(good, tt.old, tt.text, 1)
		if _, err := ParseRevocation([]byte(text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzParse: what is taken is read by encoding/json as the same, and is sealed as text that
// says the same.
func FuzzParse(f *testing.F) {
	w := &world{}
	b := w.base(1, "alice")
	r := Walk(b, nil, nil)
	e := w.next(b, r, 1, []string{"alice", "p-bob"}, "alice")
	f.Add(e.Payload)
	f.Add(w.next(b, Walk(b, list{e}, nil), 1, []string{"p-bob"}).Payload)
	f.Add(w.revoke(b, r, "recovery", "alice").Payload)
	f.Fuzz(func(t *testing.T, payload []byte) {
		if k, err := ParseKeys(payload); err == nil {
			var o Keys
			if err := json.Unmarshal(payload, &o); err != nil || o.Version != k.Version || o.Threshold != k.Threshold || strings.Join(o.Keys, " ") != strings.Join(k.Keys, " ") || !o.Created.Equal(k.Created) {
				t.Fatalf("%s: %+v and %+v, %v", payload, o, k, err)
			}
			again, err := k.Seal()
			if err != nil {
				t.Fatalf("%s: %v", payload, err)
			}
			if back, err := ParseKeys(again.Payload); err != nil || back.Version != k.Version || len(back.keys) != len(k.keys) {
				t.Fatalf("%s comes back as %s, %v", payload, again.Payload, err)
			}
		}
		if v, err := ParseRevocation(payload); err == nil {
			if again, err := v.Seal(); err != nil {
				t.Fatalf("%s: %v", payload, err)
			} else if _, err := ParseRevocation(again.Payload); err != nil {
				t.Fatalf("%s: %v", again.Payload, err)
			}
		}
		Walk(b, list{{Payload: payload, Signatures: []signing.Signature{}}}, list{{Payload: payload}})
	})
}
