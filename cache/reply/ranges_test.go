package reply

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"narwharf/cache/refusal"
)

// TestRangesAsNetHTTP: a single range that is well formed means what it means to
// http.ServeContent.
func TestRangesAsNetHTTP(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		content := bytes.Repeat([]byte("0123456789"), rapid.IntRange(0, 3).Draw(t, "tens"))
		size := int64(len(content))
		number := rapid.OneOf(rapid.Just(""), rapid.Map(rapid.Int64Range(1, 40), func(n int64) string { return fmt.Sprint(n) }), rapid.Just("9223372036854775807"))
		last := number
		if rapid.Bool().Draw(t, "from the start") {
			number = rapid.OneOf(rapid.Just("0"), number) // and never "-0", of which net/http makes a range of nothing
		}
		header := "bytes=" + number.Draw(t, "first") + "-" + last.Draw(t, "last")
		part, partial, err := ParseRange(header, size)

		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.Header.Set("Range", header)
		rec := httptest.NewRecorder()
		http.ServeContent(rec, req, "x", time.Time{}, bytes.NewReader(content))
		switch r := refusal.In(err); {
		case r != nil:
			if rec.Code != http.StatusRequestedRangeNotSatisfiable {
				t.Fatalf("%s of %d: %v, net/http answers %d", header, size, err, rec.Code)
			}
		case !partial:
			// net/http refuses what is not well formed; we take no notice.
			if rec.Code == http.StatusPartialContent && size > 0 { // it makes "bytes 0--1/0" of nothing
				t.Fatalf("%s of %d is no range, net/http answers %s", header, size, rec.Header().Get("Content-Range"))
			}
		case rec.Code != http.StatusPartialContent || rec.Body.String() != string(content[part.From:part.To]) || rec.Header().Get("Content-Range") != part.ContentRange(size):
			t.Fatalf("%s of %d: %+v, net/http answers %d %s", header, size, part, rec.Code, rec.Header().Get("Content-Range"))
		}
	})
}

func TestRangesThatAreNone(t *testing.T) {
	for _, header := range []string{"", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5", "bytes=+1-2", "bytes=-+2", "bytes=2-1", "items=0-1", "bytes=0-1,3-4", "bytes=99999999999999999999-"} {
		if part, partial, err := ParseRange(header, 0); partial || err != nil || part != (Span{}) {
			t.Errorf("%q of nothing: %+v %t %v", header, part, partial, err)
		}
		if part, partial, err := ParseRange(header, 10); partial || err != nil || part != (Span{0, 10}) {
			t.Errorf("%q: %+v %t %v", header, part, partial, err)
		}
	}
}

func TestConditions(t *testing.T) {
	const etag = `"x"`
	for _, c := range []struct {
		name, value string
		status      int
	}{
		{"If-Match", `"x"`, 0}, {"If-Match", `*`, 0}, {"If-Match", `"y", "x"`, 0}, {"If-Match", `"y"`, 412}, {"If-Match", `W/"x"`, 412},
		{"If-None-Match", `"x"`, 304}, {"If-None-Match", `W/"x"`, 304}, {"If-None-Match", `*`, 304}, {"If-None-Match", `"y"`, 0},
	} {
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.Header.Set(c.name, c.value)
		if got := condition(req, etag); got != c.status {
			t.Errorf("%s: %s is %d, want %d", c.name, c.value, got, c.status)
		}
	}
	for value, applies := range map[string]bool{`"x"`: true, `"y"`: false, `W/"x"`: false, "Mon, 02 Jan 2006 15:04:05 GMT": false} {
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.Header.Set("Range", "bytes=1-")
		req.Header.Set("If-Range", value)
		if got := RangeOf(req, etag) != ""; got != applies {
			t.Errorf("If-Range: %s: %t, want %t", value, got, applies)
		}
	}
}

// FuzzRange: whatever is asked for lies within the content.
func FuzzRange(f *testing.F) {
	f.Add("bytes=1-2", int64(10))
	f.Add("bytes=-1", int64(0))
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 || strings.ContainsAny(header, "\r\n") {
			return
		}
		part, partial, err := ParseRange(header, size)
		if err == nil && (part.From < 0 || part.From > part.To || part.To > size || partial && part.From == part.To) {
			t.Errorf("%q of %d: %+v %t", header, size, part, partial)
		}
	})
}
