package reply

import (
	"bytes"
	"path"
	"strings"
	"unicode/utf8"
)

// safeTypes are the types that are told; all else is text or bytes.
var safeTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".htm": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
	".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp", ".svg": "image/svg+xml",
	".pdf": "application/pdf", ".json": "application/json",
	".woff": "font/woff", ".woff2": "font/woff2", ".ttf": "font/ttf",
}

// TypePeek is how much of a file is looked at to see what it is.
const TypePeek = 512

// SafeType is a type that is known to be harmless here.
func SafeType(name string, start []byte) string {
	if t := safeTypes[strings.ToLower(path.Ext(name))]; t != "" {
		return t
	}
	if bytes.IndexByte(start, 0) < 0 {
		for cut := range utf8.UTFMax {
			if utf8.Valid(start[:len(start)-cut]) {
				return "text/plain; charset=utf-8"
			}
			if len(start) < TypePeek { // else its last character may be there by half
				break
			}
		}
	}
	return "application/octet-stream"
}
