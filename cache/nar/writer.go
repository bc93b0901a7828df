package nar

import (
	"errors"
	"io"
)

// Writer writes one NAR.
type Writer struct{ w io.Writer }

var errNotYet = errors.New("not yet")

// NewWriter returns a Writer that writes to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w} }

// WriteEntry starts an entry.
func (w *Writer) WriteEntry(e *Entry) error { return errNotYet }

// Write writes to the body of the current entry.
func (w *Writer) Write(p []byte) (int, error) { return 0, errNotYet }

// Close ends the archive.
func (w *Writer) Close() error { return errNotYet }

// Dump writes the file system object at root as a NAR.
func Dump(w io.Writer, root string) (int64, error) { return 0, errNotYet }

// Restore writes the NAR that r holds to dst, which must not exist.
func Restore(r io.Reader, dst string) error { return errNotYet }
