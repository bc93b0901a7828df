// Package plot draws what the page shows as SVG: hosts as cells. What it makes is the same for the
// same input, has no style attributes, and is safe in a page.
package plot

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html"
	"html/template"
	"strconv"
	"strings"
)

// Cells are hosts as squares in rows, drawn with one path for each state. A state is a lower-case letter,
// which is the class of its path.
type Cells struct {
	ID     string // of the element
	Label  string // for who does not see it
	Ask    string // URL that says more of a cell, to which its number is appended; "" for none
	Names  []string
	States []byte // one for each of Names
}

// mostColumns bounds how wide the rows are: on a phone a cell is 2 pixels then.
const mostColumns = 160

// columns is how many cells are in a row.
func columns(n int) int {
	c := 24
	for c*c/4 < n {
		c += 8
	}
	return max(1, min(n, c, mostColumns))
}

// Key tells whether two drawings have the same cells in the same order.
func (c *Cells) Key() string {
	sum := sha256.New()
	_, _ = fmt.Fprintf(sum, "%s\x00", c.Ask) // never fails
	for _, name := range c.Names {
		_, _ = fmt.Fprintf(sum, "%s\x00", name) // never fails
	}
	return base64.RawURLEncoding.EncodeToString(sum.Sum(nil)[:9])
}

// Code is the states in runs: a letter and how often it comes, if that is more than once.
func Code(states []byte) string {
	var b strings.Builder
	for i := 0; i < len(states); {
		n := run(states, i)
		b.WriteByte(states[i])
		if n > 1 {
			b.WriteString(strconv.Itoa(n))
		}
		i += n
	}
	return b.String()
}

// run is how many cells from i on have the same state.
func run(states []byte, i int) int {
	n := 1
	for i+n < len(states) && states[i+n] == states[i] {
		n++
	}
	return n
}

// Runs says which cells are others now: "12-15:b 20:w", the numbers from 0 on and both included. It is
// for states of the same cells.
func Runs(was, is []byte) string {
	var b strings.Builder
	for i := 0; i < len(is); {
		if was[i] == is[i] {
			i++
			continue
		}
		n := 1
		for i+n < len(is) && is[i+n] == is[i] && was[i+n] != is[i+n] {
			n++
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(strconv.Itoa(i))
		if n > 1 {
			fmt.Fprintf(&b, "-%d", i+n-1)
		}
		b.WriteByte(':')
		b.WriteByte(is[i])
		i += n
	}
	return b.String()
}

// SVG is the drawing. A run of cells of a row is one line, which the style sheet dashes into squares.
func (c *Cells) SVG() template.HTML {
	cols := columns(len(c.States))
	rows := (len(c.States) + cols - 1) / cols
	var b strings.Builder
	fmt.Fprintf(&b, `<svg id="%s" class="cells" role="img" aria-label="%s" viewBox="0 0 %d %d" width="%d" data-columns="%d" data-cells="%s" data-ask="%s"><g transform="translate(.1 .5)">`,
		html.EscapeString(c.ID), html.EscapeString(c.Label), cols, max(rows, 1), cols*14, cols, Code(c.States), html.EscapeString(c.Ask))
	for letter := byte('a'); letter <= 'z'; letter++ {
		if d := line(c.States, letter, cols); d != "" {
			fmt.Fprintf(&b, `<path class="%c" d="%s"/>`, letter, d)
		}
	}
	b.WriteString("</g></svg>")
	return template.HTML(b.String()) //nolint:gosec // made of numbers, letters and what was escaped
}

// line is the path of the cells of a state.
func line(states []byte, letter byte, cols int) string {
	var b strings.Builder
	for row := 0; row*cols < len(states); row++ {
		of := states[row*cols : min((row+1)*cols, len(states))]
		for i := 0; i < len(of); {
			n := run(of, i)
			if of[i] == letter {
				fmt.Fprintf(&b, "M%d %dh%d", i, row, n)
			}
			i += n
		}
	}
	return b.String()
}
