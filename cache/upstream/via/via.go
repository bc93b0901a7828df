// Package via reads and writes the header Via (RFC 9110, 7.6.3) by which caches of our kind tell
// each other through which of them a request has come. Other proxies add entries of theirs, which do not count.
package via

import (
	"slices"
	"strings"
)

const mark = "narwharf-"

// MaxHops is how many caches a request goes through at most.
const MaxHops = 3

// Entries are those of caches like us in the values of the header, oldest first, MaxHops and one at most.
func Entries(values []string) (entries []string) {
	for entry := range strings.SplitSeq(strings.Join(values, ","), ",") {
		// "1.1 narwharf-0123456789abcdef", perhaps with a comment
		if words := strings.Fields(entry); len(words) >= 2 && strings.HasPrefix(words[1], mark) {
			if entries = append(entries, words[1]); len(entries) > MaxHops {
				break
			}
		}
	}
	return entries
}

// Has tells whether a cache is among entries.
func Has(entries []string, id string) bool { return slices.Contains(entries, mark+id) }

// Text is the value of Via in a request that came by entries and goes on from a cache.
func Text(entries []string, id string) string {
	var text strings.Builder
	for _, entry := range entries {
		text.WriteString("1.1 " + entry + ", ")
	}
	return text.String() + "1.1 " + mark + id
}

// Last is the id of the last cache of our kind in the values of the header, "" if there is none.
func Last(values []string) (id string) {
	for entry := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if words := strings.Fields(entry); len(words) >= 2 {
			if rest, ok := strings.CutPrefix(words[1], mark); ok {
				id = rest
			}
		}
	}
	return id
}
