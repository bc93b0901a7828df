package ijson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	nested := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	members := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"%d":%d`, i, i)
		}
		return "{" + strings.TrimPrefix(b.String(), ",") + "}"
	}
	for _, text := range []string{
		"{}", " \t\r\n{ } \n", `{"a":"b"}`, `{"":""}`, `{"a":[ ]}`, `{"a":[1, -1 ,0]}`, `{"a":true,"b":false,"c":null}`,
		`{"a":9007199254740991,"b":-9007199254740991}`,
		`{"a":"\"\\\/\b\f\n\r\t\u0000\u00e4\uFFFF"}`, `{"a":"\ud83d\ude00"}`, `{"a":"😀 ä","ä":1}`, `{"a":"x\ny"}`,
		`{"a":1,"A":2}`, // other names, unless the reader knows one of them
		nested(maxDepth), members(maxMembers),
	} {
		if _, err := Parse([]byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for text, says := range map[string]string{
		"":                             "an object has to stand here",
		"null":                         "an object has to stand here",
		`"a"`:                          "an object has to stand here",
		"[]":                           "an object has to stand here",
		"\xef\xbb\xbf{}":               "an object has to stand here",
		"{":                            "a name in quotes is missing",
		"{}{}":                         "something follows",
		"{}x":                          "something follows",
		"{}\x00":                       "something follows",
		`{"a":1,}`:                     "a name in quotes is missing",
		`{"a"}`:                        "':' is missing",
		`{"a":}`:                       "a value is missing",
		`{"a":1 "b":2}`:                "'}' is missing",
		`{"a":[1,]}`:                   "a value is missing",
		`{"a":[1}`:                     "']' is missing",
		`{a:1}`:                        "a name in quotes is missing",
		`{"a":tru}`:                    "a value is missing",
		`{"a":truee}`:                  "'}' is missing",
		`{"a":TRUE}`:                   "a value is missing",
		`{"a":NaN}`:                    "a value is missing",
		`{"a":1/**/}`:                  "'}' is missing",
		`{"a":1,"a":1}`:                `the name "a" stands there twice`,
		`{"a":1,"\u0061":1}`:           `the name "a" stands there twice`,
		`{"x":{"a":1,"b":2,"a":3}}`:    `the name "a" stands there twice`,
		`{"a":1.0}`:                    "not a whole number",
		`{"a":1e3}`:                    "not a whole number",
		`{"a":1E3}`:                    "not a whole number",
		`{"a":01}`:                     "not a whole number",
		`{"a":-0}`:                     "not a whole number",
		`{"a":-}`:                      "not a whole number",
		`{"a":+1}`:                     "a value is missing",
		`{"a":--1}`:                    "not a whole number",
		`{"a":0x10}`:                   "'}' is missing",
		`{"a":1_0}`:                    "'}' is missing",
		`{"a":9007199254740992}`:       "not a whole number",
		`{"a":-9007199254740992}`:      "not a whole number",
		`{"a":99999999999999999999}`:   "not a whole number",
		`{"a":1e999}`:                  "not a whole number",
		"{\"a\":\"\xff\"}":             "not UTF-8",
		"{\"a\":\"\xff\\n\"}":          "not UTF-8",
		"{\"a\":\"\xed\xa0\x80\"}":     "not UTF-8", // a surrogate as UTF-8
		"{\"a\":\"\xc0\x80\"}":         "not UTF-8", // an overlong NUL
		"{\"\xff\":1}":                 "not UTF-8",
		"{\"a\":\"\n\"}":               "control character",
		"{\"a\":\"\x00\"}":             "control character",
		`{"a":"b`:                      "does not end",
		`{"a":"b\`:                     "begins no escape",
		`{"a":"\x41"}`:                 "begins no escape",
		`{"a":"\u00e"}`:                "begins no escape",
		`{"a":"\u+123"}`:               "begins no escape",
		`{"a":"\u"}`:                   "begins no escape",
		`{"a":"\U00e4"}`:               "begins no escape",
		`{"a":"\'"}`:                   "begins no escape",
		`{"a":"\ud800"}`:               "surrogate",
		`{"a":"\udc00"}`:               "surrogate",
		`{"a":"\udc00\ud800"}`:         "surrogate",
		`{"a":"\ud800\u0041"}`:         "surrogate",
		`{"a":"\ud800\ud800"}`:         "surrogate",
		`{"a":"\ud800x\udc00"}`:        "surrogate",
		nested(maxDepth + 1):           "nested more than",
		strings.Repeat(`{"a":[`, 1000): "nested more than",
		members(maxMembers + 1):        "more than 64 names",
	} {
		_, err := Parse([]byte(text))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want … %s …", text, err, says)
		}
	}
}

func TestFields(t *testing.T) {
	for text, says := range map[string]string{
		`{"n":"1"}`:                      "n is not a whole number",
		`{"n":null}`:                     "n is not a whole number",
		`{"n":[1]}`:                      "n is not a whole number",
		`{}`:                             "n is missing",
		`{"N":1}`:                        `"N" is not the name of a field, "n" is`,
		`{"n":1,"N":1}`:                  `"N" is not the name of a field, "n" is`,
		`{"n":1,"\u004e":1}`:             `"N" is not the name of a field, "n" is`,
		`{"n":1,"crit":["x"]}`:           `it needs "x", which this version does not know`,
		`{"n":1,"crit":["x\u001b","y"]}`: `it needs "x\x1b", "y", which`,
		`{"n":1,"crit":[]}`:              "it needs something",
		`{"n":1,"crit":null}`:            "it needs something",
		`{"n":1,"crit":[1,{}]}`:          "it needs something",
		`{"n":1,"Crit":["x"]}`:           `"Crit" is not the name of a field, "crit" is`,
	} {
		o, err := Parse([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		r := Read(o, "n")
		r.Int("n")
		if r.Err == nil || !strings.Contains(r.Err.Error(), says) {
			t.Errorf("%s: %v, want … %s …", text, r.Err, says)
		}
	}
	// encoding/json takes both of these for "sk".
	for _, name := range []string{"ſk", "s\u212a"} {
		o, err := Parse([]byte(`{"sk":1,"` + name + `":2}`))
		if err != nil {
			t.Fatal(err)
		}
		if r := Read(o, "sk"); r.Err == nil {
			t.Errorf("%q beside sk was let through", name)
		}
	}
	o, err := Parse([]byte(`{"n":1,"other":{"N":2},"m":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	if r := Read(o, "n"); r.Int("n") != 1 || r.Err != nil {
		t.Errorf("unknown names: %v", r.Err)
	}
}

func TestBase64(t *testing.T) {
	for _, s := range []string{"A", "AA", "AA=", "AB==", "AAB=", "AA==\n", "A\nA==", " AA==", "AA== ", "-_==", "AAAA=", "AA==AA=="} {
		if b, err := Base64(s); err == nil {
			t.Errorf("%q was decoded to %x", s, b)
		}
	}
	for _, s := range []string{"", "AA==", "AAA=", "AAAA", "+/8="} {
		if _, err := Base64(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// asStandard is an object as encoding/json has it, numbers as their digits.
func asStandard(v any) any {
	switch v := v.(type) {
	case Object:
		m := make(map[string]any)
		for _, f := range v {
			m[f.Name] = asStandard(f.Value)
		}
		return m
	case []any:
		list := []any{}
		for _, item := range v {
			list = append(list, asStandard(item))
		}
		return list
	case int64:
		return json.Number(strconv.FormatInt(v, 10))
	}
	return v
}

// What is taken here must mean the same to encoding/json.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"a":[1,-1,true,false,null,{"b":"\ud83d\ude00ä\n"}]}`, `{}`, ` {"a" : "\u0000" } `, `{"a":1,"a":2}`, "{\"\xff\":1}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		o, err := Parse(text)
		if err != nil {
			return
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		var want any
		if err := d.Decode(&want); err != nil {
			t.Fatalf("%q is not JSON: %v", text, err)
		}
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			t.Fatalf("%q: something follows", text)
		}
		a, errA := json.Marshal(asStandard(o))
		b, errB := json.Marshal(want)
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Fatalf("%q was read as %s, by others as %s", text, a, b)
		}
	})
}
