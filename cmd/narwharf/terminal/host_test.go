package terminal

import (
	"testing"

	"narwharf/hooks/api"
)

// TestObeyedText: what host show says of a directive is what the host has said
// of it, and nothing where that is not known.
func TestObeyedText(t *testing.T) {
	const done, older = ", which it has obeyed", ", which is older than what it has obeyed: it stays as it is; say it again if it is meant"
	for name, c := range map[string]struct {
		serial int64
		status *api.Status
		want   string
	}{
		"never reported":        {500, nil, ""},
		"not yet":               {500, &api.Status{HighestSeq: 7, DirectiveSerial: 400}, ""},
		"obeyed":                {500, &api.Status{HighestSeq: 7, DirectiveSerial: 500}, done},
		"obeyed a later one":    {500, &api.Status{HighestSeq: 7, DirectiveSerial: 501}, older},
		"of another release":    {500, &api.Status{HighestSeq: 6, DirectiveSerial: 501}, ""},
		"of a server before it": {0, &api.Status{HighestSeq: 7, DirectiveSerial: 501}, ""},
		"of an agent before it": {500, &api.Status{HighestSeq: 7}, ""},
	} {
		h := &api.Host{Directive: &api.Directive{Type: "retry", Seq: 7, ID: "d", Serial: c.serial}, Status: c.status}
		if got := obeyedText(h); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
