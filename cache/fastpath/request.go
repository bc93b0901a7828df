package fastpath

import (
	"bytes"
	"strconv"
)

// A request is what its first bytes tell.
type request struct {
	path  []byte // of a GET that can be looked up; nil if it is net/http's
	gzip  bool   // the client would take that encoding
	close bool   // the connection ends behind the answer
	left  int64  // bytes of the request that are still to come; negative: unknown, or another has begun

	hosts  int
	sized  bool  // it has a Content-Length
	length int64 // of its body
}

var crlf = []byte("\r\n")

// parse reads the begin of a request.
func parse(b []byte) request {
	none := request{left: -1}
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 || !isPlain(b[:end+2]) {
		return none
	}
	line, fields, _ := bytes.Cut(b[:end+2], crlf)
	line, ok := bytes.CutSuffix(line, []byte(" HTTP/1.1"))
	if !ok {
		return none
	}
	path, plain := bytes.CutPrefix(line, []byte("GET /"))
	var r request
	for len(fields) > 0 {
		var field []byte
		field, fields, _ = bytes.Cut(fields, crlf)
		name, value, ok := bytes.Cut(field, []byte(":"))
		if !ok {
			return none
		}
		switch r.field(name, bytes.Trim(value, " ")) {
		case unknown:
			return none
		case slow:
			plain = false
		}
	}
	r.left = r.length - int64(len(b)-end-4)
	if plain && r.hosts == 1 && r.left == 0 {
		r.path = path
	}
	return r
}

// isPlain reports whether lines have nothing that net/http could refuse or take for
// another end of a line.
func isPlain(head []byte) bool {
	for _, c := range head {
		if c < ' ' && c != '\r' && c != '\n' || c > '~' {
			return false
		}
	}
	lines := bytes.Count(head, crlf) // net/http ends lines at a bare "\n", too
	return bytes.Count(head, crlf[1:]) == lines && bytes.Count(head, crlf[:1]) == lines
}

// What a field makes of a request.
type verdict int

const (
	fast    verdict = iota // the answer does not depend on it, or as we know
	slow                   // net/http has to answer
	unknown                // and the end of the request is not known
)

func (r *request) field(name, value []byte) verdict {
	switch {
	case is(name, "host"):
		r.hosts++
		return fastIf(isHost(value))
	case is(name, "accept-encoding"):
		for item := range bytes.SplitSeq(value, []byte(",")) {
			r.gzip = r.gzip || is(bytes.Trim(item, " "), "gzip")
		}
		return fastIf(bytes.IndexByte(value, ';') < 0) // qualities are net/http's
	case is(name, "connection"):
		r.close = r.close || is(value, "close")
		if !is(value, "close") && !is(value, "keep-alive") {
			return unknown
		}
		return fast
	case is(name, "content-length"):
		n, err := strconv.ParseUint(string(value), 10, 62)
		if err != nil || r.sized {
			return unknown
		}
		r.sized, r.length = true, int64(n)
		return slow
	case is(name, "transfer-encoding"), is(name, "upgrade"):
		return unknown
	}
	return fastIf(saysNothing(name))
}

func fastIf(ok bool) verdict {
	if ok {
		return fast
	}
	return slow
}

func is(name []byte, lower string) bool {
	return len(name) == len(lower) && bytes.EqualFold(name, []byte(lower))
}

// saysNothing reports whether no answer depends on a field: those that clients
// send always, and those by which proxies say whom they ask for.
func saysNothing(name []byte) bool {
	for _, c := range name { // else net/http refuses it
		if c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return is(name, "user-agent") || is(name, "accept") || is(name, "via") || is(name, "forwarded") || is(name, "traceparent") ||
		len(name) > 2 && is(name[:2], "x-")
}

// isHost reports whether a Host is a name or an address, with or without a port.
func isHost(b []byte) bool {
	for _, c := range b {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '-' <= c && c <= ':' && c != '/', c == '[', c == ']', c == '_':
		default:
			return false
		}
	}
	return true
}
