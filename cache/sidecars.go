package cache

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"strconv"

	"narwharf/cache/local"
	"narwharf/cache/meter"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/cache/sidecar"
)

// sidecars answers for logs, debug information, realisations and build traces.
type sidecars struct {
	*parts
	store *sidecar.Store
}

func (s *sidecars) send(w *reply.Writer, req *http.Request, name, contentType string) error {
	f, err := s.Cache.Uploads.Files.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return reply.Blob(w, req, f, contentType)
}

// reads sends the JSON file that name gives, if it was uploaded, else the text that local
// has for it.
func (s *sidecars) reads(name func(string) string, local func(*local.Store, context.Context, string) ([]byte, error)) endpoint {
	return func(w *reply.Writer, req *http.Request, id string) error {
		err := s.send(w, req, name(id), jsonType)
		if s.Cache.Local == nil || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		w.Source = meter.Local
		text, err := local(s.Cache.Local, req.Context(), id)
		if err != nil {
			return err
		}
		return reply.Bytes(w, req, text, jsonType)
	}
}

// writes takes in JSON files by put.
func (s *sidecars) writes(what string, put func(id string, text []byte) error) endpoint {
	return func(w *reply.Writer, req *http.Request, id string) error {
		text, err := smallBody(req, sidecar.MaxJSON, "the file in "+what, refusal.Content)
		if err != nil {
			return err
		}
		if err := put(id, text); err != nil {
			return err
		}
		return reply.Stored(w)
	}
}

// getLog sends a build log: an uploaded one, else that of this machine's Nix.
func (s *sidecars) getLog(w *reply.Writer, req *http.Request, drv string) error {
	err := s.send(w, req, sidecar.LogName(drv), textType)
	if s.Cache.Local != nil && errors.Is(err, fs.ErrNotExist) {
		w.Source = meter.Local
		return s.getLocalLog(w, req, drv)
	}
	return err
}

// getLocalLog sends what Nix kept of a build. Nix before 2.34 would unpack bzip2
// itself if it were labelled; later ones refuse the label.
func (s *sidecars) getLocalLog(w *reply.Writer, req *http.Request, drv string) error {
	chunks := req.ProtoAtLeast(1, 1) // else it has to know the length
	l, err := s.Cache.LocalLog(req.Context(), drv, !chunks)
	if err != nil {
		return err
	}
	defer l.Close()
	if l.Text != nil {
		return reply.Text(w, req, l.Text, l.Size, textType, l.ETag)
	}
	reply.TextHeader(w.Header(), textType)
	if !chunks {
		w.Header().Set("Content-Length", strconv.FormatInt(l.Size, 10))
		return reply.Stream(w, req, l, l.Size, "", `W/"`+l.ETag+`"`)
	}
	encoding, done := reply.Packed(w, req, l.Size)
	defer done()
	return reply.Stream(w, req, l, l.Size, encoding, `W/"`+l.ETag+`"`)
}

func (s *sidecars) putLog(w *reply.Writer, req *http.Request, drv string) error {
	text, err := decodedBody(req, sidecar.MaxLog, "the log", refusal.Content)
	if err != nil {
		return err
	}
	defer text.Close()
	if err := s.store.PutLog(drv, text, req.ContentLength); err != nil {
		return err
	}
	return reply.Stored(w)
}
