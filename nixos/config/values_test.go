package config

import "testing"

func TestRate(t *testing.T) {
	for text, want := range map[string]Rate{"500K": 500 << 10, "4M": 4 << 20, "1G": 1 << 30, "2048": 2048, "1": 1} {
		var r Rate
		if err := r.UnmarshalText([]byte(text)); err != nil || r != want {
			t.Errorf("%s: %v, %d", text, err, r)
		}
	}
	for _, bad := range []string{"", "0", "-1", "4 M", "4MB", "x"} {
		if new(Rate).UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
