// Package clip makes text that others wrote fit for people: hosts, clients, servers and
// releases say what they like, and it ends at somebody's terminal, in a row of a table.
//
// It cuts text to a length. Clients of a binary cache show an answer only if it is
// shorter than 1024 bytes, and a name in it may have any length.
//
// It takes out of text what a terminal obeys or does not show (see [Line]): escape
// sequences, control characters of ASCII and of Latin 1, what changes the direction of
// writing (CVE-2021-42574), what has no width, and what is no UTF-8.
package clip

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const mark = "…"

// Text is s, or its beginning and "…" if s is longer than most bytes. The result
// has at most most bytes and is cut between characters.
func Text(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:start(s, most-len(mark))] + mark
}

// Line is Text as one line: what a terminal would obey or not show becomes U+FFFD, line
// breaks and tabs too; other blanks become spaces.
func Line(s string, most int) string { return shown(s, most, "") }

// Block is Text in which line breaks and tabs stay.
func Block(s string, most int) string { return shown(s, most, "\n\t") }

// ASCII is Text with all but what prints of ASCII, and what strconv.Quote would escape of
// that, replaced.
func ASCII(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '?'
		}
		return r
	}, s)
	return strings.ReplaceAll(Text(s, most), mark, "...")
}

// maxMarks is how many combining marks may stand on one character: no script needs more,
// and with hundreds they cover the lines above and below.
const maxMarks = 4

func shown(s string, most int, stay string) string {
	if most < (len(s)-1)/utf8.UTFMax { // what comes of the rest would be cut off
		s = s[:start(s, (most+1)*utf8.UTFMax)]
	}
	marks := 0
	s = strings.Map(func(r rune) rune {
		if ' ' <= r && r <= '~' {
			marks = 0
			return r
		}
		if marks++; !unicode.Is(unicode.M, r) {
			marks = 0
		}
		switch {
		case strings.ContainsRune(stay, r):
			return r
		case unicode.Is(unicode.Zs, r):
			return ' '
		case !unicode.IsPrint(r) || marks > maxMarks ||
			unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector):
			return unicode.ReplacementChar
		}
		return r
	}, s)
	return Text(s, most)
}

// Quote is strconv.Quote for hostile strings: the middle is left out so that the
// result, quotes and escapes included, has at most most bytes.
func Quote(s string, most int) string {
	for keep := most; ; keep = keep * 3 / 4 {
		short := s
		if len(s) > keep {
			tail := len(s) - keep/2
			for i := 0; i < utf8.UTFMax && tail < len(s) && !utf8.RuneStart(s[tail]); i++ {
				tail++
			}
			short = s[:start(s, keep/2)] + mark + s[tail:]
		}
		if q := strconv.Quote(short); len(q) <= most {
			return q
		}
	}
}

// start is at, or a little less, so that a character begins there.
func start(s string, at int) int {
	for i := 0; i < utf8.UTFMax && at > 0 && !utf8.RuneStart(s[at]); i++ {
		at--
	}
	return at
}

// List is a list for people, of at most eight.
func List(s []string) string {
	const most = 8
	if len(s) > most {
		return strings.Join(s[:most], ", ") + fmt.Sprintf(" and %d more", len(s)-most)
	}
	return strings.Join(s, ", ")
}
