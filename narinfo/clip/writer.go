package clip

import (
	"io"
	"math"
	"slices"
	"unicode/utf8"
)

// Writer writes to a terminal what others may have a part in: each Write as a Block of any
// length. It is a net below those who print, who make a Line of what has to stay one.
type Writer struct {
	out  io.Writer
	rest []byte // the beginning of a character
}

// NewWriter makes a Writer to out.
func NewWriter(out io.Writer) *Writer { return &Writer{out: out} }

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	text := slices.Concat(w.rest, p)
	whole := len(text)
	for i := 1; i < utf8.UTFMax && i <= len(text); i++ {
		if end := text[len(text)-i:]; utf8.RuneStart(end[0]) {
			if !utf8.FullRune(end) {
				whole = len(text) - i
			}
			break
		}
	}
	w.rest = append([]byte(nil), text[whole:]...)
	if _, err := io.WriteString(w.out, Block(string(text[:whole]), math.MaxInt)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Unwrap is what w writes to.
func (w *Writer) Unwrap() io.Writer { return w.out }

// Raw is the writer below any Writer, for sequences that are one's own.
func Raw(out io.Writer) io.Writer {
	for {
		w, ok := out.(*Writer)
		if !ok {
			return out
		}
		out = w.out
	}
}
