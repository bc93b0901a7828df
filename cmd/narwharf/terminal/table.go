// Package terminal prints for people: tables that fit the terminal, with colours
// where they help, and how far long work is. Into a pipe it prints everything, plain.
package terminal

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"narwharf/narinfo/clip"
)

// Width is how many columns out has: $COLUMNS if that is set, else those of the
// terminal that it is; 0 of what is none.
func Width(out io.Writer) int {
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	if size := size(out); size != nil {
		return max(int(size.Col), 20)
	}
	return 0
}

// size is nil for what is no terminal.
func size(out io.Writer) *unix.Winsize {
	f, ok := clip.Raw(out).(*os.File)
	if !ok {
		return nil
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return nil
	}
	return size
}

// colours tells whether out shows them and may: https://no-color.org.
func colours(out io.Writer) bool {
	return size(out) != nil && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// A Mood is what a cell means to whoever looks for trouble; its value is the colour, as
// terminals number them.
type Mood int

// The moods.
const (
	Plain Mood = 0
	Bad   Mood = 31
	Good  Mood = 32
	Busy  Mood = 33
	Dim   Mood = 2
)

// A Cell is a text with a mood. Cells of other types are printed as they are.
type Cell struct {
	Text string
	Mood Mood
}

const (
	gap     = 2 // between columns
	minimum = 4 // of a column that is cut
	// What a host, a server or a release says is cut and cleaned before it is printed.
	maxWords = 4096
)

// Table prints rows under a heading, whose columns are separated by tabs. One row is
// one line: where the terminal is too narrow the widest columns are cut.
func Table(out io.Writer, heading string, fill func(row func(cells ...any))) error {
	var head []any
	for name := range strings.SplitSeq(heading, "\t") {
		head = append(head, name)
	}
	var rows [][]Cell
	add := func(cells ...any) {
		row := make([]Cell, len(cells))
		for i, cell := range cells {
			c, ok := cell.(Cell)
			if !ok {
				c.Text = fmt.Sprint(cell)
			}
			c.Text = clip.Line(c.Text, maxWords)
			row[i] = c
		}
		rows = append(rows, row)
	}
	add(head...)
	fill(add)
	widths := fit(rows, Width(out))
	coloured := colours(out)
	var text strings.Builder
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			shown := cut(cell.Text, widths[i])
			space := strings.Repeat(" ", widths[i]-columns(shown)+gap)
			if coloured && cell.Mood != Plain {
				shown = fmt.Sprintf("\x1b[%dm%s\x1b[0m", cell.Mood, shown)
			}
			line += shown + space
		}
		text.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(clip.Raw(out), text.String()) // the colours are ours
	return err
}

// fit is how wide each column is.
func fit(rows [][]Cell, width int) []int {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], columns(cell.Text))
		}
	}
	total := gap * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for width > 0 && total > width {
		widest := 0
		for i, w := range widths {
			if w >= widths[widest] { // of two the right one
				widest = i
			}
		}
		if widths[widest] <= minimum {
			break
		}
		widths[widest]--
		total--
	}
	return widths
}

// cut shortens a text to so many columns. Of a store path its name is what counts.
func cut(text string, width int) string {
	if columns(text) <= width {
		return text
	}
	if dir, name, ok := strings.Cut(text, "-"); ok && strings.HasPrefix(dir, "/") && len(dir) > 32 && !strings.Contains(text, " ") {
		if text = "…-" + name; columns(text) <= width {
			return text
		}
	}
	short := ""
	for _, r := range text {
		if columns(short+string(r)) > width-1 {
			break
		}
		short += string(r)
	}
	return short + "…"
}

// wide are scripts whose letters take two columns.
var wide = []*unicode.RangeTable{unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana}

// columns is how much room a text takes.
func columns(text string) (n int) {
	for _, r := range text {
		switch {
		case unicode.In(r, unicode.Mn, unicode.Me):
		case unicode.In(r, wide...) || r >= 0xff01 && r <= 0xff60 || r >= 0x1f300 && r <= 0x1faff:
			n += 2
		default:
			n++
		}
	}
	return n
}

// JSON prints what programs read.
func JSON(out io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, string(text))
	return err
}

// Unknown is a text, or "unknown" for what a database that was lost had.
func Unknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}
