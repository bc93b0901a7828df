package nar

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// The JSON (RFC 8259) beneath ParseListing: just what it needs, since encoding/json lets a
// duplicate key pass and takes ten times as long.

// maxSkip bounds how deep an unknown value may nest.
const maxSkip = 32

func (p *listingParser) space() {
	for p.pos < len(p.text) {
		switch p.text[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

// next consumes white space and then c, if that is what follows.
func (p *listingParser) next(c byte) bool {
	p.space()
	if p.pos < len(p.text) && p.text[p.pos] == c {
		p.pos++
		return true
	}
	return false
}

// word consumes w if that is what follows.
func (p *listingParser) word(w string) bool {
	if len(p.text)-p.pos >= len(w) && string(p.text[p.pos:p.pos+len(w)]) == w {
		p.pos += len(w)
		return true
	}
	return false
}

// object reads an object and has value read the value of each key. The key is good until then.
func (p *listingParser) object(value func(key []byte) error) error {
	if !p.next('{') {
		return p.fail("an object is expected")
	}
	if p.next('}') {
		return nil
	}
	for {
		key, err := p.raw()
		if err != nil {
			return err
		}
		if !p.next(':') {
			return p.fail("a colon is expected")
		}
		if err := value(key); err != nil {
			return err
		}
		if p.next('}') {
			return nil
		}
		if !p.next(',') {
			return p.fail("a comma or the end of the object is expected")
		}
	}
}

// str reads a string.
func (p *listingParser) str() (string, error) {
	s, err := p.raw()
	return string(s), err
}

// raw reads a string, which lies in the text unless something in it was escaped. The text is
// known to be UTF-8.
func (p *listingParser) raw() ([]byte, error) {
	if !p.next('"') {
		return nil, p.fail("a string is expected")
	}
	start := p.pos
	for p.pos < len(p.text) && (plain[p.text[p.pos]] || p.text[p.pos] >= utf8.RuneSelf) {
		p.pos++
	}
	if p.pos < len(p.text) && p.text[p.pos] == '"' {
		p.pos++
		return p.text[start : p.pos-1], nil
	}
	s := append([]byte(nil), p.text[start:p.pos]...)
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		switch {
		case c == '"':
			p.pos++
			return s, nil
		case c == '\\':
			r, ok := p.escape()
			if !ok {
				return nil, p.fail("this escape is not allowed in a string")
			}
			s = utf8.AppendRune(s, r)
		case c < ' ':
			return nil, p.fail("a control character must be escaped in a string")
		default:
			s = append(s, c)
			p.pos++
		}
	}
	return nil, p.fail("the end of a string is missing")
}

// escape reads what follows a backslash. Half a surrogate pair stands for nothing and is refused.
func (p *listingParser) escape() (rune, bool) {
	if p.pos+1 >= len(p.text) {
		return 0, false
	}
	c := p.text[p.pos+1]
	if c == 'u' {
		r, ok := p.escapeUnit()
		if !ok || !utf16.IsSurrogate(r) {
			return r, ok
		}
		second, ok := p.escapeUnit()
		r = utf16.DecodeRune(r, second)
		return r, ok && r != utf8.RuneError
	}
	p.pos += 2
	switch c {
	case '"', '\\', '/':
		return rune(c), true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	}
	return 0, false
}

// escapeUnit reads \uXXXX.
func (p *listingParser) escapeUnit() (rune, bool) {
	if !p.word(`\u`) || len(p.text)-p.pos < 4 {
		return 0, false
	}
	v, err := strconv.ParseUint(string(p.text[p.pos:p.pos+4]), 16, 16)
	p.pos += 4
	return rune(v), err == nil
}

// skip reads any value and forgets it.
func (p *listingParser) skip(depth int) error {
	if depth == maxSkip {
		return p.fail("an unknown value is nested too deep")
	}
	p.space()
	if p.pos == len(p.text) {
		return p.fail("a value is missing")
	}
	switch c := p.text[p.pos]; {
	case c == '"':
		_, err := p.raw()
		return err
	case c == '{':
		return p.object(func([]byte) error { return p.skip(depth + 1) })
	case c == '[':
		p.pos++
		if p.next(']') {
			return nil
		}
		for {
			if err := p.skip(depth + 1); err != nil {
				return err
			}
			if p.next(']') {
				return nil
			}
			if !p.next(',') {
				return p.fail("a comma or the end of the array is expected")
			}
		}
	case c == '-' || '0' <= c && c <= '9':
		return p.skipNumber()
	}
	if !p.word("true") && !p.word("false") && !p.word("null") {
		return p.fail("a value is expected")
	}
	return nil
}

func (p *listingParser) skipNumber() error {
	digits := func() bool {
		start := p.pos
		for p.pos < len(p.text) && '0' <= p.text[p.pos] && p.text[p.pos] <= '9' {
			p.pos++
		}
		return p.pos > start
	}
	p.word("-")
	ok := p.word("0") || digits()
	if ok && p.word(".") {
		ok = digits()
	}
	if ok && (p.word("e") || p.word("E")) {
		if !p.word("+") {
			p.word("-")
		}
		ok = digits()
	}
	if !ok {
		return p.fail("this is not a number")
	}
	return nil
}
