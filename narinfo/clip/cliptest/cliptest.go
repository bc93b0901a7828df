// Package cliptest has what hosts, clients, releases and servers may call themselves, for tests of whatever shows it: a
// terminal obeys none of it, and a page has it as text.
package cliptest

import (
	"maps"
	"slices"
	"strings"
)

// Words are the texts, by what each tries.
var Words = map[string]string{
	"clear": "a\x1b[2J\x1b[Hb", "title": "\x1b]0;pwned\a", "colour": "\x1b[32mok\x1b[0m", "a row": "a\nweb-9  now  ok", "overwritten": "a\rok",
	"erased": "a\r\x1b[Kok", "C1": "a\u009b2Jb\u0085c", "right to left": "\u202egpj.exe", "isolate": "\u2067a\u2069", "no width": "ad\u200bmin\ufeff",
	"separators": "a\u2028b\u2029c", "tags": "a\U000e0041", "tabs": "a\tb", "nul": "a\x00b\x7f", "long": strings.Repeat("w", 20<<10), "marks": "z" + strings.Repeat("\u0301", 300),

	"script": `<script>alert(1)</script>`, "image": `"><img src=x onerror=alert(1)>`, "handler": `'onmouseover='alert(1)`, "link": `javascript:alert(1)`,
	"ends": `</title></textarea></style><b>`, "template": `{{.}}`, "entities": "&lt;&amp;&#x3c;b&#x3e;", "CR LF": "a\r\nb",
}

// All are the texts, in the order of the alphabet.
func All() []string { return slices.Sorted(maps.Values(Words)) }
