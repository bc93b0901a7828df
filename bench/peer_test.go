//go:build linux

package main

import "testing"

func TestParsePeer(t *testing.T) {
	for v, want := range map[string]peer{
		"harmonia=http://127.0.0.1:5000":      {"harmonia", "127.0.0.1:5000", ""},
		"a b=http://[::1]:5000/some/where/":   {"a b", "[::1]:5000", "/some/where"},
		"harmonia":                            {},
		"=http://127.0.0.1:5000":              {},
		"harmonia=https://127.0.0.1:5000":     {},
		"harmonia=http://cache.example:5000/": {},
		"harmonia=http://127.0.0.1":           {},
	} {
		got, err := parsePeer(v)
		if got != want || (err == nil) != (want != peer{}) {
			t.Errorf("%q: %+v, %v", v, got, err)
		}
	}
}
