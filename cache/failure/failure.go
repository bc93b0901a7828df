// Package failure makes an answer of any error: its status, its kind, and its words.
package failure

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"unicode"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/cache/state"
	"narwharf/narinfo/clip"
	"narwharf/signing/access"
)

// maxErrorText keeps error bodies below the 1024 bytes from which on Nix
// shows nothing of them (src/libstore/filetransfer.cc).
const maxErrorText = 900

// Of is what a client gets for any error of a handler: text is one line and short enough for Nix to show.
func Of(req *http.Request, err error) (status int, kind refusal.Kind, text string) {
	r := refusalOf(err)
	if req.Method == http.MethodPut && r.Kind == refusal.Missing { // it was to be written, not found
		r = internalError
	}
	status = statusOf[r.Kind]
	var d *access.Denied
	if errors.As(err, &d) {
		status = d.Status
	}
	switch {
	case req.Method != http.MethodPut || status < http.StatusInternalServerError:
	case r.Kind != refusal.Away:
		status = http.StatusNotImplemented
	case !reply.Resends(req):
		status = http.StatusForbidden
	}
	return status, r.Kind, oneLine(r.Text)
}

var internalError = refusal.New(refusal.Internal, "internal error; the server's log says more")

// refusalOf makes a refusal of any error. What it does not know is internal, and
// its words are for the log alone.
func refusalOf(err error) *refusal.Error {
	var d *access.Denied
	var tooBig *http.MaxBytesError
	var frozen *state.Frozen
	switch r := refusal.In(err); {
	case r != nil:
		return r
	case errors.As(err, &frozen):
		return refusal.New(refusal.Away, "%s", frozen.Why)
	case errors.As(err, &d):
		return refusal.New(refusal.Denied, "%v", d)
	case errors.Is(err, blob.ErrAway):
		return refusal.New(refusal.Away, "the bucket that keeps this cache's files does not answer: try again later")
	case errors.Is(err, state.ErrUnavailable):
		return refusal.New(refusal.Away, "the database of this cache does not answer: try again later")
	case errors.Is(err, blob.ErrFull):
		return refusal.New(refusal.Full, "the cache has no room for this upload: its disk is full, tell whoever runs it")
	case errors.As(err, &tooBig):
		return refusal.New(refusal.TooLarge, "the body is larger than the %d bytes that are allowed here", tooBig.Limit)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, index.ErrNotFound), errors.Is(err, fs.ErrInvalid):
		return refusal.New(refusal.Missing, "not in this cache")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refusal.New(refusal.Stalled, "the upload stalled: no bytes came for too long; run the command again")
	case errors.Is(err, reply.ErrBody), errors.Is(err, context.Canceled):
		return refusal.New(refusal.Cut, "the body ended before the announced length; run the command again")
	}
	return internalError
}

// oneLine makes a text fit to be an answer, which Nix prints: one line, valid, short enough.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.TrimSpace(text))
	return clip.Line(text, maxErrorText)
}
