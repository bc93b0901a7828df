// Package intake reads what hosts say of themselves.
//
// It is cut and cleaned where it comes in, and not refused: an agent drops a report for
// good that is refused, and a coloured line of an error must not lose the state that a
// host ended in. However long it is, little of it is in memory.
package intake

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
)

const (
	maxWord = 1 << 10 // bytes of a text
	maxText = 4 << 10 // bytes of an error, of why a host waits, or of what a check says
	maxID   = 64      // bytes of a machine's and of a boot's id
	maxList = 100     // entries of a list
)

// maxPlain is how long a report is that need not be copied first: nearly all are, and nothing
// in it is too large for memory.
const maxPlain = 8 << 10

// MaxSize bounds what is read of a report.
const MaxSize = 64 << 20

// Status reads a report. An error is that of r or of may, or an api.Error for what is no report.
// may says whether somebody may report of a channel; of a long report it is asked before most is read,
// and of what Status returns the caller asks it anew.
func Status(r io.Reader, may func(channel string) error) (*api.Status, error) {
	begin := &early{Reader: r, may: may, left: maxEarly}
	c := &copier{in: bufio.NewReaderSize(begin, maxPlain), begin: begin}
	text, err := c.in.Peek(maxPlain)
	if err != nil && err != io.EOF {
		return nil, err
	}
	st := new(api.Status)
	if err == io.EOF && json.Unmarshal(text, st) == nil {
		cleanStatus(st)
		return st, nil
	}
	*st = api.Status{}
	if err = c.value(0, maxText); err == nil {
		if err = json.Unmarshal(c.out.Bytes(), st); err != nil && c.head[1] > 0 {
			// A head that was cut, or is none, is not worth the rest.
			*st = api.Status{}
			err = json.Unmarshal(slices.Concat(c.out.Bytes()[:c.head[0]], []byte("null"), c.out.Bytes()[c.head[1]:]), st)
		}
	}
	switch {
	case c.failed != nil:
		return nil, c.failed
	case err != nil:
		return nil, api.Errorf(api.BadRequest, "the body is not the JSON that belongs here: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	cleanStatus(st)
	return st, nil
}

// cleanStatus cuts and cleans all texts of a report but those that are signed.
func cleanStatus(st *api.Status) {
	head := st.Head
	st.Head = nil
	cleanAll(reflect.ValueOf(st).Elem(), maxWord)
	st.Head = head
	durations := make(map[string]int64, len(st.Durations))
	for name, ms := range st.Durations {
		if len(durations) < maxList {
			durations[Clean(name, maxID)] = ms
		}
	}
	if st.Durations != nil {
		st.Durations = durations
	}
	st.Machine, st.BootID = clip.Text(st.Machine, maxID), clip.Text(st.BootID, maxID)
}

// cleanAll goes through a value. Texts for people may be longer than words.
func cleanAll(v reflect.Value, limit int) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(Clean(v.String(), limit))
	case reflect.Pointer:
		if !v.IsNil() {
			cleanAll(v.Elem(), limit)
		}
	case reflect.Slice:
		if v.Len() > maxList {
			v.Set(v.Slice(0, maxList))
		}
		for i := range v.Len() {
			cleanAll(v.Index(i), limit)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			limit := maxWord
			switch v.Type().Field(i).Name {
			case "Error", "Detail", "Reason":
				limit = maxText
			}
			if v.Field(i).CanSet() {
				cleanAll(v.Field(i), limit)
			}
		}
	}
}

// Clean is a text that is fit for terminals and pages, of at most limit bytes.
func Clean(s string, limit int) string { return clip.Line(s, limit) }

// copier copies a JSON document and leaves out what is too long on the way. It does not
// check more than it needs to: whoever reads the copy does.
type copier struct {
	in     *bufio.Reader
	begin  *early
	out    bytes.Buffer
	off    int    // within so many values that are left out
	head   [2]int // where the head begins and ends in out
	failed error  // of in
}

// maxCopy bounds a copy. When it is full, texts come out empty.
const maxCopy = 256 << 10

// MaxHeld is how much of a report is in memory at most.
const MaxHeld = 2 * maxCopy

var errSyntax = errors.New("it is cut off, or no JSON")

// next is the next byte, after white space.
func (c *copier) next() (byte, error) {
	for {
		b, err := c.in.ReadByte()
		if err != nil {
			return 0, c.broken(err)
		}
		if b != ' ' && b != '\t' && b != '\n' && b != '\r' {
			return b, nil
		}
	}
}

func (c *copier) broken(err error) error {
	if err == io.EOF {
		return errSyntax
	}
	c.failed = err
	return err
}

func (c *copier) put(text string) {
	if c.off == 0 {
		c.out.WriteString(text)
	}
}

// value copies a value, whose texts are cut at limit bytes.
func (c *copier) value(depth, limit int) error {
	b, err := c.next()
	switch {
	case err != nil:
		return err
	case depth > 16 || c.out.Len() > MaxHeld:
		return errSyntax
	case b == '{', b == '[':
		return c.list(b, depth, limit)
	case b == '"':
		_, err := c.text(limit)
		return err
	}
	return c.literal(b)
}

// list copies an object or an array, and leaves out what is beyond its first entries.
func (c *copier) list(open byte, depth, limit int) error {
	end := open + 2 // in ASCII, of both
	c.put(string(open))
	for n := 0; ; n++ {
		b, err := c.next()
		if err != nil {
			return err
		}
		if b == ',' && n > 0 {
			b, err = c.next()
		} else if b != end && n > 0 {
			return errSyntax
		}
		switch {
		case err != nil:
			return err
		case b == end:
			c.put(string(end))
			return nil
		}
		if n >= maxList {
			c.off++
		}
		if n > 0 {
			c.put(",")
		}
		err = c.entry(b, open == '{', depth, limit)
		if n >= maxList {
			c.off--
		}
		if err != nil {
			return err
		}
	}
}

// entry copies an entry of a list that begins with b.
func (c *copier) entry(b byte, keyed bool, depth, limit int) error {
	if !keyed {
		if err := c.in.UnreadByte(); err != nil {
			return err
		}
		return c.value(depth+1, limit)
	}
	if b != '"' {
		return errSyntax
	}
	key, err := c.text(maxWord)
	if err != nil {
		return err
	}
	if b, err = c.next(); err != nil {
		return err
	}
	if b != ':' {
		return errSyntax
	}
	c.put(":")
	if depth == 0 && key == "channel" && c.off == 0 {
		return c.channel()
	}
	if depth > 0 || key != "head" || c.off > 0 {
		return c.value(depth+1, limit)
	}
	c.head[0] = c.out.Len()
	err = c.value(1, maxCopy/2) // signed: whole, or of no use
	c.head[1] = c.out.Len()
	return err
}

// literal copies a number, true, false or null.
func (c *copier) literal(b byte) error {
	word := []byte{b}
	for len(word) < 40 {
		b, err := c.in.ReadByte()
		if err == io.EOF {
			break
		}
		if err != nil {
			return c.broken(err)
		}
		if !strings.ContainsRune("+-.eE", rune(b)) && (b < '0' || b > '9') && (b < 'a' || b > 'z') {
			if err := c.in.UnreadByte(); err != nil {
				return err
			}
			break
		}
		word = append(word, b)
	}
	c.put(string(word))
	return nil
}

// text copies a text whose opening quote was read, cut at limit bytes, and returns it.
func (c *copier) text(limit int) (string, error) {
	if c.out.Len() > maxCopy {
		limit = 0
	}
	var text []byte
	cut := false
	for {
		r, _, err := c.in.ReadRune()
		if err != nil {
			return "", c.broken(err)
		}
		if r == '"' {
			break
		}
		if r == '\\' {
			if r, err = c.escape(); err != nil {
				return "", err
			}
		}
		if !utf8.ValidRune(r) { // half a character of UTF-16
			r = unicode.ReplacementChar
		}
		if cut = cut || len(text)+utf8.RuneLen(r) > limit; !cut {
			text = utf8.AppendRune(text, r)
		}
	}
	if cut {
		text = append(text, "…"...)
	}
	quoted, err := json.Marshal(string(text))
	c.put(string(quoted))
	return string(text), err
}

// escape reads what follows a backslash.
func (c *copier) escape() (rune, error) {
	b, err := c.in.ReadByte()
	if err != nil {
		return 0, c.broken(err)
	}
	if i := strings.IndexByte(`bfnrt"\/`, b); i >= 0 {
		return rune("\b\f\n\r\t\"\\/"[i]), nil
	}
	if b != 'u' {
		return 0, errSyntax
	}
	r, err := c.hex()
	if err != nil || r < 0xd800 || r > 0xdbff {
		return r, err
	}
	if next, _ := c.in.Peek(2); string(next) != `\u` {
		return unicode.ReplacementChar, nil
	}
	_, _ = c.in.Discard(2) // was peeked at
	low, err := c.hex()
	if low < 0xdc00 || low > 0xdfff {
		return unicode.ReplacementChar, err
	}
	return (r-0xd800)<<10 | (low - 0xdc00) + 0x10000, err
}

func (c *copier) hex() (rune, error) {
	var digits [4]byte
	if _, err := io.ReadFull(c.in, digits[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = io.EOF
		}
		return 0, c.broken(err)
	}
	n, err := strconv.ParseUint(string(digits[:]), 16, 16)
	if err != nil {
		return 0, errSyntax
	}
	return rune(n), nil
}
