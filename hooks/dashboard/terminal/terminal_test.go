package terminal

import (
	"fmt"
	"strings"
	"testing"
	"unicode"
)

func show(lines []Line) string {
	var b strings.Builder
	for _, l := range lines {
		for _, p := range l {
			if p.Class != "" {
				fmt.Fprintf(&b, "<%s:%s>", p.Class, p.Text)
			} else {
				b.WriteString(p.Text)
			}
		}
		b.WriteString("|")
	}
	return b.String()
}

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		"":                                       "",
		"a\nb":                                   "a|b|",
		"\x1b[31mred\x1b[0m b":                   "<c1:red> b|",
		"\x1b[1;32mgood\nstill\x1b[m not":        "<c2 bold:good>|<c2 bold:still> not|",
		"\x1b[38;5;31mx\x1b[39my":                "xy|",
		"\x1b[38;2;31;32;33mx":                   "x|",
		"\x1b[91mx\x1b[22;39my":                  "<c1:x>y|",
		"\x1b]0;pwned\ax\x1b]8;;http://e\x1b\\y": "xy|",
		"\x1b[2J\x1b[Hx\x1b(By":                  "xBy|",
		"10 %\r50 %\rdone\r\nnext":               "done|next|",
		"\x1b":                                   "|",
		"\x1b[":                                  "|",
		"\x1b]no end":                            "|",
		"a\x1b[3\x01b":                           "a\uFFFDb|",
		"\u202eabc\u200b":                        "\uFFFDabc\uFFFD|",
		"<b>&":                                   "<b>&|",
	} {
		if got := show(Parse(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestBounds(t *testing.T) {
	lines := Parse(strings.Repeat("x", 1<<20) + "\nlast")
	if len(lines) != 2 || len(lines[0].Text()) > mostOf+8 || lines[1].Text() != "last" {
		t.Errorf("%d lines", len(lines))
	}
	if l := Parse(strings.Repeat("\x1b[31mx\x1b[32my", 500))[0]; len(l) > mostParts+3 {
		t.Errorf("%d pieces", len(l))
	}
}

func FuzzParse(f *testing.F) {
	f.Add("\x1b[31ma\x1b]0;x\a\x1b[")
	f.Fuzz(func(t *testing.T, in string) {
		for _, l := range Parse(in) {
			if strings.ContainsFunc(l.Text(), func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) {
				t.Errorf("%q: %q", in, l.Text())
			}
		}
	})
}
