package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"unicode"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/local"
	"narwharf/narinfo/clip"
	"narwharf/signing/access"
)

// A Refusal is an answer that a request deserved: wrong content, no right,
// no room. Text is one line that says what is wrong and what to do, since
// `nix copy` prints it and people read it in a CI log.
type Refusal struct {
	Status int
	Kind   string // label for metrics, one of a small fixed set
	Text   string
}

func (r *Refusal) Error() string { return r.Text }

// HTTPStatus is the status of the answer.
func (r *Refusal) HTTPStatus() int { return r.Status }

func refuse(status int, kind, format string, args ...any) *Refusal {
	return &Refusal{status, kind, fmt.Sprintf(format, args...)}
}

// maxErrorText keeps error bodies below the 1024 bytes from which on Nix
// shows nothing of them (src/libstore/filetransfer.cc).
const maxErrorText = 900

// errorAnswer maps any error of a handler to what the client gets. It is the
// only place where errors become statuses.
//
// Uploads never get a status that Nix repeats a request on: Nix before 2.33
// cannot send a body twice and hangs or dies (408, 429, 5xx; a full disk is
// therefore 413, not 507). An internal error is 500 on reads and, for the
// same reason, 501 on uploads: the one 5xx that every Nix takes as final.
func errorAnswer(err error) (status int, kind, text string) {
	var r *Refusal
	var d *access.Denied
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &r):
		return r.Status, r.Kind, r.Text
	case errors.As(err, &d):
		return d.Status, "denied", d.Error()
	case errors.Is(err, local.ErrUnavailable):
		return http.StatusServiceUnavailable, "local-store", "this cache cannot read its own Nix store now, only what was uploaded; try again later, the server's log says why"
	case errors.Is(err, blob.ErrFull):
		return http.StatusRequestEntityTooLarge, "full", "the cache has no room for this upload: its disk is full, tell whoever runs it"
	case errors.As(err, &tooBig):
		return http.StatusRequestEntityTooLarge, "too-large", fmt.Sprintf("the body is larger than the %d bytes that are allowed here", tooBig.Limit)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, index.ErrNotFound), errors.Is(err, fs.ErrInvalid):
		return http.StatusNotFound, "missing", "not in this cache"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return http.StatusBadRequest, "stalled", "the upload stalled: no bytes came for too long; run the command again"
	case errors.Is(err, errBody), errors.Is(err, context.Canceled):
		return http.StatusBadRequest, "cut", "the body ended before the announced length; run the command again"
	default:
		return internal()
	}
}

func internal() (status int, kind, text string) {
	return http.StatusInternalServerError, "internal", "internal error; the server's log says more"
}

// oneLine makes a text fit to be an answer: one line, valid, short enough.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.TrimSpace(text))
	return clip.Text(text, maxErrorText)
}

// writeError answers with the error in plain text. It says nothing in a HEAD.
func (s *Server) writeError(w *response, req *http.Request, err error) {
	status, kind, text := errorAnswer(err)
	if req.Method == http.MethodPut {
		if kind == "missing" { // it was to be written, not found
			status, kind, text = internal()
		}
		if status >= 500 {
			status = http.StatusNotImplemented
		}
	}
	switch {
	case status >= 500:
		s.log.Error("request failed", "method", req.Method, "route", w.route, "path", req.URL.Path, "error", err)
	case req.Method == http.MethodPut:
		s.log.Info("upload refused", "path", req.URL.Path, "status", status, "kind", kind, "error", err, "remote", req.RemoteAddr)
	}
	if req.Method == http.MethodPut {
		s.metrics.refused(w.route, kind)
	}
	if w.written { // too late for a status: the client must see a broken reply
		panic(http.ErrAbortHandler)
	}
	text = oneLine(text)
	h := w.Header()
	for _, k := range []string{"Content-Encoding", "Etag", "Last-Modified", "Cache-Control"} {
		h.Del(k)
	}
	if status != http.StatusRequestedRangeNotSatisfiable { // there it says how much there is
		h.Del("Content-Range")
	}
	if strings.HasPrefix(req.URL.Path, "/nar/") {
		h.Set("Accept-Ranges", "bytes") // else Nix takes any error of a resume as final
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(text)+1))
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", access.Challenge)
	}
	w.WriteHeader(status)
	if req.Method != http.MethodHead {
		_, _ = io.WriteString(w, text+"\n") // the client is gone if this fails
	}
}
