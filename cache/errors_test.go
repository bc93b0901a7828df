package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/failure"
	"narwharf/cache/index"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/signing/access"
)

func TestErrorAnswers(t *testing.T) {
	w := newWorld(t)
	unchecked := access.Principal{Credential: access.Unchecked}.Deny(push)
	for _, c := range []struct {
		err      error
		get, put int
		kind     refusal.Kind
	}{
		{refusal.New(refusal.Conflict, "taken"), 409, 409, "conflict"},
		{fmt.Errorf("wrapped: %w", refusal.New(refusal.Encoding, "y")), 415, 415, "encoding"},
		{access.Principal{}.Deny(pull), 401, 401, "denied"},
		{unchecked, 503, 501, "denied"}, // Nix would send the body again, or hang
		{refusal.New(refusal.NotReady, "x"), 503, 501, "not-ready"},
		{fmt.Errorf("store: %w: %w", blob.ErrFull, syscall.ENOSPC), 413, 413, "full"},
		{&http.MaxBytesError{Limit: 5}, 413, 413, "too-large"},
		{fs.ErrNotExist, 404, 501, "missing"}, // a file that we miss is no answer to an upload
		{index.ErrNotFound, 404, 501, "missing"},
		{fmt.Errorf("name: %w", fs.ErrInvalid), 404, 501, "missing"},
		{fmt.Errorf("%w: %w", reply.ErrBody, os.ErrDeadlineExceeded), 400, 400, "stalled"},
		{fmt.Errorf("%w: %w", reply.ErrBody, io.ErrUnexpectedEOF), 400, 400, "cut"},
		{fmt.Errorf("%w: %w", reply.ErrBody, syscall.ECONNRESET), 400, 400, "cut"},
		{context.Canceled, 400, 400, "cut"},
		{io.ErrUnexpectedEOF, 500, 501, "internal"}, // of a file of ours
		{syscall.EIO, 500, 501, "internal"},
		{errors.New("anything"), 500, 501, "internal"},
	} {
		_, kind, _ := failure.Of(httptest.NewRequest(http.MethodGet, "/", nil), c.err)
		if kind != c.kind {
			t.Errorf("%v is of the kind %q, want %q", c.err, kind, c.kind)
		}
		for method, want := range map[string]int{http.MethodGet: c.get, http.MethodHead: c.get, http.MethodPut: c.put} {
			rec := httptest.NewRecorder()
			req := httptest.NewRequest(method, "/nar/x", http.NoBody)
			rec.Header().Set("Content-Encoding", "gzip")
			rec.Header().Set("Etag", `"x"`)
			answer := reply.NewWriter(rec, req, time.Minute)
			answer.Route = "nar"
			w.s.writeError(answer, req, c.err)
			if rec.Code != want {
				t.Errorf("%s with %v is answered %d, want %d", method, c.err, rec.Code, want)
			}
			if method == http.MethodPut && !slices.Contains(final, rec.Code) {
				t.Errorf("PUT with %v is answered %d, on which Nix may hang", c.err, rec.Code)
			}
			if body := rec.Body.String(); (method == http.MethodHead) != (body == "") || len(body) > 1000 || strings.Count(body, "\n") > 1 {
				t.Errorf("%s with %v: the body is %q", method, c.err, body)
			}
			if h := rec.Header(); h.Get("Content-Encoding") != "" || h.Get("Etag") != "" || h.Get("Accept-Ranges") != "bytes" {
				t.Errorf("%s with %v: headers %v", method, c.err, h)
			}
		}
	}
}

// After the first byte there is no honest answer but a broken one.
func TestErrorAfterTheFirstByte(t *testing.T) {
	w := newWorld(t)
	defer func() {
		if err, ok := recover().(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
			t.Errorf("ended with %v", err)
		}
	}()
	req := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	answer := reply.NewWriter(httptest.NewRecorder(), req, time.Minute)
	answer.Written = true
	w.s.writeError(answer, req, io.EOF)
}
