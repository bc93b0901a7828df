package audit

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"narwharf/hooks/api"
)

// Who is a pattern of people and programs.
type Who struct{ text *regexp.Regexp }

// ParseWho reads a pattern: a name, a token's id, an address or a subject, in which `*`
// stands for anything. "" is everybody.
func ParseWho(pattern string) (*Who, error) {
	if len(pattern) > 256 {
		return nil, errors.New("a pattern of whom has at most 256 bytes")
	}
	if pattern == "" {
		pattern = "*"
	}
	text := strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*")
	re, err := regexp.Compile("^(?s:" + text + ")$")
	if err != nil {
		return nil, fmt.Errorf("%q is no pattern of whom: %w", pattern, err)
	}
	return &Who{re}, nil
}

// Did tells whether the pattern means who did what an event says.
func (w *Who) Did(e *api.Event) bool {
	if w.text.MatchString(e.By) {
		return true
	}
	a := e.Actor
	return a != nil && (w.text.MatchString(a.Name) || w.text.MatchString(a.Token) || w.text.MatchString(a.Subject) || w.text.MatchString(a.Address))
}
