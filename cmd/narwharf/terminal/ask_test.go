package terminal

import (
	"strings"
	"testing"
)

func TestAsk(t *testing.T) {
	for text, want := range map[string]bool{"y\n": true, "Yes\n": true, " yes": true, "n\n": false, "\n": false, "": false, "yep\n": false} {
		var out strings.Builder
		if err := Ask(strings.NewReader(text), &out, "go back?"); (err == nil) != want || !strings.HasPrefix(out.String(), "go back? [y/N] ") {
			t.Errorf("%q: %v, %q", text, err, out.String())
		}
	}
}
