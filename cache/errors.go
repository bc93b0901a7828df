package cache

import (
	"io"
	"net/http"
	"strconv"
	"strings"

	"narwharf/cache/failure"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/signing/access"
)

const (
	textType = "text/plain; charset=utf-8"
	jsonType = "application/json"
)

// writeError answers with the error in plain text. It says nothing in a HEAD.
func (s *Server) writeError(w *reply.Writer, req *http.Request, err error) {
	status, kind, text := failure.Of(req, err)
	switch {
	case kind == refusal.Busy: // not in the log: anybody can ask too much
		w.Header().Set("Retry-After", "60")
	case status >= 500:
		s.Log.Error("request failed", "method", req.Method, "route", w.Route, "path", req.URL.Path, "error", err)
	case req.Method == http.MethodPut:
		s.Log.Info("upload refused", "path", req.URL.Path, "status", status, "kind", kind, "error", err, "remote", req.RemoteAddr)
	}
	if req.Method == http.MethodPut {
		s.metrics.Refused(w.Route, kind)
	}
	if w.Written { // too late for a status: the client must see a broken reply
		panic(http.ErrAbortHandler)
	}
	h := w.Header()
	for _, k := range []string{"Content-Encoding", "Etag", "Last-Modified"} {
		h.Del(k)
	}
	h.Set("Cache-Control", reply.NoCache)
	if status != http.StatusRequestedRangeNotSatisfiable { // there it says how much there is
		h.Del("Content-Range")
	}
	if strings.HasPrefix(req.URL.Path, "/nar/") {
		h.Set("Accept-Ranges", "bytes") // else Nix takes any error of a resume as final
	}
	h.Set("Content-Type", textType)
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
