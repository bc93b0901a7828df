package cache

import (
	"bufio"
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
	pack "narwharf/cache/local/compress"
	"narwharf/cache/nar"
	"narwharf/narinfo"
)

// A local path's NAR has two URLs, nar/<hash part>-<NAR hash>.nar.zst, which its
// narinfo names, and the same without .zst. Both work for as long as the path
// has that NAR hash in either source: clients remember a narinfo for 30 days,
// and meanwhile the path may have been adopted, or uploaded and deleted here.
// The bytes are the same from wherever they come.

// narSource is where a NAR can be read.
type narSource struct {
	path narinfo.Path
	size int64 // of the NAR
	hash narinfo.Hash

	root   string        // the path's files, if it is a local one
	upload *narinfo.Info // else
}

// getPackedNar answers /nar/<name>.nar.zst.
func (s *Server) getPackedNar(w *response, req *http.Request, name string) error {
	return s.getLocalNar(w, req, name, packedSuffix, s.sendPackedNar)
}

// getPlainNar answers /nar/<name>.nar.
func (s *Server) getPlainNar(w *response, req *http.Request, name string) error {
	return s.getLocalNar(w, req, name, plainSuffix, s.sendPlainNar)
}

// getLocalNar finds the source and sends it.
func (s *Server) getLocalNar(w *response, req *http.Request, name, suffix string, send func(*response, *http.Request, string, *narSource) error) error {
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
	if src.root != "" {
		w.source = sourceLocal
	}
	h["Content-Type"] = []string{narType}
	h["Cache-Control"] = []string{s.keep}
	h["Etag"] = []string{`"` + digits + strings.TrimPrefix(suffix, plainSuffix) + `"`}
	return s.brokenLocal(w, req, src, send(w, req, name+suffix, src))
}

// narSource looks for a path with this NAR: among the uploads, then in the
// local store. What the signer has in memory saves the look.
func (s *Server) narSource(ctx context.Context, hash, name string, narHash narinfo.Hash) (*narSource, error) {
	if t, _ := s.signer.known(hash); t != nil && t.local != nil && t.local.name == name {
		return s.local.source(t.local.info), nil
	}
	r, err := s.index().Get(hash)
	if err == nil && r.Info.NarHash == narHash {
		return &narSource{path: r.Info.Path, size: r.Info.NarSize, hash: narHash, upload: r.Info}, nil
	}
	if err != nil && !errors.Is(err, index.ErrNotFound) {
		return nil, err
	}
	if s.local == nil {
		return nil, fs.ErrNotExist
	}
	if err == nil { // uploaded with another content
		p, err := s.local.find(ctx, hash)
		if err != nil || p.info.NarHash != narHash {
			return nil, cmp.Or(err, fs.ErrNotExist)
		}
		return s.local.source(p.info), nil
	}
	t, err := s.signer.get(ctx, hash, s.index())
	if err != nil {
		return nil, err
	}
	if t.local == nil { // it was uploaded since we looked
		return s.narSource(ctx, hash, name, narHash)
	}
	if t.local.name != name {
		return nil, fs.ErrNotExist
	}
	return s.local.source(t.local.info), nil
}

func (l *Local) source(i *narinfo.Info) *narSource {
	return &narSource{path: i.Path, size: i.NarSize, hash: i.NarHash, root: l.store.RealPath(i.Path)}
}

// dump writes the whole NAR to an encoder; it is a pack.Source.
func (u *Uploads) dump(src *narSource) pack.Source {
	return func(ctx context.Context, w io.Writer) error {
		if src.root != "" {
			// Without ReadFrom: an encoder's would depend on the pieces.
			n, err := nar.DumpContext(ctx, struct{ io.Writer }{w}, src.root)
			if err == nil && n != src.size {
				err = wrongSize(n, src.size)
			}
			return err
		}
		in, err := u.openNar(src.upload)
		if err != nil {
			return err
		}
		defer in.Close()
		_, err = io.Copy(struct{ io.Writer }{w}, readerWith{ctx, in})
		return err
	}
}

func wrongSize(is, should int64) error {
	return fmt.Errorf("%w: it makes a NAR of %d bytes and should make one of %d", nar.ErrChanged, is, should)
}

// readerWith ends with its context.
type readerWith struct {
	ctx context.Context
	r   io.Reader
}

func (r readerWith) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// openNar returns the NAR of an uploaded path, unpacked.
func (u *Uploads) openNar(i *narinfo.Info) (io.ReadCloser, error) {
	f, err := u.blobs.Open(i.URL)
	if err != nil {
		return nil, err
	}
	buf := readers.get(f.Content)
	_, plain, err := decodeNar(buf, strings.TrimPrefix(i.URL, "nar/"))
	if err != nil {
		readers.put(buf)
		f.Close()
		return nil, damaged(err)
	}
	return &openedNar{plain, buf, f}, nil
}

type openedNar struct {
	io.ReadCloser
	buf  *bufio.Reader
	file io.Closer
}

func (o *openedNar) Close() error {
	o.ReadCloser.Close()
	readers.put(o.buf)
	return o.file.Close()
}

// ---- packed

// sendPackedNar sends the NAR packed: a finished file as any NAR file is sent,
// else what an encoder makes of it while that is at work.
func (s *Server) sendPackedNar(w *response, req *http.Request, file string, src *narSource) error {
	h := w.Header()
	etag := h.Get("Etag")
	if status := condition(req, etag); status != 0 {
		return answerCondition(w, status)
	}
	if s.local == nil { // serve_store was turned off, and clients remember this URL
		h["Etag"] = []string{`"` + src.upload.FileHash.Base32() + `"`} // as it may be another file
		return s.sendUpload(w, req, src)
	}
	if done, err := s.sendFinished(w, req, file); done || err != nil {
		return err
	}
	facts, known := s.local.packed.Facts(file)
	if known && src.upload != nil && src.upload.FileHash == facts.FileHash { // it was adopted
		return s.sendUpload(w, req, src)
	}
	if req.Method == http.MethodHead { // an encoder is not started for it
		if known {
			h["Content-Length"] = []string{strconv.FormatInt(facts.FileSize, 10)}
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	stream, err := s.local.packed.Join(req.Context(), file, s.uploads.dump(src))
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }() // never fails
	// A client of HTTP/1.0 could not tell a broken reply from a short one, and a
	// range can be cut only out of a whole.
	if req.ProtoAtLeast(1, 1) && rangeOf(req, etag) == "" {
		return copyStream(w, stream)
	}
	if _, err := stream.Wait(req.Context()); err != nil {
		return err
	}
	f, facts, err := stream.File()
	if err != nil {
		return err
	}
	defer f.Close()
	return serveContent(w, req, f, facts.FileSize)
}

// sendFinished sends a packed NAR that is whole, if there is one.
func (s *Server) sendFinished(w *response, req *http.Request, file string) (done bool, err error) {
	f, facts, err := s.local.packed.Open(file)
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
	err = serveContent(w, req, f, facts.FileSize)
	whole = err == nil
	return true, err
}

// dropUnreadable removes a packed NAR that cannot be read on from where sending
// stopped; the next one who asks has it packed anew.
func (s *Server) dropUnreadable(f io.ReadSeeker, file string) {
	at, err := f.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = f.Read(make([]byte, 4096))
	}
	if err == nil || err == io.EOF {
		return
	}
	if err := s.local.packed.Drop(file, fmt.Errorf("at byte %d: %w", at, err)); err != nil {
		s.log.Error("a packed NAR that cannot be read is not removed", "file", file, "error", err)
	}
}

// sendUpload sends the uploaded file in the place of what our own encoder would
// make. For an adopted path that is the same file.
func (s *Server) sendUpload(w *response, req *http.Request, src *narSource) error {
	if src.upload.Compression != "zstd" {
		return fs.ErrNotExist
	}
	f, err := s.uploads.blobs.Open(src.upload.URL)
	if err != nil {
		return err
	}
	defer f.Close()
	return serveContent(w, req, f.Content, f.Size)
}

// copies are the buffers between an encode and its readers.
var copies = sync.Pool{New: func() any {
	b := make([]byte, 128<<10)
	return &b
}}

// copyStream sends what an encoder makes, and flushes whenever it has sent all
// that there is: the client need not wait for a buffer of ours to fill.
func copyStream(w *response, r io.Reader) error {
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
				_ = w.control.Flush() // the next write tells
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
func (s *Server) sendPlainNar(w *response, req *http.Request, _ string, src *narSource) error {
	h := w.Header()
	etag := h.Get("Etag")
	if status := condition(req, etag); status != 0 {
		return answerCondition(w, status)
	}
	part, partial, err := parseRange(rangeOf(req, etag), src.size)
	if err != nil {
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", src.size))
		return err
	}
	var tree *nar.Tree
	if partial && src.root != "" {
		if tree, err = nar.Measure(req.Context(), src.root); err != nil {
			return err
		}
		if tree.Size() != src.size {
			return wrongSize(tree.Size(), src.size)
		}
	}
	status := http.StatusOK
	if partial {
		status = http.StatusPartialContent
		h["Content-Range"] = []string{part.contentRange(src.size)}
	}
	h["Content-Length"] = []string{strconv.FormatInt(part.to-part.from, 10)}
	if req.Method == http.MethodHead {
		w.WriteHeader(status)
		return nil
	}
	out := &exactly{w: w, left: part.to - part.from, status: status}
	switch {
	case tree != nil:
		_, err = tree.WriteRange(req.Context(), out, part.from, part.to)
	case src.root != "":
		_, err = nar.DumpContext(req.Context(), out, src.root)
	default:
		err = s.copyUpload(out, src.upload, part)
	}
	if err == nil {
		err = out.end()
	}
	return err
}

// copyUpload writes a part of an uploaded path's NAR.
func (s *Server) copyUpload(w io.Writer, i *narinfo.Info, part span) error {
	in, err := s.uploads.openNar(i)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := io.CopyN(io.Discard, in, part.from); err != nil {
		return fmt.Errorf("read %s: %w", i.URL, err)
	}
	if _, err := io.CopyN(struct{ io.Writer }{w}, in, part.to-part.from); err != nil {
		return fmt.Errorf("read %s: %w", i.URL, err)
	}
	return nil
}

// exactly passes on just as many bytes as were announced. The last ones are
// held back until all is known to be well: with its Content-Length complete a
// reply is complete, whatever happens then. A NAR does not end with a body, so
// what goes by ReadFrom is never the end.
type exactly struct {
	w      *response
	status int
	left   int64
	held   []byte
}

const heldBytes = 8 // the last closing parenthesis needs no more

var errTooLong = fmt.Errorf("%w: it makes a longer NAR than it should", nar.ErrChanged)

func (e *exactly) begin() {
	if e.w.status == 0 {
		e.w.WriteHeader(e.status)
	}
}

func (e *exactly) Write(p []byte) (int, error) {
	if int64(len(p)) > e.left {
		return 0, errTooLong
	}
	e.begin()
	e.left -= int64(len(p))
	whole := len(p)
	if near := heldBytes - e.left; near > 0 {
		n := min(int64(len(p)), near)
		e.held = append(e.held, p[int64(len(p))-n:]...)
		p = p[:int64(len(p))-n]
	}
	if len(p) > 0 {
		if _, err := e.w.Write(p); err != nil {
			return 0, ofClient(err)
		}
	}
	return whole, nil
}

// ReadFrom implements io.ReaderFrom for bodies, which so go out by sendfile, but
// for what has to be held back where a range ends in one.
func (e *exactly) ReadFrom(r io.Reader) (total int64, err error) {
	body, ok := r.(*io.LimitedReader)
	if !ok {
		return io.Copy(struct{ io.Writer }{e}, r)
	}
	if body.N > e.left {
		return 0, errTooLong
	}
	if limit := min(body.N, e.left-heldBytes); limit > 0 {
		e.begin()
		most := &io.LimitedReader{R: body.R, N: limit}
		total, err = e.w.ReadFrom(most)
		e.left -= total
		body.N -= total
		if err != nil || total < limit {
			return total, ofClient(err)
		}
	}
	n, err := io.Copy(struct{ io.Writer }{e}, body)
	return total + n, err
}

func (e *exactly) end() error {
	if e.left > 0 {
		return fmt.Errorf("%w: %d bytes are missing at the end of its NAR", nar.ErrChanged, e.left)
	}
	_, err := e.w.Write(e.held)
	return ofClient(err)
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

func answerCondition(w *response, status int) error {
	h := w.Header()
	h.Del("Content-Type")
	if status == http.StatusPreconditionFailed {
		return refuse(http.StatusPreconditionFailed, "condition", "the NAR has another ETag")
	}
	w.WriteHeader(status)
	return nil
}

// brokenLocal judges an error of sending src. One of the path is counted and
// logged with what to do, and a reply that has begun is broken off.
func (s *Server) brokenLocal(w *response, req *http.Request, src *narSource, err error) error {
	if err == nil {
		return nil
	}
	kind := ""
	var client *clientError
	var refusal *Refusal
	switch {
	case errors.As(err, &client), errors.As(err, &refusal), req.Context().Err() != nil:
	case errors.Is(err, pack.ErrClosed):
		err = refuse(http.StatusServiceUnavailable, "stopping", "the server stops; try again")
	case errors.Is(err, pack.ErrNotStored):
		s.log.Error("a packed NAR could not be stored", "path", src.path, "error", err)
		err = refuse(http.StatusServiceUnavailable, "full", "this cache has no room to pack the NAR; download it whole, or try again later")
	case src.root == "":
	case errors.Is(err, pack.ErrWrongNAR), errors.Is(err, nar.ErrChanged):
		kind = brokenChanged
	case errors.Is(err, fs.ErrNotExist):
		kind = brokenMissing
	default:
		kind = brokenUnreadable
	}
	if kind != "" {
		s.metrics.broken.WithLabelValues(kind).Inc()
		s.log.Error("a path of the local store is not what Nix knows it as; nix store verify --repair mends it", "path", src.root, "url", req.URL.Path, "error", err, "sent", w.bytes)
	}
	if w.written {
		panic(http.ErrAbortHandler)
	}
	if kind == brokenChanged || kind == brokenUnreadable {
		return refuse(http.StatusInternalServerError, "local-broken", "%s in this cache's own store is damaged; tell whoever runs it", src.path)
	}
	return err
}
