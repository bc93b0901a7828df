package cache

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
)

// put is what all uploads have in common. Whatever can be decided from the
// headers is decided here, before the first byte of the body is read: a
// client that sent "Expect: 100-continue" then sends nothing, and one that
// cannot repeat a body keeps it.
func (s *Server) put(w *reply.Writer, req *http.Request, row *Route, name string, write endpoint) error {
	b := reply.NewBody(w, req.Body, s.BodyIdle)
	p := s.Access.Identify(req)
	if d := s.denied(&p, row.Write, row.Name+"-put"); d != nil {
		return d
	}
	w.By = p.Name
	// net/http takes a request of HTTP/1 without a length for an empty one.
	if len(req.TransferEncoding) == 0 && (req.ContentLength < 0 || req.ContentLength == 0 && req.Header.Get("Content-Length") == "") {
		return refusal.New(refusal.Length, "an upload needs a Content-Length")
	}
	done, err := s.slots.Take(req.Context(), p.TokenID, uploadPatience)
	if err != nil {
		return refusal.New(refusal.Waiting, "this cache receives as many uploads as it may at once (limits.uploads): try again later")
	}
	defer done()
	err = s.Cache.Sidecars.Frozen(req.Context())
	if err == nil {
		err = blob.Wait(req.Context(), s.Cache.Uploads.Files)
	}
	if err != nil {
		return err
	}
	s.metrics.InFlight.Add(1)
	defer s.metrics.InFlight.Add(-1)
	upload := *req
	upload.Body = io.NopCloser(b)
	err = write(w, &upload, name)
	s.metrics.Received(w.Route, b.Received)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		w.Header().Set("Connection", "close")
	}
	if err != nil {
		return err
	}
	s.metrics.Taken(w.Route)
	return nil
}

// uploadPatience is how long an upload waits for its turn, before a byte of it is read.
const uploadPatience = time.Minute

// decodedBody is a body with its Content-Encoding undone. It may be refused by its length.
func decodedBody(req *http.Request, limit int64, what string, kind refusal.Kind) (io.ReadCloser, error) {
	if req.ContentLength > limit {
		return nil, refusal.New(refusal.TooLarge, "%s is larger than the %s that this cache takes", what, refusal.Size(limit))
	}
	return narfile.Decode(req.Body, req.Header.Get("Content-Encoding"), limit, what, kind)
}

// smallBody reads a decodedBody whole.
func smallBody(req *http.Request, limit int64, what string, kind refusal.Kind) ([]byte, error) {
	plain, err := decodedBody(req, limit, what, kind)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	return io.ReadAll(plain)
}
