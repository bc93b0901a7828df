package terminal

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Each text takes the place of the one before, cut to the terminal.
func TestLive(t *testing.T) {
	tty, printed := newTerminal(t, 20)
	l := NewLive(tty)
	defer l.End()
	l.mu.Lock() // the clock stands still
	l.text = func(time.Time) []string { return []string{"web running", "├ canary, with many more words"} }
	l.draw(time.Now())
	l.text = func(time.Time) []string { return []string{"web completed"} }
	l.draw(time.Now())
	l.mu.Unlock()
	want := "\r\x1b[Jweb running\n├ canary, with man…\n\x1b[2A\r\x1b[Jweb completed\n"
	if got := printed(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	l.Lost(errors.New("connection refused"))
	if got := printed(); !strings.Contains(got, "web completed\nwaiting for the se…\n") {
		t.Errorf("%q", got)
	}
	many := make([]string, 50)
	l.Show(func(time.Time) []string { return many })
	if got := printed(); strings.Count(got, "\n") != 23 {
		t.Errorf("%d lines on a terminal of 24", strings.Count(got, "\n"))
	}
}

func TestNotLive(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if NewLive(f) != nil || NewLive(new(strings.Builder)) != nil {
		t.Error("a file is taken for a terminal")
	}
}
