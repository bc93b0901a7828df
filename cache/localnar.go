package cache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"

	"narwharf/cache/local/compress"
	"narwharf/cache/local/encoder"
	"narwharf/cache/meter"
	"narwharf/cache/nar/dump"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/cache/stored"
	"narwharf/narinfo"
)

// The NAR of a local path, and of one that an upstream has, has two URLs, nar/<hash part>-<NAR hash>.nar.zst, which its
// narinfo names, and the same without .zst. Both work for as long as the path
// has that NAR hash in either source. The bytes are the same from wherever they come.

// localNars answers both URLs.
type localNars struct{ *parts }

// sends answers with the NAR that the name is of. Its ETag ends in form.
func (s *localNars) sends(form string, send func(*reply.Writer, *http.Request, *stored.Source) error) endpoint {
	return func(w *reply.Writer, req *http.Request, name string) error {
		h := w.Header()
		h["Accept-Ranges"] = []string{"bytes"}
		hash, digits, _ := strings.Cut(name, "-")
		narHash, err := narinfo.ParseBase32(digits)
		if err != nil {
			return fs.ErrNotExist // 52 digits have four bits too many
		}
		src, err := s.Cache.NAR(req.Context(), hash, narHash, s.mayPush(req))
		if err != nil {
			return err
		}
		switch {
		case src.Local:
			w.Source = meter.Local
		case src.Upstream != nil:
			w.Source = meter.Upstream
		}
		h["Content-Type"] = []string{narType}
		h["Etag"] = []string{`"` + digits + form + `"`}
		return s.brokenLocal(w, req, src, send(w, req, src))
	}
}

// ---- compressed

// sendCompressed sends the NAR compressed: a finished file as any NAR file is sent,
// else what an encoder makes of it while that is at work.
func (s *localNars) sendCompressed(w *reply.Writer, req *http.Request, src *stored.Source) error {
	h := w.Header()
	etag := h.Get("Etag")
	if done, err := reply.Conditions(w, req, etag); done || err != nil {
		return err
	}
	packed := s.Cache.Packed()
	if packed == nil { // serve_store was turned off, and clients remember this URL
		h["Etag"] = []string{`"` + src.FileHash.Base32() + `"`} // as it may be another file
		return s.sendUpload(w, req, src)
	}
	if done, err := s.sendFinished(w, req, src.NarHash); done || err != nil {
		return err
	}
	digest, known := packed.Digest(src.NarHash)
	if known && !src.Local && src.Upstream == nil && src.FileHash == digest.Hash { // it was adopted
		return s.sendUpload(w, req, src)
	}
	if req.Method == http.MethodHead { // an encoder is not started for it
		if known {
			h["Content-Length"] = []string{strconv.FormatInt(digest.Size, 10)}
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	stream, err := s.Cache.Stream(req.Context(), src)
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }() // never fails
	// A client of HTTP/1.0 could not tell a broken reply from a short one, and a
	// range can be cut only out of a whole.
	if req.ProtoAtLeast(1, 1) && reply.RangeOf(req, etag) == "" {
		return reply.Flushing(w, stream)
	}
	f, digest, err := stream.File(req.Context())
	if err != nil {
		return err
	}
	defer f.Close()
	return reply.Content(w, req, f, digest.Size)
}

// sendFinished sends a compressed NAR that is whole, if there is one.
func (s *localNars) sendFinished(w *reply.Writer, req *http.Request, key narinfo.Hash) (done bool, err error) {
	f, digest, err := s.Cache.Packed().Open(key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	whole := false
	defer func() {
		if !whole { // serveContent does not tell whose fault it was
			s.dropUnreadable(f, key)
		}
		f.Close()
	}()
	err = reply.Content(w, req, f, digest.Size)
	whole = err == nil
	return true, err
}

// dropUnreadable removes a compressed NAR that cannot be read on from where sending
// stopped; the next one who asks has it compressed anew.
func (s *parts) dropUnreadable(f io.ReadSeeker, key narinfo.Hash) {
	at, err := f.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = f.Read(make([]byte, 4096))
	}
	if err != nil && err != io.EOF {
		s.Cache.Packed().Drop(key, fmt.Errorf("at byte %d: %w", at, err))
	}
}

// sendUpload sends the uploaded file in the place of what our own encoder would
// make. For an adopted path that is the same file.
func (s *localNars) sendUpload(w *reply.Writer, req *http.Request, src *stored.Source) error {
	if src.Compression != "zstd" {
		return fs.ErrNotExist
	}
	f, err := s.Cache.Uploads.Files.Open(src.URL)
	if err != nil {
		return err
	}
	defer f.Close()
	return reply.Content(w, req, f.Content, f.Size)
}

// ---- plain

// sendPlain sends the NAR as it is, out of the path's own files.
func (s *localNars) sendPlain(w *reply.Writer, req *http.Request, src *stored.Source) error {
	h := w.Header()
	etag := h.Get("Etag")
	if src.NarSize == 0 { // of an upstream's path that only a packed copy is known of
		return fs.ErrNotExist
	}
	if done, err := reply.Conditions(w, req, etag); done || err != nil {
		return err
	}
	part, partial, err := reply.ParseRange(reply.RangeOf(req, etag), src.NarSize)
	if err != nil {
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", src.NarSize))
		return err
	}
	status := http.StatusOK
	if partial {
		status = http.StatusPartialContent
		h["Content-Range"] = []string{part.ContentRange(src.NarSize)}
	}
	h["Content-Length"] = []string{strconv.FormatInt(part.To-part.From, 10)}
	if req.Method == http.MethodHead {
		w.WriteHeader(status)
		return nil
	}
	return s.Cache.WriteNAR(req.Context(), reply.NewLater(w, status), src, part.From, part.To)
}

// ---- what goes wrong

// brokenLocal judges an error of sending src. One of the path is counted and
// logged with what to do, and a reply that has begun is broken off.
func (s *parts) brokenLocal(w *reply.Writer, req *http.Request, src *stored.Source, err error) error {
	if err == nil {
		return nil
	}
	kind := ""
	switch {
	case errors.Is(err, reply.ErrClient), refusal.In(err) != nil, req.Context().Err() != nil:
	case errors.Is(err, compress.ErrClosed):
		err = refusal.New(refusal.Stopping, "the server stops; try again")
	case errors.Is(err, compress.ErrNotStored):
		s.Log.Error("a packed NAR could not be stored", "path", src.Path, "error", err)
		err = refusal.New(refusal.NoRoom, "this cache has no room to pack the NAR; download it whole, or try again later")
	case src.Upstream != nil && !errors.Is(err, fs.ErrNotExist):
		s.Log.Warn("the NAR of an upstream's path could not be sent", "path", src.Path, "error", err, "sent", w.Bytes)
		err = refusal.New(refusal.Upstream, "%s is at an upstream of this cache, which does not send its NAR: try again later", src.Path)
	case !src.Local:
	case errors.Is(err, encoder.ErrWrongNAR), errors.Is(err, dump.ErrChanged):
		kind = meter.Changed
	case errors.Is(err, fs.ErrNotExist):
		kind = meter.Missing
	default:
		kind = meter.Unreadable
	}
	if kind != "" {
		s.metrics.Broken(kind)
		s.Log.Error("a path of the local store is not what Nix knows it as; nix store verify --repair mends it", "path", s.Cache.Local.RealPath(src.Path), "url", req.URL.Path, "error", err, "sent", w.Bytes)
	}
	if w.Written {
		panic(http.ErrAbortHandler)
	}
	if kind == meter.Changed || kind == meter.Unreadable {
		return refusal.New(refusal.LocalBroken, "%s in this cache's own store is damaged; tell whoever runs it", src.Path)
	}
	return err
}
