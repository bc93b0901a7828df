package cache

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"narwharf/signing/access"
)

// put is what all uploads have in common. Whatever can be decided from the
// headers is decided here, before the first byte of the body is read: a
// client that sent "Expect: 100-continue" then sends nothing, and one that
// cannot repeat a body keeps it.
func (s *Server) put(w *response, req *http.Request, name string, write endpoint) error {
	p := s.opts.Access.Identify(req)
	if d := p.Deny(access.Scope{Kind: access.Push}); d != nil {
		s.drain(w, req)
		return d
	}
	if req.ContentLength < 0 && len(req.TransferEncoding) == 0 {
		return refuse(http.StatusLengthRequired, "length", "an upload needs a Content-Length")
	}
	s.puts.Add(1)
	s.metrics.inFlight.Inc()
	defer func() {
		s.puts.Add(-1)
		s.metrics.inFlight.Dec()
	}()
	b := &body{r: req.Body, control: w.control, idle: s.opts.BodyIdle}
	// A copy: net/http must find its own body in its own request, or it does
	// not know that it still owes an answer to "Expect: 100-continue".
	upload := *req
	upload.Body = readCloser{b, nil}
	err := write(w, &upload, name)
	s.metrics.received.WithLabelValues(w.route).Add(float64(b.read))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		w.Header().Set("Connection", "close")
		return err
	}
	if err != nil {
		s.drain(w, req)
		return err
	}
	s.metrics.uploads.WithLabelValues(w.route, "ok").Inc()
	return nil
}

const (
	drainBytes = 2 << 20
	drainTime  = 5 * time.Second
)

// drain reads what is left of a small body. A client that is still writing
// when the connection is closed on it may lose the answer to a reset; Nix
// before 2.34 sends bodies below 1 MiB without asking.
func (s *Server) drain(w *response, req *http.Request) {
	if req.Header.Get("Expect") != "" || req.ContentLength < 0 || req.ContentLength > drainBytes {
		return
	}
	_ = w.control.SetReadDeadline(time.Now().Add(drainTime))
	_, _ = io.Copy(io.Discard, req.Body) // an error only means that the client is gone
}

// uploader names the caller of a PUT, "" if everybody may push.
func (s *Server) uploader(req *http.Request) string {
	return s.opts.Access.Identify(req).Name
}

// stored answers a PUT that was taken in.
func stored(w *response) error {
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
	return nil
}
