package nar

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

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
	r.compact()
	for r.end < n {
		if r.srcErr != nil {
			return false
		}
		r.compact() // again if the last read has lent the buffer
		r.end += r.readOnce(r.buf[r.end:])
	}
	return true
}

// compact moves the unread bytes to the begin of the buffer, or of another one if it is lent.
func (r *Reader) compact() {
	to := r.buf
	if r.lent {
		r.lent = false
		if next := r.tap.Next(); next != nil {
			to = next
		}
	}
	r.base += int64(r.pos)
	r.end = copy(to, r.buf[r.pos:r.end])
	r.buf, r.pos = to, 0
}

// readOnce does one read that gives bytes or sets srcErr.
func (r *Reader) readOnce(p []byte) int {
	for range 100 {
		n, err := r.src.Read(p)
		if n < 0 || n > len(p) {
			panic("nar: the source's Read returned an impossible count")
		}
		r.srcErr = err
		if n > 0 && r.tap != nil {
			r.lent = true
			r.tap.Take(p[:n], r.buf)
		}
		if n > 0 || err != nil {
			return n
		}
	}
	r.srcErr = io.ErrNoProgress
	return 0
}

// refillBody replaces the used-up buffer by more bytes, of which a body needs at least one.
func (r *Reader) refillBody() error {
	r.pos = r.end
	if r.srcErr == nil {
		r.compact()
		r.end = r.readOnce(r.buf)
	} else {
		r.base, r.pos, r.end = r.base+int64(r.end), 0, 0
	}
	if r.end == 0 {
		return r.cutOff("the body")
	}
	return nil
}

// have consumes the phrase, of one string, if that is what comes next. It never waits for more
// bytes than the string that stands there has.
func (r *Reader) have(phrase string) bool {
	if !r.need(8) || string(r.buf[r.pos:r.pos+8]) != phrase[:8] {
		return false
	}
	return r.match(phrase)
}

func (r *Reader) match(phrase string) bool {
	n := len(phrase)
	if !r.need(n) || string(r.buf[r.pos:r.pos+n]) != phrase {
		return false
	}
	r.pos += n
	return true
}

// expect consumes the phrase or fails, naming the string of it that is wrong.
func (r *Reader) expect(phrase string) error {
	for !r.match(phrase) {
		length := int(phrase[0]) // of its first string, which is short
		n := 8 + length + Padding(int64(length))
		tag := phrase[8 : 8+length]
		if !r.match(phrase[:n]) {
			if tag == "entry" {
				return r.wrongTag(tag, ")")
			}
			return r.wrongTag(tag)
		}
		phrase = phrase[n:]
	}
	return nil
}

// expectBegin is expect for the start of the archive, where bytes that are no NAR at all are to
// be expected.
func (r *Reader) expectBegin() error {
	r.need(len(TagBegin))
	start := 8 + len(Magic) + Padding(int64(len(Magic)))
	seen := r.buf[r.pos:min(r.end, r.pos+start)]
	if !strings.HasPrefix(TagBegin, string(seen)) {
		return r.fail(0, "this is not a nar: it does not begin with %q", Magic)
	}
	if len(seen) == 0 && r.srcErr == io.EOF {
		err := r.fail(0, "the input is empty")
		err.cause = io.ErrUnexpectedEOF
		return err
	}
	return r.expect(TagBegin)
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
	if !r.need(n + Padding(int64(length))) {
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
