package terminal

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"narwharf/narinfo/clip"
)

// Live is a text on a terminal that is always up to date. It is safe for concurrent use.
type Live struct {
	out  io.Writer
	stop chan struct{}
	done chan struct{}

	mu    sync.Mutex
	text  func(now time.Time) []string
	lost  string
	lines int // that stand there
}

// NewLive is nil where out is no terminal.
func NewLive(out io.Writer) *Live {
	if size(out) == nil {
		return nil
	}
	l := &Live{out: clip.Raw(out), stop: make(chan struct{}), done: make(chan struct{})}
	go l.tick()
	return l
}

// tick draws it each second: there are times in it.
func (l *Live) tick() {
	defer close(l.done)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-ticker.C:
			l.mu.Lock()
			l.draw(time.Now())
			l.mu.Unlock()
		}
	}
}

// Show replaces the text.
func (l *Live) Show(text func(now time.Time) []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text, l.lost = text, ""
	l.draw(time.Now())
}

// Lost says beneath the text that it may not be up to date.
func (l *Live) Lost(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = "waiting for the server: " + err.Error()
	l.draw(time.Now())
}

func (l *Live) draw(now time.Time) {
	var lines []string
	if l.text != nil {
		lines = l.text(now)
	}
	if l.lost != "" {
		lines = append(lines, clip.Line(l.lost, maxWords))
	}
	var text strings.Builder
	if l.lines > 0 {
		fmt.Fprintf(&text, "\x1b[%dA", l.lines)
	}
	text.WriteString("\r\x1b[J")
	if s := size(l.out); s != nil && s.Row > 2 && len(lines) > int(s.Row)-1 {
		lines = append(lines[:s.Row-2], "…") // what has scrolled away cannot be drawn anew
	}
	for _, line := range lines {
		text.WriteString(cut(line, max(Width(l.out)-1, 1)) + "\n")
	}
	l.lines = len(lines)
	_, _ = io.WriteString(l.out, text.String())
}

// End leaves the last text where it stands.
func (l *Live) End() {
	close(l.stop)
	<-l.done
}
