package reply

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestPackedHasAnEnd: encoders are few, their texts are not long, and none is made for a client who has
// had his share. All others get the text as it is.
func TestPackedHasAnEnd(t *testing.T) {
	get := func(size int, work func(time.Duration) bool) *httptest.ResponseRecorder {
		t.Helper()
		req := httptest.NewRequest(http.MethodGet, "/x", nil)
		req.Header.Set("Accept-Encoding", "gzip, zstd")
		rec := httptest.NewRecorder()
		w := NewWriter(rec, req, time.Minute)
		w.Work = work
		text := strings.NewReader(strings.Repeat("x", size))
		if err := Text(w, req, text, text.Size(), "text/plain", "e"); err != nil || rec.Code != http.StatusOK {
			t.Fatal(rec.Code, err)
		}
		return rec
	}
	encoding := func(rec *httptest.ResponseRecorder, want string) {
		t.Helper()
		if got := rec.Header().Get("Content-Encoding"); got != want {
			t.Errorf("Content-Encoding %q, want %q", got, want)
		}
		if etag := rec.Header().Get("Etag"); strings.HasPrefix(etag, "W/") != (want != "") {
			t.Errorf("%q has the ETag %s", want, etag)
		}
	}
	encoding(get(5000, nil), "zstd")
	encoding(get(100, nil), "")
	encoding(get(maxPack, nil), "zstd")
	encoding(get(maxPack+1, nil), "")
	var spent time.Duration
	encoding(get(maxPack, func(took time.Duration) bool { spent += took; return true }), "zstd")
	if spent <= 0 || spent > time.Minute {
		t.Errorf("%v were counted", spent)
	}
	encoding(get(5000, func(time.Duration) bool { return false }), "")
	for range packers {
		packing <- struct{}{}
	}
	encoding(get(5000, nil), "")
	<-packing
	encoding(get(5000, nil), "zstd")
	for range packers - 1 {
		<-packing
	}
}
