// Package terminal makes of what a program printed for a terminal what a page can show: lines of pieces with
// classes. Colours and bold stay (SGR, ECMA-48 8.3.117); whatever else a terminal would obey is left out.
package terminal

import (
	"fmt"
	"strings"

	"narwharf/narinfo/clip"
)

// Piece is text of one look.
type Piece struct{ Text, Class string }

// Line is one line.
type Line []Piece

// Text is a line without its looks.
func (l Line) Text() string {
	var b strings.Builder
	for _, p := range l {
		b.WriteString(p.Text)
	}
	return b.String()
}

const (
	mostBytes = 1 << 20 // of a text: its end is shown
	mostOf    = 4 << 10 // bytes of a line
	mostParts = 64      // looks of a line
)

// Parse reads a text.
func Parse(text string) (lines []Line) {
	if len(text) > mostBytes {
		text = text[len(text)-mostBytes:]
	}
	var look look
	for one := range strings.Lines(text) {
		one = strings.TrimRight(one, "\r\n")
		if i := strings.LastIndexByte(one, '\r'); i >= 0 { // a progress bar: what was written last stays
			one = one[i+1:]
		}
		if len(one) > mostOf {
			one = one[:mostOf] + "…"
		}
		lines = append(lines, look.line(one))
	}
	return lines
}

// look is how what follows is shown.
type look struct {
	colour int // 1 to 7, 0 for none
	bold   bool
}

func (l *look) class() string {
	class := ""
	if l.colour > 0 {
		class = fmt.Sprintf("c%d", l.colour)
	}
	if l.bold {
		class = strings.TrimSpace(class + " bold")
	}
	return class
}

func (l *look) line(text string) (line Line) {
	add := func(text string) {
		text = clip.Block(text, len(text)*3+3)
		if text = strings.ReplaceAll(text, "\n", ""); text != "" {
			line = append(line, Piece{text, l.class()})
		}
	}
	for {
		i := strings.IndexByte(text, '\x1b')
		if i < 0 || len(line) > mostParts {
			add(strings.ReplaceAll(text, "\x1b", ""))
			return line
		}
		add(text[:i])
		var sequence string
		sequence, text = escape(text[i+1:])
		if codes, ok := strings.CutSuffix(sequence, "m"); ok && strings.HasPrefix(codes, "[") {
			l.set(codes[1:])
		}
	}
}

// escape is the sequence at the beginning of a text behind ESC, and what comes after it.
func escape(text string) (sequence, rest string) {
	if text == "" {
		return "", ""
	}
	switch text[0] {
	case '[': // CSI: parameters, and a letter
		for i := 1; i < len(text); i++ {
			if text[i] >= 0x40 && text[i] <= 0x7e {
				return text[:i+1], text[i+1:]
			}
			if text[i] < 0x20 {
				return "", text[i:]
			}
		}
		return "", ""
	case ']', 'P', '_', '^', 'X': // strings that BEL or ST ends: titles, links
		end := strings.IndexByte(text, '\a')
		if st := strings.Index(text, "\x1b\\"); st >= 0 && (end < 0 || st < end) {
			return "", text[st+2:]
		}
		if end >= 0 {
			return "", text[end+1:]
		}
		return "", ""
	}
	return "", text[1:]
}

func (l *look) set(codes string) {
	list := strings.Split(codes, ";")
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == "" || c == "0":
			*l = look{}
		case c == "1":
			l.bold = true
		case c == "22":
			l.bold = false
		case c == "39":
			l.colour = 0
		case c == "38" || c == "48": // a colour by number or by parts: it is not shown, and its parts are no codes
			if i+1 < len(list) && list[i+1] == "5" {
				i += 2
			} else {
				i += 4
			}
		case len(c) == 2 && (c[0] == '3' || c[0] == '9') && c[1] >= '0' && c[1] <= '7':
			l.colour = int(c[1] - '0')
		}
	}
}
