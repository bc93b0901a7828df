package server

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A fault in a handler is in the log with where it is; an answer that was cut is not.
func TestPanicsAreLogged(t *testing.T) {
	var log bytes.Buffer
	var fault any
	h := panics(slog.New(slog.NewTextHandler(&log, nil)), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(fault) }))
	ask := func(v any) {
		t.Helper()
		fault = v
		log.Reset()
		defer func() {
			if err, _ := recover().(error); !errors.Is(err, http.ErrAbortHandler) {
				t.Errorf("it went on with %v", err)
			}
		}()
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/x", http.NoBody))
	}
	ask(errors.New("nobody foresaw this"))
	if text := log.String(); !strings.Contains(text, "nobody foresaw this") || !strings.Contains(text, "TestPanicsAreLogged") || !strings.Contains(text, "path=/x") {
		t.Errorf("%s", text)
	}
	ask(http.ErrAbortHandler)
	if log.Len() > 0 {
		t.Errorf("%s", &log)
	}
}
