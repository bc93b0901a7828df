package hooks

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"narwharf/hooks/api"
)

// TestLabels: what is not named stays, null goes, and what no label can be is
// refused with nothing changed.
func TestLabels(t *testing.T) {
	w := newWorld(t)
	w.must(w.report(status(1, api.Idle)), 204, "")
	label := func(labels map[string]any) answer {
		return w.do("PATCH", "/api/v1/hosts/web-1", w.op, map[string]any{"labels": labels})
	}
	w.must(label(map[string]any{"rack": "2", "role": "web"}), 200, "")
	w.must(label(map[string]any{"rack": "3", "role": nil, "none": nil}), 200, "")
	many := make(map[string]any)
	for i := range 64 {
		many[fmt.Sprint("l", i)] = "x"
	}
	for name, bad := range map[string]map[string]any{
		"a name with a space":  {"a b": "x", "good": "y"},
		"no name":              {"": "x"},
		"a long value":         {"a": strings.Repeat("x", 257)},
		"a value with newline": {"a": "x\ny"},
		"too many":             many,
	} {
		if a := label(bad); a.status != 400 || a.err.Kind != api.BadRequest {
			t.Errorf("%s: %s", name, a)
		}
	}
	w.restart()
	h := decode[api.Host](t, w.must(w.do("GET", "/api/v1/hosts/web-1", w.op, nil), 200, ""))
	if want := map[string]string{"rack": "3"}; !maps.Equal(h.Labels, want) {
		t.Errorf("labels %v, want %v", h.Labels, want)
	}
}
