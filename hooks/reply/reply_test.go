package reply

import (
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"

	"narwharf/hooks/api"
)

// TestErrorIsOneLine: an error that repeats what a client said is one line that prints, whoever reads it.
func TestErrorIsOneLine(t *testing.T) {
	for _, path := range []string{"/api/v1/nothing", "/fleetlock/v1/nothing"} {
		rec := httptest.NewRecorder()
		err := api.Errorf(api.NotFound, "there is no %s", "x\x1b[2J\r\n\u202e\u009b"+strings.Repeat("y", 1<<20))
		Error(rec, httptest.NewRequest("GET", path, nil), err, slog.New(slog.DiscardHandler))
		var body map[string]string
		if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil {
			t.Fatal(err)
		}
		text := body["message"] + body["value"]
		if !strings.HasPrefix(text, "there is no x\ufffd[2J") || len(text) > maxMessage || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%s: %.100q, %d bytes", path, text, len(text))
		}
		if rec.Code != 404 || err.Message == text {
			t.Errorf("%s: %d, and the error itself is changed", path, rec.Code)
		}
	}
}
