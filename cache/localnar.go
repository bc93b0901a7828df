package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"narwharf/cache/index"
	"narwharf/cache/local"
	"narwharf/cache/local/compress"
	"narwharf/cache/local/encoder"
	"narwharf/cache/nar/dump"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/narinfo"
)

// A local path's NAR has two URLs, nar/<hash part>-<NAR hash>.nar.zst, which its
// narinfo names, and the same without .zst. Both work for as long as the path
// has that NAR hash in either source: clients remember a narinfo for 30 days,
// and meanwhile the path may have been adopted, or uploaded and deleted here.
// The bytes are the same from wherever they come.

// localNars answers both URLs.
type localNars struct{ *parts }

// narSource is where a NAR can be read.
type narSource struct {
	*narinfo.Info
	local bool // the path's own files; else an upload
}

// getCompressedNar answers /nar/<name>.nar.zst.
func (s *localNars) getCompressedNar(w *reply.Writer, req *http.Request, name string) error {
	return s.getLocalNar(w, req, name, local.CompressedSuffix, s.sendCompressedNar)
}

// getPlainNar answers /nar/<name>.nar.
func (s *localNars) getPlainNar(w *reply.Writer, req *http.Request, name string) error {
	return s.getLocalNar(w, req, name, local.PlainSuffix, s.sendPlainNar)
}

// getLocalNar finds the source and sends it.
func (s *localNars) getLocalNar(w *reply.Writer, req *http.Request, name, suffix string, send func(*reply.Writer, *http.Request, string, *narSource) error) error {
	h := w.Header()
	h["Accept-Ranges"] = []string{"bytes"}
	hash, digits, _ := strings.Cut(name, "-")
	narHash, err := narinfo.ParseBase32(digits)
	if err != nil {
		return fs.ErrNotExist // 52 digits have four bits too many
	}
	src, err := s.narSource(req.Context(), hash, name, narHash)
	if err != nil {
		return err
	}
	if src.local {
		w.Source = sourceLocal
	}
	h["Content-Type"] = []string{narType}
	h["Cache-Control"] = []string{s.immutable}
	h["Etag"] = []string{`"` + digits + strings.TrimPrefix(suffix, local.PlainSuffix) + `"`}
	return s.brokenLocal(w, req, src, send(w, req, name+suffix, src))
}

// narSource looks for a path with this NAR: among the uploads, then in the
// local store. What the signer has in memory saves the look.
func (s *localNars) narSource(ctx context.Context, hash, name string, narHash narinfo.Hash) (*narSource, error) {
	if t, _ := s.Signer.Known(hash); t != nil && t.Local != nil && t.Local.Name == name {
		return &narSource{t.Local.Info, true}, nil
	}
	r, err := s.Uploads.Index.Get(hash)
	if err == nil && r.Info.NarHash == narHash {
		return &narSource{r.Info, false}, nil
	}
	if err != nil && !errors.Is(err, index.ErrNotFound) {
		return nil, err
	}
	if s.Local == nil {
		return nil, fs.ErrNotExist
	}
	if err == nil { // uploaded with another content
		i, err := s.Local.Info(ctx, hash)
		if err != nil || i.NarHash != narHash {
			return nil, cmp.Or(err, fs.ErrNotExist)
		}
		return &narSource{i, true}, nil
	}
	t, err := s.Signer.Get(ctx, hash, s.Uploads.Index)
	if err != nil {
		return nil, err
	}
	if t.Local == nil { // it was uploaded since we looked
		return s.narSource(ctx, hash, name, narHash)
	}
	if t.Local.Name != name {
		return nil, fs.ErrNotExist
	}
	return &narSource{t.Local.Info, true}, nil
}

// dump returns a source of a NAR for an encoder.
func (s *localNars) dump(src *narSource) encoder.Source {
	if src.local {
		return s.Local.Dump(src.Info)
	}
	return func(ctx context.Context, w io.Writer) error {
		in, err := narfile.Open(s.Uploads.Files, src.URL)
		if err != nil {
			return err
		}
		defer in.Close()
		_, err = io.Copy(struct{ io.Writer }{w}, narfile.WithContext(ctx, in))
		return err
	}
}

// ---- compressed

// sendCompressedNar sends the NAR compressed: a finished file as any NAR file is sent,
// else what an encoder makes of it while that is at work.
func (s *localNars) sendCompressedNar(w *reply.Writer, req *http.Request, file string, src *narSource) error {
	h := w.Header()
	etag := h.Get("Etag")
	if status := reply.Condition(req, etag); status != 0 {
		return answerCondition(w, status)
	}
	if s.Local == nil { // serve_store was turned off, and clients remember this URL
		h["Etag"] = []string{`"` + src.FileHash.Base32() + `"`} // as it may be another file
		return s.sendUpload(w, req, src)
	}
	if done, err := s.sendFinished(w, req, file); done || err != nil {
		return err
	}
	digest, known := s.Local.Compressed.Digest(file)
	if known && !src.local && src.FileHash == digest.Hash { // it was adopted
		return s.sendUpload(w, req, src)
	}
	if req.Method == http.MethodHead { // an encoder is not started for it
		if known {
			h["Content-Length"] = []string{strconv.FormatInt(digest.Size, 10)}
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	stream, err := s.Local.Compressed.Join(req.Context(), file, s.dump(src))
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }() // never fails
	// A client of HTTP/1.0 could not tell a broken reply from a short one, and a
	// range can be cut only out of a whole.
	if req.ProtoAtLeast(1, 1) && reply.RangeOf(req, etag) == "" {
		return copyStream(w, stream)
	}
	f, digest, err := stream.File(req.Context())
	if err != nil {
		return err
	}
	defer f.Close()
	return reply.Content(w, req, f, digest.Size)
}

// sendFinished sends a compressed NAR that is whole, if there is one.
func (s *localNars) sendFinished(w *reply.Writer, req *http.Request, file string) (done bool, err error) {
	f, digest, err := s.Local.Compressed.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	whole := false
	defer func() {
		if !whole { // serveContent does not tell whose fault it was
			s.dropUnreadable(f, file)
		}
		f.Close()
	}()
	err = reply.Content(w, req, f, digest.Size)
	whole = err == nil
	return true, err
}

// dropUnreadable removes a compressed NAR that cannot be read on from where sending
// stopped; the next one who asks has it compressed anew.
func (s *parts) dropUnreadable(f io.ReadSeeker, file string) {
	at, err := f.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = f.Read(make([]byte, 4096))
	}
	if err == nil || err == io.EOF {
		return
	}
	if err := s.Local.Compressed.Drop(file, fmt.Errorf("at byte %d: %w", at, err)); err != nil {
		s.Log.Error("a packed NAR that cannot be read is not removed", "file", file, "error", err)
	}
}

// sendUpload sends the uploaded file in the place of what our own encoder would
// make. For an adopted path that is the same file.
func (s *localNars) sendUpload(w *reply.Writer, req *http.Request, src *narSource) error {
	if src.Compression != "zstd" {
		return fs.ErrNotExist
	}
	f, err := s.Uploads.Files.Open(src.URL)
	if err != nil {
		return err
	}
	defer f.Close()
	return reply.Content(w, req, f.Content, f.Size)
}

// copies are the buffers between an encode and its readers.
var copies = sync.Pool{New: func() any {
	b := make([]byte, 128<<10)
	return &b
}}

// copyStream sends what an encoder makes, and flushes whenever it has sent all
// that there is: the client need not wait for a buffer of ours to fill.
func copyStream(w *reply.Writer, r io.Reader) error {
	p, ok := copies.Get().(*[]byte)
	if !ok {
		panic("the pool holds buffers only")
	}
	defer copies.Put(p)
	for {
		n, err := r.Read(*p)
		if n > 0 {
			if _, err := w.Write((*p)[:n]); err != nil {
				return ofClient(err)
			}
			if n < len(*p) {
				_ = w.Control.Flush() // the next write tells
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// ---- plain

// sendPlainNar sends the NAR as it is, out of the path's own files.
func (s *localNars) sendPlainNar(w *reply.Writer, req *http.Request, _ string, src *narSource) error {
	h := w.Header()
	etag := h.Get("Etag")
	if status := reply.Condition(req, etag); status != 0 {
		return answerCondition(w, status)
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
	out := &laterHead{w, status}
	if src.local {
		return s.Local.WriteNAR(req.Context(), out, src.Info, part.From, part.To)
	}
	return s.copyUpload(out, src.Info, part)
}

// copyUpload writes a part of an uploaded path's NAR.
func (s *localNars) copyUpload(w io.Writer, i *narinfo.Info, part reply.Span) error {
	in, err := narfile.Open(s.Uploads.Files, i.URL)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := io.CopyN(io.Discard, in, part.From); err != nil {
		return fmt.Errorf("read %s: %w", i.URL, err)
	}
	if _, err := io.CopyN(struct{ io.Writer }{w}, in, part.To-part.From); err != nil {
		return fmt.Errorf("read %s: %w", i.URL, err)
	}
	return nil
}

// laterHead sends the header with the first byte of the body, so that an error
// before that is an answer of its own. Errors are those of the client.
type laterHead struct {
	*reply.Writer
	code int
}

func (w *laterHead) start() {
	if w.Status == 0 {
		w.WriteHeader(w.code)
	}
}

func (w *laterHead) Write(p []byte) (int, error) {
	w.start()
	n, err := w.Writer.Write(p)
	return n, ofClient(err)
}

// ReadFrom implements io.ReaderFrom, for sendfile.
func (w *laterHead) ReadFrom(r io.Reader) (int64, error) {
	w.start()
	n, err := w.Writer.ReadFrom(r)
	return n, ofClient(err)
}

// ---- what goes wrong

// clientError is a failure of the connection, not of what was to be sent.
type clientError struct{ err error }

func (e *clientError) Error() string { return e.err.Error() }
func (e *clientError) Unwrap() error { return e.err }

// ofClient marks an error of writing a reply. One of sendfile may be of either
// side; a disk's are these.
func ofClient(err error) error {
	for _, disk := range []error{syscall.EIO, syscall.ESTALE, syscall.EUCLEAN, syscall.EBADMSG, syscall.ENODATA, syscall.ENXIO} {
		if errors.Is(err, disk) {
			return err
		}
	}
	if err == nil {
		return nil
	}
	return &clientError{err}
}

func answerCondition(w *reply.Writer, status int) error {
	h := w.Header()
	h.Del("Content-Type")
	if status == http.StatusPreconditionFailed {
		return refusal.New(refusal.Condition, "the NAR has another ETag")
	}
	w.WriteHeader(status)
	return nil
}

// brokenLocal judges an error of sending src. One of the path is counted and
// logged with what to do, and a reply that has begun is broken off.
func (s *parts) brokenLocal(w *reply.Writer, req *http.Request, src *narSource, err error) error {
	if err == nil {
		return nil
	}
	kind := ""
	var client *clientError
	switch {
	case errors.As(err, &client), refusal.In(err) != nil, req.Context().Err() != nil:
	case errors.Is(err, compress.ErrClosed):
		err = refusal.New(refusal.Stopping, "the server stops; try again")
	case errors.Is(err, compress.ErrNotStored):
		s.Log.Error("a packed NAR could not be stored", "path", src.Path, "error", err)
		err = refusal.New(refusal.NoRoom, "this cache has no room to pack the NAR; download it whole, or try again later")
	case !src.local:
	case errors.Is(err, encoder.ErrWrongNAR), errors.Is(err, dump.ErrChanged):
		kind = brokenChanged
	case errors.Is(err, fs.ErrNotExist):
		kind = brokenMissing
	default:
		kind = brokenUnreadable
	}
	if kind != "" {
		s.metrics.broken.WithLabelValues(kind).Inc()
		s.Log.Error("a path of the local store is not what Nix knows it as; nix store verify --repair mends it", "path", s.Local.RealPath(src.Path), "url", req.URL.Path, "error", err, "sent", w.Bytes)
	}
	if w.Written {
		panic(http.ErrAbortHandler)
	}
	if kind == brokenChanged || kind == brokenUnreadable {
		return refusal.New(refusal.LocalBroken, "%s in this cache's own store is damaged; tell whoever runs it", src.Path)
	}
	return err
}
