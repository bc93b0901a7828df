package nar

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"narwharf/narinfo/clip"
)

// AppendJSON appends the listing with n as its root, byte for byte the .ls document that Nix 2.26
// to 2.34 write for ?write-nar-listing=1: one line, keys sorted, "executable" only when true,
// narOffset only when known. (2.8 does not sort the keys of a node, and 2.35 writes
// "executable":false; to a reader of JSON all are the same.) A name or target that is not UTF-8
// cannot stand in JSON and is an error, as it is in Nix, where the whole copy fails over it.
func (n *Node) AppendJSON(dst []byte) ([]byte, error) {
	out, err := n.appendNode(append(dst, `{"root":`...))
	if err != nil {
		return dst, fmt.Errorf("write nar listing: %w", err)
	}
	return append(out, `,"version":1}`...), nil
}

// MarshalJSON returns what AppendJSON appends.
func (n *Node) MarshalJSON() ([]byte, error) { return n.AppendJSON(nil) }

func (n *Node) appendNode(dst []byte) (_ []byte, err error) {
	switch n.Type {
	case Regular:
		dst = append(dst, '{')
		if n.Executable {
			dst = append(dst, `"executable":true,`...)
		}
		if n.Offset != 0 {
			dst = append(dst, `"narOffset":`...)
			dst = strconv.AppendInt(dst, n.Offset, 10)
			dst = append(dst, ',')
		}
		dst = append(dst, `"size":`...)
		dst = strconv.AppendInt(dst, n.Size, 10)
		return append(dst, `,"type":"regular"}`...), nil
	case Directory:
		dst = append(dst, `{"entries":{`...)
		for i := range n.Entries {
			if i > 0 {
				dst = append(dst, ',')
			}
			e := &n.Entries[i]
			if dst, err = appendJSONString(dst, e.Name); err != nil {
				return nil, err
			}
			dst = append(dst, ':')
			if dst, err = e.appendNode(dst); err != nil {
				return nil, err
			}
		}
		return append(dst, `},"type":"directory"}`...), nil
	case Symlink:
		dst = append(dst, `{"target":`...)
		if dst, err = appendJSONString(dst, n.Target); err != nil {
			return nil, err
		}
		return append(dst, `,"type":"symlink"}`...), nil
	}
	return nil, fmt.Errorf("the node %s is of no type", clip.Quote(n.Name, 240))
}

// appendJSONString escapes what must be escaped and nothing else, in the way of Nix's JSON
// library, which leaves DEL and U+2028 as they are; encoding/json does not.
func appendJSONString(dst []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, fmt.Errorf("%s is not UTF-8: there is no listing for such a nar", clip.Quote(s, 240))
	}
	dst = append(dst, '"')
	for i := range len(s) {
		const short = "\b\f\n\r\t"
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= ' ':
			dst = append(dst, c)
		case strings.IndexByte(short, c) >= 0:
			dst = append(dst, '\\', "bfnrt"[strings.IndexByte(short, c)])
		default:
			dst = fmt.Appendf(dst, `\u%04x`, c)
		}
	}
	return append(dst, '"'), nil
}
