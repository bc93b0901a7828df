package cause

import (
	"strings"
	"testing"
)

func TestBetween(t *testing.T) {
	plain := Facts{"kernel": "k1", "initrd": "i1", "kernel-params": "quiet"}
	for _, c := range []struct {
		a, b Facts
		want string
	}{
		{plain, plain, ""},
		{plain, Facts{"kernel": "k2", "initrd": "i1", "kernel-params": "loud"}, "kernel kernel-params"},
		{plain, Facts{}, "initrd kernel kernel-params"},
		{Facts{Triggers: `{"a":1,"b":{"c":2}}`, "kernel": "k1"}, Facts{Triggers: `{"a":1,"b":{"c":3},"d":null}`, "kernel": "k2"}, "b d"},
		{Facts{Triggers: `{"a":1}`}, Facts{Triggers: `{}`}, "a"},
		{Facts{Triggers: "no JSON"}, Facts{Triggers: "other"}, "content"},
		{Facts{Triggers: `{"a":1}`, "kernel": "k1"}, Facts{"kernel": "k2"}, "kernel"}, // only one lists them
	} {
		if got := strings.Join(Between(c.a, c.b), " "); got != c.want {
			t.Errorf("%v against %v: %q, want %q", c.b, c.a, got, c.want)
		}
	}
}
