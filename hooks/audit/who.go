package audit

import (
	"cmp"
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
func ParseWho(text string) (*Who, error) {
	re, err := pattern(cmp.Or(text, "*"))
	if err != nil {
		return nil, fmt.Errorf("whom: %w", err)
	}
	return &Who{re}, nil
}

// pattern is a text in which `*` stands for anything.
func pattern(text string) (*regexp.Regexp, error) {
	if len(text) > 256 {
		return nil, errors.New("a pattern has at most 256 bytes")
	}
	re, err := regexp.Compile("^(?s:" + strings.ReplaceAll(regexp.QuoteMeta(text), `\*`, ".*") + ")$")
	if err != nil {
		return nil, fmt.Errorf("%q is no pattern: %w", text, err)
	}
	return re, nil
}

// Did tells whether the pattern means who did what an event says.
func (w *Who) Did(e *api.Event) bool {
	if w.text.MatchString(e.By) {
		return true
	}
	a := e.Actor
	return a != nil && (w.text.MatchString(a.Name) || w.text.MatchString(a.Token) || w.text.MatchString(a.Subject) || w.text.MatchString(a.Address))
}
