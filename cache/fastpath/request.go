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
}

var crlf = []byte("\r\n")

// parse reads the begin of a request.
func parse(b []byte) request {
	none := request{left: -1}
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return none
	}
	head := b[:end+2]
	// What net/http would refuse it shall refuse.
	for _, c := range head {
		if c < ' ' && c != '\r' && c != '\n' || c > '~' {
			return none
		}
	}
	// net/http ends lines at a bare "\n" too: what has one is not for us.
	lines := bytes.Count(head, crlf)
	if bytes.Count(head, crlf[1:]) != lines || bytes.Count(head, crlf[:1]) != lines {
		return none
	}
	line, fields, _ := bytes.Cut(head, crlf)
	line, ok := bytes.CutSuffix(line, []byte(" HTTP/1.1"))
	if !ok {
		return none
	}
	path, plain := bytes.CutPrefix(line, []byte("GET /"))
	r, hosts, length := request{}, 0, int64(-1)
	for len(fields) > 0 {
		var field []byte
		field, fields, _ = bytes.Cut(fields, crlf)
		name, value, ok := bytes.Cut(field, []byte(":"))
		if !ok {
			return none
		}
		value = bytes.Trim(value, " ")
		switch {
		case is(name, "host"):
			hosts++
			plain = plain && isHost(value)
		case is(name, "accept-encoding"):
			plain = plain && bytes.IndexByte(value, ';') < 0 // qualities are net/http's
			for item := range bytes.SplitSeq(value, []byte(",")) {
				r.gzip = r.gzip || is(bytes.Trim(item, " "), "gzip")
			}
		case is(name, "connection"):
			r.close = r.close || is(value, "close")
			if !is(value, "close") && !is(value, "keep-alive") {
				return none
			}
		case is(name, "content-length"):
			n, err := strconv.ParseUint(string(value), 10, 62)
			if err != nil || length >= 0 {
				return none
			}
			length, plain = int64(n), false
		case is(name, "transfer-encoding"), is(name, "upgrade"):
			return none
		default:
			plain = plain && saysNothing(name)
		}
	}
	r.left = max(length, 0) - int64(len(b)-end-4)
	if plain && hosts == 1 && r.left == 0 {
		r.path = path
	}
	return r
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
