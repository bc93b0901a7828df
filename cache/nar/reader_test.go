package nar

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReaderGivesBackWhatWasWritten(t *testing.T) {
	want := zoo()
	b := write(t, want...)
	got, err := read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for i, g := range got {
		if g.Type == Regular && string(b[g.Offset:g.Offset+g.Size]) != g.Body {
			t.Errorf("%q: the body is not at its Offset %d", g.Path, g.Offset)
		}
		g.Offset = 0
		if !reflect.DeepEqual(g, want[i]) {
			t.Errorf("entry %d is %+v, want %+v", i, g, want[i])
		}
	}
}

// spelled out by hand
func TestCanonicalForm(t *testing.T) {
	want := spell("nix-archive-1", "(", "type", "directory",
		"entry", "(", "name", "a", "node", "(", "type", "regular", "executable", "", "contents", "hi", ")", ")",
		"entry", "(", "name", "b", "node", "(", "type", "directory",
		"entry", "(", "name", "c", "node", "(", "type", "symlink", "target", "../a", ")", ")",
		")", ")",
		"entry", "(", "name", "d", "node", "(", "type", "regular", "contents", "", ")", ")",
		")")
	got := write(t, dir(""), exeFile("a", "hi"), dir("b"), link("b/c", "../a"), plainFile("d", ""))
	if !bytes.Equal(got, want) {
		t.Errorf("it is written\n%q, want\n%q", got, want)
	}
	if size, err := Check(bytes.NewReader(want)); err != nil || size != int64(len(want)) {
		t.Errorf("Check says %d, %v", size, err)
	}
}

func TestEveryPrefixIsCutOff(t *testing.T) {
	for name, b := range samples(t) {
		for n := range b {
			size, err := Check(bytes.NewReader(b[:n]))
			var format *FormatError
			if !errors.As(err, &format) || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%s cut off after %d of %d bytes: %v", name, n, len(b), err)
			}
			if format.Offset != int64(n) || size > int64(n) {
				t.Fatalf("%s cut off after %d bytes: reported at %d, %d bytes good", name, n, format.Offset, size)
			}
			if n%8 > 1 { // List takes the same steps: each string's start and first byte will do
				continue
			}
			if _, err := List(bytes.NewReader(b[:n]), 1<<20); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%s cut off after %d bytes: List says %v", name, n, err)
			}
		}
	}
}

// Whatever a bit is flipped to, the Reader must end; where it is in the framing, it must refuse.
func TestFlippedBits(t *testing.T) {
	for name, b := range samples(t) {
		list, err := read(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		free := make([]bool, len(b)) // bytes that may be anything
		for _, f := range list {
			for i := f.Offset; i < f.Offset+f.Size; i++ {
				free[i] = true
			}
		}
		c := bytes.Clone(b)
		rd := NewReader(nil)
		for i := range c {
			bits := []int{0, 1, 2, 3, 4, 5, 6, 7}
			if len(c) > 5000 { // two bits a byte keep the test short
				bits = []int{i % 8, (i + 3) % 8}
			}
			for _, bit := range bits {
				c[i] ^= 1 << bit
				rd.Reset(bytes.NewReader(c))
				err := drain(rd)
				if free[i] && err != nil {
					t.Errorf("%s with another body: %v", name, err)
				}
				if !free[i] && err == nil {
					// a name or a target may have become another good one
					if again, err := read(bytes.NewReader(c)); err != nil || !bytes.Equal(write(t, again...), c) {
						t.Errorf("%s with bit %d of byte %d flipped is accepted, but is not canonical", name, bit, i)
					}
				}
				c[i] ^= 1 << bit
			}
		}
	}
}

func drain(rd *Reader) error {
	for {
		if _, err := rd.Next(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// A hostile NAR must not make the answer longer than a client shows.
func TestMessagesAreShort(t *testing.T) {
	for _, c := range []string{"a", "\x01", "\xff", "é", "\U0010ffff", "\u2028", `"`} {
		name := func(last string) string { return strings.Repeat(c, MaxName/len(c)-1) + last }
		list := p("nix-archive-1", "(", "type", "directory")
		for range MaxDepth - 1 {
			list = append(list, "entry", "(", "name", name("x"), "node", "(", "type", "directory")
		}
		for _, tail := range [][]any{
			p("entry", "(", "name", name("x")),
			p("entry", "(", "name", name("/")),
			p("no"), p(strings.Repeat(c, maxTag/len(c))),
		} {
			_, err := Check(bytes.NewReader(spell(append(list, tail...)...)))
			if err == nil || len(err.Error()) >= 900 {
				t.Errorf("%d bytes: %v", len(err.Error()), err)
			}
		}
		list = append(list[:len(list)-1], "directory")
		list = append(list[:4+8], "entry", "(", "name", name("y"), "node", "(", "type", "regular", "contents", "", ")", ")",
			"entry", "(", "name", name("a"))
		_, err := Check(bytes.NewReader(spell(list...)))
		if err == nil || !strings.Contains(err.Error(), "comes after") || len(err.Error()) >= 900 {
			t.Errorf("%d bytes: %v", len(err.Error()), err)
		}
	}
}

// The same result however the source hands out its bytes.
func TestOddSources(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", bufferSize/8) // twice the buffer
	files := zoo()
	for n := -17; n <= 17; n++ { // entries across the edge of the buffer
		files = append(files, plainFile(fmt.Sprintf("zz%02d", n+17), big[:bufferSize+n]))
	}
	b := write(t, files...)
	want, err := read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"one byte":   iotest.OneByteReader,
		"half":       iotest.HalfReader,
		"data + EOF": iotest.DataErrReader,
		"stutter":    func(r io.Reader) io.Reader { return &stutterReader{r: r} },
	} {
		got, err := read(wrap(bytes.NewReader(b)))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: another result (%v)", name, err)
		}
		if size, err := Check(wrap(bytes.NewReader(b))); err != nil || size != int64(len(b)) {
			t.Errorf("%s: Check says %d, %v", name, size, err)
		}
	}
}

// stutterReader gives nothing every other time, as an io.Reader may.
type stutterReader struct {
	r    io.Reader
	idle bool
}

func (s *stutterReader) Read(p []byte) (int, error) {
	if s.idle = !s.idle; s.idle {
		return 0, nil
	}
	return s.r.Read(p[:min(len(p), 1000)])
}

// An error from below is passed on as such, at every place it can come from, and stays.
func TestSourceFails(t *testing.T) {
	broken := errors.New("the wire was cut")
	rd := NewReader(nil)
	for name, b := range samples(t) {
		for n := 0; n <= len(b); n++ {
			rd.Reset(io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(broken)))
			var err error
			for err == nil {
				_, err = rd.Next()
			}
			var format *FormatError
			if !errors.Is(err, broken) || errors.As(err, &format) {
				t.Fatalf("%s broken after %d bytes: %v", name, n, err)
			}
			if _, again := rd.Next(); !errors.Is(again, err) {
				t.Fatalf("%s broken after %d bytes: first %v, then %v", name, n, err, again)
			}
		}
	}
	if _, err := Check(dryReader{}); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a source that gives nothing: %v", err)
	}
}

type dryReader struct{}

func (dryReader) Read([]byte) (int, error) { return 0, nil }

func TestErrorsStick(t *testing.T) {
	b := spell("nix-archive-1", "(", "type", "regular", "contents", "hello", "junk")
	rd := NewReader(bytes.NewReader(b))
	if _, err := rd.Next(); err != nil {
		t.Fatal(err)
	}
	_, err := rd.Next()
	if err == nil || err == io.EOF {
		t.Fatalf("junk is accepted: %v", err)
	}
	for range 3 {
		if _, again := rd.Next(); !errors.Is(again, err) {
			t.Errorf("Next: first %v, then %v", err, again)
		}
		if _, again := rd.Read(make([]byte, 1)); !errors.Is(again, err) {
			t.Errorf("Read: first %v, then %v", err, again)
		}
	}
	// after the end as well
	rd.Reset(bytes.NewReader(write(t, plainFile("", "hello"))))
	for i := range 4 {
		if _, err := rd.Next(); (i > 0) != (err == io.EOF) {
			t.Fatalf("call %d of Next: %v", i, err)
		}
	}
	if n, err := rd.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("Read after the end: %d, %v", n, err)
	}
}

// The body may be read whole, in part, or not at all, with buffers of all sizes.
func TestPartialBodies(t *testing.T) {
	big := strings.Repeat("0123456789abcde", bufferSize/4)
	b := write(t, dir(""), plainFile("a", big), plainFile("b", "b"), plainFile("c", big), plainFile("d", ""))
	for _, size := range []int{1, 7, 4096, bufferSize - 1, bufferSize, bufferSize + 1, 1 << 20} {
		for _, part := range []int{0, 1, 100, bufferSize, len(big) - 1, len(big)} {
			rd := NewReader(bytes.NewReader(b))
			for {
				e, err := rd.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatalf("reads of %d, %d of the body: %v", size, part, err)
				}
				if n, err := rd.Read(nil); n != 0 || (err != nil) != (e.Size == 0) {
					t.Fatalf("%q: a read of nothing is %d, %v", e.Path, n, err)
				}
				var got []byte
				for p := make([]byte, size); len(got) < min(part, int(e.Size)); {
					n, err := rd.Read(p[:min(size, part-len(got))])
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, p[:n]...)
				}
				if len(big) > len(got) && e.Size > 1 && !strings.HasPrefix(big, string(got)) || len(got) == len(big) && string(got) != big {
					t.Fatalf("reads of %d: another body", size)
				}
			}
			if rd.Offset() != int64(len(b)) {
				t.Fatalf("Offset at the end is %d, want %d", rd.Offset(), len(b))
			}
		}
	}
}

// The last read must have said EOF: a source may still fail there, or go on.
func TestEndOfSourceIsSeen(t *testing.T) {
	b := write(t, plainFile("", "x"))
	src := &countingReader{r: bytes.NewReader(b)}
	if _, err := Check(src); err != nil || !src.eof {
		t.Errorf("Check says %v without having seen the end", err)
	}
	if src.calls > 2 {
		t.Errorf("%d reads for %d bytes", src.calls, len(b))
	}
}

type countingReader struct {
	r     io.Reader
	calls int
	eof   bool
}

func (c *countingReader) Read(p []byte) (int, error) {
	c.calls++
	n, err := c.r.Read(p)
	c.eof = c.eof || err == io.EOF
	return n, err
}

func TestCheckAllocatesLittle(t *testing.T) {
	b := write(t, zoo()...)
	src := bytes.NewReader(b)
	n := testing.AllocsPerRun(10, func() {
		src.Reset(b)
		if _, err := Check(src); err != nil {
			t.Fatal(err)
		}
	})
	if n > 8 {
		t.Errorf("%v allocations for a NAR of %d entries", n, len(zoo()))
	}
}
