package clip

import (
	"strings"
	"testing"
)

func TestQuote(t *testing.T) {
	for _, tt := range []struct {
		in    string
		limit int
		want  string
	}{
		{"", 20, `""`},
		{"bin/run", 20, `"bin/run"`},
		{strings.Repeat("a", 18), 20, `"aaaaaaaaaaaaaaaaaa"`},
		{"begin" + strings.Repeat("-", 1000) + "end", 20, `"begin--…----end"`},
		{strings.Repeat("é", 500), 20, `"ééé…ééé"`},
		{strings.Repeat("\xff", 500), 40, `"\xff\xff\xff\xff…\xff\xff\xff\xff"`},
	} {
		got := Quote(tt.in, tt.limit)
		if got != tt.want || len(got) > tt.limit {
			t.Errorf("Quote(%q, %d) = %s, want %s", tt.in, tt.limit, got, tt.want)
		}
	}
}

func TestText(t *testing.T) {
	for _, tt := range []struct {
		in   string
		most int
		want string
	}{
		{"", 10, ""},
		{"0123456789", 10, "0123456789"},
		{"0123456789a", 10, "0123456…"},
		{"012345é789", 10, "012345…"},
		{strings.Repeat("\x80", 20), 10, strings.Repeat("\x80", 3) + "…"},
	} {
		got := Text(tt.in, tt.most)
		if got != tt.want || len(got) > tt.most {
			t.Errorf("Text(%q, %d) = %q, want %q", tt.in, tt.most, got, tt.want)
		}
	}
}
