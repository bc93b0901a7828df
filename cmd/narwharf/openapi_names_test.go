package main

import (
	"regexp"
	"strings"
	"testing"

	"narwharf/hooks"
)

// Names outside the grammar of the document are 400, and none of them is in it.
func TestAPIRefusesNames(t *testing.T) {
	s := newAPIServer(t)
	good := map[string]string{"channel": "web", "host": "web-1", "digest": strings.Repeat("ab", 32), "seq": "1", "pin": "one", "name": "one", "alarm": "1", "target": "ops", "path": strings.Repeat("a", 32) + "-x", "check": "smoke", "id": "m-1"}
	bad := map[string][]string{
		"channel": {"-web", "Web", "we%20b", strings.Repeat("w", 64)},
		"host":    {"-web", "we%20b", strings.Repeat("w", 128)},
		"digest":  {"ab", strings.Repeat("AB", 32), "sha512:" + strings.Repeat("ab", 32)},
		"seq":     {"0", "x", "9007199254740992"},
		"alarm":   {"0", "x", "01", "9007199254740992"},
		"target":  {"-ops", "o%20ps", strings.Repeat("w", 64)},
		"name":    {"-one", "on%20e", strings.Repeat("w", 65)},
		"pin":     {"-one", "on%20e", strings.Repeat("w", 128)},
		"check":   {"-one", "on%20e", strings.Repeat("w", 65)},
		"id":      {"-one", "on%20e", strings.Repeat("w", 129)},
		"path":    {"one", strings.Repeat("e", 32), strings.Repeat("a", 32) + "-"},
	}
	for _, r := range hooks.Routes() {
		for _, m := range regexp.MustCompile(`:(\w+)`).FindAllStringSubmatch(r.Pattern, -1) {
			pattern := s.doc.pattern(t, documentPath(r.Pattern), m[1])
			if pattern != "" && !regexp.MustCompile(pattern).MatchString(good[m[1]]) {
				t.Errorf("%s: %s is not in %s", r.Pattern, good[m[1]], pattern)
			}
			for _, name := range bad[m[1]] {
				if pattern != "" && regexp.MustCompile(pattern).MatchString(name) {
					t.Errorf("%s: %s is in %s", r.Pattern, name, pattern)
				}
				path := r.Pattern
				for param, value := range good {
					if param == m[1] {
						value = name
					}
					path = strings.ReplaceAll(path, ":"+param, value)
				}
				s.wantAPI(400, r.Method, r.Pattern, path+"?channel=web", "", s.admin)
			}
		}
	}
}
