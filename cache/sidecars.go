package cache

import (
	"bufio"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"

	"narwharf/cache/local"
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
		w.Source = sourceLocal
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
		w.Source = sourceLocal
		return s.getLocalLog(w, req, drv)
	}
	return err
}

// getLocalLog sends what Nix kept of a build. Nix before 2.34 would unpack bzip2
// itself if it were labelled; later ones refuse the label.
func (s *sidecars) getLocalLog(w *reply.Writer, req *http.Request, drv string) error {
	f, compressed, err := s.Cache.Local.Log(drv)
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
		return reply.Text(w, req, f, st.Size(), textType, etag)
	}
	text := bufio.NewReader(bzip2.NewReader(f))
	if _, err := text.Peek(1); err != nil && err != io.EOF {
		return fmt.Errorf("unpack %s: %w", f.Name(), err)
	}
	size, encoding := int64(-1), ""
	if req.ProtoAtLeast(1, 1) {
		encoding = reply.EncodingFor(req)
	} else { // no chunks: it has to know the length
		size, err = io.Copy(io.Discard, text)
		if err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", f.Name(), err)
		}
		text.Reset(bzip2.NewReader(f))
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	}
	reply.TextHeader(w.Header(), textType)
	return reply.Stream(w, req, text, size, encoding, `W/"`+etag+`"`)
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
