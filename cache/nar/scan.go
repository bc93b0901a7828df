package nar

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"narwharf/cache/nar/grammar"
	"narwharf/narinfo/clip"
)

// maxTag bounds how much of a wrong tag is shown; the longest right one is 13 bytes.
const maxTag = 32

// need makes at least n unread bytes stand in the buffer, n being far less than its size. It
// reports false if the source ends before.
func (r *Reader) need(n int) bool {
	return r.end-r.pos >= n || r.fill(n)
}

func (r *Reader) fill(n int) bool {
	r.base += int64(r.pos)
	r.end = copy(r.buf, r.buf[r.pos:r.end])
	r.pos = 0
	for r.end < n {
		if r.srcErr != nil {
			return false
		}
		r.end += r.readOnce(r.buf[r.end:])
	}
	return true
}

// readOnce does one read that gives bytes or sets srcErr.
func (r *Reader) readOnce(p []byte) int {
	for range 100 {
		n, err := r.src.Read(p)
		if n < 0 || n > len(p) {
			panic("nar: the source's Read returned an impossible count")
		}
		r.srcErr = err
		if n > 0 || err != nil {
			return n
		}
	}
	r.srcErr = io.ErrNoProgress
	return 0
}

// readSource reads from the source into p while the buffer is empty and a body is not at its end.
func (r *Reader) readSource(p []byte) (int, error) {
	if r.srcErr == nil {
		if n := r.readOnce(p); n > 0 {
			return n, nil
		}
	}
	return 0, r.cutOff("the body")
}

// refillBody replaces the used-up buffer by more bytes, of which a body needs at least one.
func (r *Reader) refillBody() error {
	r.base += int64(r.end)
	r.pos, r.end = 0, 0
	n, err := r.readSource(r.buf)
	r.end = n
	return err
}

// have consumes the phrase, of one string, if that is what comes next. It never waits for more
// bytes than the string that stands there has.
func (r *Reader) have(p *grammar.Phrase) bool {
	if !r.need(8) || string(r.buf[r.pos:r.pos+8]) != p.Raw[:8] {
		return false
	}
	n := len(p.Raw)
	if !r.need(n) || string(r.buf[r.pos:r.pos+n]) != p.Raw {
		return false
	}
	r.pos += n
	return true
}

// expect consumes the phrase or fails, naming the string of it that is wrong.
func (r *Reader) expect(p *grammar.Phrase) error {
	if n := len(p.Raw); r.need(n) && string(r.buf[r.pos:r.pos+n]) == p.Raw {
		r.pos += n
		return nil
	}
	raw := p.Raw
	for _, tag := range p.Tags {
		n := 8 + (len(tag)+7)&^7
		if !r.need(n) || string(r.buf[r.pos:r.pos+n]) != raw[:n] {
			if p == &grammar.EntryOpen && tag == p.Tags[0] {
				return r.wrongTag(tag, ")")
			}
			return r.wrongTag(tag)
		}
		r.pos += n
		raw = raw[n:]
	}
	panic("unreachable: each string of the phrase was there, but not the phrase")
}

// expectBegin is expect for the start of the archive, where bytes that are no NAR at all are to
// be expected.
func (r *Reader) expectBegin() error {
	r.need(len(grammar.Begin.Raw))
	start := 8 + (len(grammar.Magic)+7)&^7
	seen := r.buf[r.pos:min(r.end, r.pos+start)]
	if !strings.HasPrefix(grammar.Begin.Raw, string(seen)) {
		return r.fail(0, "this is not a nar: it does not begin with %q", grammar.Magic)
	}
	if len(seen) == 0 && r.srcErr == io.EOF {
		err := r.fail(0, "the input is empty")
		err.cause = io.ErrUnexpectedEOF
		return err
	}
	return r.expect(&grammar.Begin)
}

// wrongTag fails where one of the wanted strings should stand.
func (r *Reader) wrongTag(want ...string) error {
	at := r.Offset()
	quoted := make([]string, len(want))
	for i, w := range want {
		quoted[i] = fmt.Sprintf("%q", w)
	}
	wanted := strings.Join(quoted, " or ")
	if !r.need(8) {
		return r.cutOff(wanted)
	}
	length := binary.LittleEndian.Uint64(r.buf[r.pos:])
	if length > maxTag {
		return r.fail(at, "%s expected, but a string of %d bytes is announced", wanted, length)
	}
	n := 8 + int(length)
	if !r.need(n + grammar.Padding(int64(length))) {
		return r.cutOff(wanted)
	}
	found := string(r.buf[r.pos+8 : r.pos+n])
	for _, w := range want {
		if found == w {
			return r.fail(at, "the padding of %q is not zero", w)
		}
	}
	return r.fail(at, "%s expected, but found %s", wanted, clip.Quote(found, 160))
}

// cutOff fails because the source ended, or broke, before what the archive needs.
func (r *Reader) cutOff(before string) error {
	at := r.base + int64(r.end)
	if r.srcErr != io.EOF {
		r.err = fmt.Errorf("read nar at byte %d: %w", at, r.srcErr)
		return r.err
	}
	r.err = &FormatError{
		Offset:  at,
		Path:    string(r.path[:r.pathLen]),
		Problem: "the input is cut off here, before the end of " + before,
		cause:   io.ErrUnexpectedEOF,
	}
	return r.err
}
