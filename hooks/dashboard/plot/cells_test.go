package plot

import (
	"strings"
	"testing"
)

func cells(states string) *Cells {
	c := &Cells{ID: "c", Label: `<a "b">`, Ask: "/x?a=1&b=", States: []byte(states)}
	for range states {
		c.Names = append(c.Names, "h")
	}
	return c
}

func TestSVG(t *testing.T) {
	got := string(cells(strings.Repeat("w", 30) + "b" + strings.Repeat("w", 5)).SVG())
	for _, want := range []string{
		`viewBox="0 0 24 2"`, `data-cells="w30bw5"`, `<path class="w" d="M0 0h24M0 1h6M7 1h5"/>`, `<path class="b" d="M6 1h1"/>`,
		`aria-label="&lt;a &#34;b&#34;&gt;"`, `data-ask="/x?a=1&amp;b="`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in %s", want, got)
		}
	}
	if got := string(cells("").SVG()); strings.Contains(got, "path") {
		t.Errorf("nobody: %s", got)
	}
}

func TestRuns(t *testing.T) {
	for _, c := range []struct{ was, is, want string }{
		{"qqqq", "qqqq", ""}, {"qqqq", "wqqb", "0:w 3:b"}, {"qqqqq", "qwwwq", "1-3:w"}, {"qwq", "www", "0:w 2:w"}, {"", "", ""},
		{"qqqq", "wwbb", "0-1:w 2-3:b"},
	} {
		if got := Runs([]byte(c.was), []byte(c.is)); got != c.want {
			t.Errorf("from %s to %s: %q, want %q", c.was, c.is, got, c.want)
		}
	}
}

// The worst case: no two neighbours are in the same state.
func TestSize(t *testing.T) {
	states := make([]byte, 10_000)
	for i := range states {
		states[i] = "wbfaq"[i%5]
	}
	if n := len(cells(string(states)).SVG()); n > 130_000 {
		t.Errorf("10,000 hosts take %d bytes", n)
	}
}

func TestKey(t *testing.T) {
	a, b := &Cells{Names: []string{"a", "bc"}}, &Cells{Names: []string{"ab", "c"}}
	if a.Key() == b.Key() {
		t.Error("other hosts have the same key")
	}
}
