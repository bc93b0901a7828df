package reply

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"narwharf/cache/blob"
	"narwharf/cache/state"
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

// What is away is said in words, with a time to come back; nothing of the inside goes out.
func TestAway(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		says   string
	}{
		{fmt.Errorf("keep release 7: put secret/7: %w", blob.ErrAway), 503, "the bucket that keeps this server's files does not answer"},
		{fmt.Errorf("secret: %w", state.ErrUnavailable), 503, "the database of this server does not answer"},
		{fmt.Errorf("secret: %w", &state.Frozen{Why: "this cache is being moved"}), 503, "this cache is being moved"},
		{errors.New("secret"), 500, "the server's log says more"},
	} {
		w := httptest.NewRecorder()
		Error(w, httptest.NewRequest(http.MethodPost, "/api/v1/channels/web/releases", nil), c.err, slog.New(slog.DiscardHandler))
		after, _ := strconv.Atoi(w.Header().Get("Retry-After"))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) || strings.Contains(w.Body.String(), "secret") || (c.status == 503) != (after > 0) {
			t.Errorf("%v: %d, Retry-After %d, %s", c.err, w.Code, after, w.Body)
		}
	}
}
