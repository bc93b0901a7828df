package clip

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestQuote(t *testing.T) {
	for _, tt := range []struct {
		in    string
		limit int
		want  string
	}{
		{"", 20, `""`},
		{"bin/run", 20, `"bin/run"`},
		{strings.Repeat("a", 18), 20, `"aaaaaaaaaaaaaaaaaa"`},
		{"begin" + strings.Repeat("-", 1000) + "end", 20, `"begin--…----end"`},
		{strings.Repeat("é", 500), 20, `"ééé…ééé"`},
		{strings.Repeat("\xff", 500), 40, `"\xff\xff\xff\xff…\xff\xff\xff\xff"`},
	} {
		got := Quote(tt.in, tt.limit)
		if got != tt.want || len(got) > tt.limit {
			t.Errorf("Quote(%q, %d) = %s, want %s", tt.in, tt.limit, got, tt.want)
		}
	}
}

func TestText(t *testing.T) {
	for _, tt := range []struct {
		in   string
		most int
		want string
	}{
		{"", 10, ""},
		{"0123456789", 10, "0123456789"},
		{"0123456789a", 10, "0123456…"},
		{"012345é789", 10, "012345…"},
		{strings.Repeat("\x80", 20), 10, strings.Repeat("\x80", 3) + "…"},
	} {
		got := Text(tt.in, tt.most)
		if got != tt.want || len(got) > tt.most {
			t.Errorf("Text(%q, %d) = %q, want %q", tt.in, tt.most, got, tt.want)
		}
	}
}

// Nasties is what others write to fool whoever looks at a terminal.
var nasties = []struct{ name, in, line string }{
	{"plain", "web-1: ok", "web-1: ok"},
	{"other scripts", "größer ‰ 東京 עברית ไทย e\u0301 🙂", "größer ‰ 東京 עברית ไทย e\u0301 🙂"},
	{"a second row", "ok\nweb-2  ok", "ok�web-2  ok"},
	{"the row is overwritten", "failed\rok    ", "failed�ok    "},
	{"back over it", "failed\b\b\b\b\b\bok", "failed������ok"},
	{"clear the screen", "\x1b[2J\x1b[H", "�[2J�[H"},
	{"colour", "\x1b[32mok\x1b[0m", "�[32mok�[0m"},
	{"title", "\x1b]0;pwned\a", "�]0;pwned�"},
	{"clipboard", "\x1b]52;c;cm0=\x1b\\", "�]52;c;cm0=�\\"},
	{"link", "\x1b]8;;http://evil\x1b\\web", "�]8;;http://evil�\\web"},
	{"CSI of Latin 1", "\u009b2J", "�2J"},
	{"CSI as a byte", "\x9b2J", "�2J"},
	{"next line of Latin 1", "a\u0085b", "a�b"},
	{"nul, bell, delete", "\x00\a\x7f", "���"},
	{"line and paragraph separators", "a\u2028b\u2029c", "a�b�c"},
	{"vertical tab, form feed", "a\vb\fc", "a�b�c"},
	{"tab", "a\tb", "a�b"},
	{"right to left", "\u202egpj.exe", "�gpj.exe"},
	{"isolates", "\u2066a\u2069\u2067b\u2068", "�a��b�"},
	{"marks of direction", "a\u200e\u200f\u061cb", "a���b"},
	{"zero width", "ad\u200bmin\u200c\u200d\u2060\ufeff", "ad�min����"},
	{"soft hyphen", "ad\u00admin", "ad�min"},
	{"fillers", "a\u3164\u115f\uffa0\u034fb", "a����b"},
	{"variation selectors", "a\ufe0f\U000e0100", "a��"},
	{"tags", "a\U000e0041\U000e007f", "a��"},
	{"no-break and wide spaces", "a\u00a0\u3000\u2003b", "a   b"},
	{"private use", "\ue000", "�"},
	{"not assigned", "\u0378\U0010ffff", "��"},
	{"annotation", "a\ufff9b\ufffb", "a�b�"},
	{"no UTF-8", "a\xff\xc3b", "a��b"},
	{"half a surrogate pair", "\xed\xa0\x80", "���"},
	{"a tower of marks", "z" + strings.Repeat("\u0301", 6) + "a", "z" + strings.Repeat("\u0301", 4) + "��a"},
}

func TestLine(t *testing.T) {
	for _, c := range nasties {
		if got := Line(c.in, 1000); got != c.line {
			t.Errorf("%s: %q, want %q", c.name, got, c.line)
		}
		if got := Line(c.line, 1000); got != c.line {
			t.Errorf("%s: twice it is %q", c.name, got)
		}
	}
	if got := Line(strings.Repeat("\x1b", 1<<20), 20); got != "�����…" { // each has three bytes now
		t.Errorf("a long one is %q", got)
	}
	if got, want := Block("a\n\tb\r\n\x1b[2J", 100), "a\n\tb�\n�[2J"; got != want {
		t.Errorf("a block is %q, want %q", got, want)
	}
}

// Words of every length about the limits, of characters of every size.
func TestLengths(t *testing.T) {
	const most = 20
	for _, char := range []string{"a", "é", "€", "𝄞", "\x1b", "\xff"} {
		for n := range 8 * most {
			s := strings.Repeat(char, n)
			for name, got := range map[string]string{"Text": Text(s, most), "Line": Line(s, most), "Block": Block(s, most), "ASCII": ASCII(s, most), "Quote": Quote(s, most)} {
				if len(got) > most || name != "Text" && !utf8.ValidString(got) {
					t.Errorf("%s of %d times %q is %q", name, n, char, got)
				}
			}
		}
	}
}

func FuzzLine(f *testing.F) {
	for _, c := range nasties {
		f.Add(c.in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got := Line(in, 100)
		if len(got) > 100 || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q became %q", in, got)
		}
	})
}

func TestStrings(t *testing.T) {
	const nasty, line = "a\x1b[2J\nb", "a�[2J�b"
	type inner struct {
		Word  string
		Bytes []byte
		Any   any
	}
	type word string
	v := struct {
		Text   word
		Inner  *inner
		None   *inner
		List   []inner
		Map    map[string]inner
		Set    map[word]bool
		Times  [1]time.Time
		hidden string
	}{nasty, &inner{nasty, []byte(nasty), map[string]any{nasty: []any{nasty, 1.5, nil}}}, nil, []inner{{Word: nasty}},
		map[string]inner{nasty: {Word: nasty}}, map[word]bool{nasty: true}, [1]time.Time{time.Unix(1, 0)}, nasty}
	Strings(&v, 100)
	text := fmt.Sprintf("%q %q %q %q %q %v", v.Text, v.Inner.Word, v.Inner.Any, v.List[0].Word, v.Map[line].Word, v.Set)
	if strings.ContainsFunc(text, unicode.IsControl) || strings.Contains(text, `\x1b`) || strings.Contains(text, `\n`) || strings.Count(text, "�[2J�b") != 7 {
		t.Errorf("it is %s", text)
	}
	if string(v.Inner.Bytes) != nasty || v.hidden != nasty || !v.Times[0].Equal(time.Unix(1, 0)) {
		t.Errorf("bytes are %q, a field of its own %q, a time %v", v.Inner.Bytes, v.hidden, v.Times)
	}
	for _, v := range []any{nil, new(any), (*string)(nil)} {
		Strings(v, 10)
	}
	long := []string{strings.Repeat("x", 50)}
	if Strings(&long, 10); long[0] != "xxxxxxx…" {
		t.Errorf("a long one is %q", long[0])
	}
}

func TestWriter(t *testing.T) {
	for _, c := range nasties {
		for size := 1; size <= len(c.in)+1; size++ { // however it is cut
			var out strings.Builder
			w := NewWriter(&out)
			for chunk := range slices.Chunk([]byte(c.in), size) {
				if n, err := w.Write(chunk); n != len(chunk) || err != nil {
					t.Fatal(n, err)
				}
			}
			_, _ = io.WriteString(w, "\n")
			want := Block(c.in+"\n", 1000)
			if c.name == "a tower of marks" {
				continue // each Write counts its own
			}
			if got := out.String(); got != want {
				t.Errorf("%s, in pieces of %d: %q, want %q", c.name, size, got, want)
			}
		}
	}
	var out strings.Builder
	if w := NewWriter(NewWriter(&out)); Raw(w) != io.Writer(&out) || Raw(&out) != io.Writer(&out) {
		t.Error("it is not found below")
	}
}
