package reply

import (
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"strings"

	"narwharf/cache/refusal"
)

// Ranges and conditions for what net/http's ServeContent cannot send: content
// that is made while it goes out.

// Span is the bytes [from, to) of something.
type Span struct{ From, To int64 }

// ParseRange reads a Range header over size bytes (RFC 9110, 14.1.2). Several
// ranges, another unit, or what is not well formed is as good as no header, as
// the RFC allows; then partial is false. A range outside of the content is a
// refusal.
func ParseRange(header string, size int64) (s Span, partial bool, err error) {
	whole := Span{0, size}
	text, ok := strings.CutPrefix(header, "bytes=")
	if !ok || strings.Contains(text, ",") || size == 0 { // of nothing there is no part
		return whole, false, nil
	}
	first, last, ok := strings.Cut(strings.TrimSpace(text), "-")
	if !ok {
		return whole, false, nil
	}
	number := func(s string) (int64, bool) {
		n, err := strconv.ParseUint(s, 10, 63) // no sign, no space
		return int64(n), err == nil
	}
	if first == "" {
		n, ok := number(last)
		switch {
		case !ok:
			return whole, false, nil
		case n == 0:
			return whole, false, outside(size)
		}
		return Span{max(size-n, 0), size}, true, nil
	}
	from, ok := number(first)
	if !ok {
		return whole, false, nil
	}
	to := size
	if last != "" {
		end, ok := number(last)
		if !ok || end < from {
			return whole, false, nil
		}
		to = min(end, size-1) + 1
	}
	if from >= size {
		return whole, false, outside(size)
	}
	return Span{from, to}, true, nil
}

func outside(size int64) error {
	return refusal.New(refusal.Range, "the range is outside of the %d bytes that there are", size)
}

// ContentRange is the header of a 206.
func (s Span) ContentRange(size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", s.From, s.To-1, size)
}

// Conditions answers the request for a NAR if its conditions say so.
func Conditions(w *Writer, req *http.Request, etag string) (done bool, err error) {
	switch condition(req, etag) {
	case http.StatusPreconditionFailed:
		err = refusal.New(refusal.Condition, "the NAR has another ETag")
	case http.StatusNotModified:
		done = true
		w.WriteHeader(http.StatusNotModified)
	}
	return done, err
}

// condition judges the conditions of a request against a strong ETag, in the
// order of RFC 9110, 13.2.2: 0 to go on, else 304 or 412.
func condition(req *http.Request, etag string) (status int) {
	if match := req.Header["If-Match"]; match != nil && !strongMatch(match, etag) {
		return http.StatusPreconditionFailed
	}
	if req.Header["If-None-Match"] != nil && NoneMatch(req, etag) {
		return http.StatusNotModified
	}
	return 0
}

// RangeOf is the Range of a request, "" if there is none or If-Range says that
// it was meant for other bytes.
func RangeOf(req *http.Request, etag string) string {
	if req.Method != http.MethodGet {
		return ""
	}
	if cond := req.Header["If-Range"]; cond != nil && !strongMatch(cond, etag) {
		return ""
	}
	return req.Header.Get("Range")
}

// items are those of a list that may stand on several lines.
func items(lines []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range lines {
			for item := range strings.SplitSeq(line, ",") {
				if !yield(strings.TrimSpace(item)) {
					return
				}
			}
		}
	}
}

// strongMatch reports whether a list of ETags has this one, compared strongly.
func strongMatch(lines []string, etag string) bool {
	for item := range items(lines) {
		if item == "*" || item == etag {
			return true
		}
	}
	return false
}

// NoneMatch reports whether the client has the version with this ETag. As RFC
// 9110, 13.1.2 has it, a weak one is as good.
func NoneMatch(req *http.Request, etag string) bool {
	for item := range items(req.Header["If-None-Match"]) {
		if item == "*" || strings.TrimPrefix(item, "W/") == strings.TrimPrefix(etag, "W/") {
			return true
		}
	}
	return false
}

// NotModified sets the ETag, and answers 304 if the client has that version.
func NotModified(w *Writer, req *http.Request, etag string) bool {
	w.Header()["Etag"] = []string{etag}
	if !NoneMatch(req, etag) {
		return false
	}
	w.WriteHeader(http.StatusNotModified)
	return true
}

// Accepts reports whether the request names an encoding as welcome.
func Accepts(req *http.Request, encoding string) bool {
	for item := range items(req.Header["Accept-Encoding"]) {
		name, q, _ := strings.Cut(item, ";")
		if strings.EqualFold(strings.TrimSpace(name), encoding) {
			q = strings.TrimSpace(q)
			return q != "q=0" && q != "q=0.0" && q != "q=0.00" && q != "q=0.000"
		}
	}
	return false
}
