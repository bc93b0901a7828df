package cache

import (
	"bufio"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"

	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/cache/sidecar"
)

const logType = "text/plain; charset=utf-8"

// getLog sends a build log: an uploaded one, else that of this machine's Nix.
func (s *sidecars) getLog(w *reply.Writer, req *http.Request, drv string) error {
	err := s.send(w, req, sidecar.LogName(drv), logType)
	if s.Local != nil && errors.Is(err, fs.ErrNotExist) {
		w.Source = sourceLocal
		return s.getLocalLog(w, req, drv)
	}
	return err
}

// getLocalLog sends what Nix kept of a build. Nix before 2.34 would unpack bzip2
// itself if it were labelled; later ones refuse the label.
func (s *sidecars) getLocalLog(w *reply.Writer, req *http.Request, drv string) error {
	f, compressed, err := s.Local.Log(drv)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	etag := strconv.FormatInt(st.ModTime().UnixNano(), 36) + "-" + strconv.FormatInt(st.Size(), 36)
	if !compressed {
		return reply.Text(w, req, f, st.Size(), logType, etag)
	}
	text := bufio.NewReader(bzip2.NewReader(f))
	if _, err := text.Peek(1); err != nil && err != io.EOF {
		return fmt.Errorf("unpack %s: %w", f.Name(), err)
	}
	h := w.Header()
	reply.TextHeader(h, logType)
	h.Set("Etag", `W/"`+etag+`"`)
	if !req.ProtoAtLeast(1, 1) { // no chunks: it has to know the length
		return s.sendLogOld(w, req, f, text)
	}
	if enc := reply.EncodingFor(req); enc != "" {
		return reply.Compressed(w, req, text, -1, enc)
	}
	if reply.NoneMatch(req, h.Get("Etag")) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if req.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	if _, err := io.Copy(struct{ io.Writer }{w}, text); err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

// sendLogOld unpacks a log twice, first in order to know how long it is.
func (s *sidecars) sendLogOld(w *reply.Writer, req *http.Request, f io.ReadSeeker, text io.Reader) error {
	size, err := io.Copy(io.Discard, text)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("unpack a build log: %w", err)
	}
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	if req.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	if n, err := io.Copy(struct{ io.Writer }{w}, bzip2.NewReader(f)); err != nil || n != size {
		panic(http.ErrAbortHandler)
	}
	return nil
}

func (s *sidecars) putLog(w *reply.Writer, req *http.Request, drv string) error {
	if req.ContentLength > sidecar.MaxLog {
		return refusal.New(refusal.TooLarge, "the log is larger than the %s that this cache takes", refusal.Size(sidecar.MaxLog))
	}
	text, err := narfile.Decode(req.Body, req.Header.Get("Content-Encoding"), sidecar.MaxLog, "the log", refusal.Content)
	if err != nil {
		return err
	}
	defer text.Close()
	if err := s.store.PutLog(drv, text, req.ContentLength); err != nil {
		return err
	}
	return reply.Stored(w)
}
