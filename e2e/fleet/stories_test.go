package fleet

import (
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	if got := table(nil); got != "" {
		t.Errorf("a table without stories: %q", got)
	}
	got := table([]*story{
		{name: "promote", outcome: "ok", took: 1234 * time.Millisecond, notes: []string{"to last confirmed 0.90 s", "3 hosts"}},
		{name: "cut", outcome: "FAILED", took: time.Minute},
		{name: "lost"},
	})
	want := `story    outcome  seconds
promote  ok       1.2      to last confirmed 0.90 s, 3 hosts
cut      FAILED   60.0
lost     no end   0.0
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
