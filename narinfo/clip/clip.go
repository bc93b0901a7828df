// Package clip cuts text that others wrote to a length that fits a message for
// people. Clients of a binary cache show an answer only if it is shorter than
// 1024 bytes, and a name in it may have any length.
package clip

import (
	"fmt"
	"strconv"
	"strings"
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
