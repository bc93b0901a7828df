package cache

import (
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"narwharf/cache/fastpath"
	"narwharf/cache/refusal"
	"narwharf/narinfo/clip"
	"narwharf/signing/access"
)

const narType = "application/x-nix-nar"

// nars answers /nar/<file>.
type nars struct{ *parts }

// getNar sends a stored NAR file as it is: by sendfile, with a strong ETag,
// and with ranges. Nix resumes a broken download only where it saw
// "Accept-Ranges: bytes", on errors too, and never one that had a
// Content-Encoding; it sends no If-Range, so the bytes of a URL never change.
func (s *nars) getNar(w *response, req *http.Request, file string) error {
	w.Header()["Accept-Ranges"] = []string{"bytes"}
	if req.Method == http.MethodHead && s.mayPush(req) {
		// Whoever can upload asks in order to know whether he must.
		if _, err := s.Uploads.Claim(file); err != nil {
			return err
		}
	}
	f, err := s.Uploads.Files.Open("nar/" + file)
	if err != nil {
		return err
	}
	defer f.Close()
	h := w.Header()
	h["Content-Type"] = []string{narType}
	h["Etag"] = []string{`"` + file[:52] + `"`}
	h["Cache-Control"] = []string{s.immutable}
	return serveContent(w, req, f.Content, f.Size)
}

// serveContent answers ranges and conditions by http.ServeContent and notices
// what that hides: a file that could not be sent whole.
func serveContent(w *response, req *http.Request, content io.ReadSeeker, size int64) error {
	if f, ok := content.(*os.File); ok && size > 0 && wantsAll(req) {
		return sendFile(w, req, f, size)
	}
	before := w.bytes
	http.ServeContent(w, req, "", time.Time{}, content)
	if req.Method == http.MethodGet && w.status == http.StatusOK && w.bytes-before < size {
		panic(http.ErrAbortHandler) // read error or the client left: never a complete 200
	}
	return nil
}

// sendFile is serveContent for a request that can have no other answer than all
// of a file. The head leaves with the first of sendfile's pages; ServeContent
// would seek three times and read the begin in order to send it with the head.
func sendFile(w *response, req *http.Request, f *os.File, size int64) error {
	h := w.Header()
	h["Accept-Ranges"] = []string{"bytes"}
	h["Content-Length"] = []string{strconv.FormatInt(size, 10)}
	w.WriteHeader(http.StatusOK)
	fastpath.Hold(req.Context())
	if err := w.flush(); err == nil {
		// What is missing at the end breaks the connection off, whatever the error.
		n, _ := w.ReadFrom(&io.LimitedReader{R: f, N: size})
		size -= n
	}
	if size > 0 {
		panic(http.ErrAbortHandler) // read error or the client left: never a complete 200
	}
	return nil
}

// wantsAll reports whether no field of a GET asks for anything but all.
func wantsAll(req *http.Request) bool {
	if req.Method != http.MethodGet {
		return false
	}
	for _, name := range []string{"Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"} {
		if req.Header[name] != nil {
			return false
		}
	}
	return true
}

func (s *nars) putNar(w *response, req *http.Request, file string) error {
	// Nothing on /nar/ is ever content-encoded; the NAR's own compression
	// is part of the file.
	if enc := req.Header.Get("Content-Encoding"); enc != "" && enc != "none" && enc != "identity" {
		return refusal.New(refusal.Encoding, "a NAR takes no Content-Encoding (%s): its compression is named in the narinfo", clip.Text(enc, 100))
	}
	if err := s.Uploads.PutNar(file, req.Body, req.ContentLength); err != nil {
		return err
	}
	s.Log.Debug("received", "nar", file, "size", req.ContentLength)
	return stored(w)
}

func (s *nars) mayPush(req *http.Request) bool {
	return s.Access.Identify(req).Deny(access.Scope{Kind: access.Push}) == nil
}

// noneMatch reports whether the client has the version with this ETag. As RFC
// 9110, 13.1.2 has it, a weak one is as good.
func noneMatch(req *http.Request, etag string) bool {
	for _, line := range req.Header["If-None-Match"] {
		for item := range strings.SplitSeq(line, ",") {
			item = strings.TrimSpace(item)
			if item == "*" || strings.TrimPrefix(item, "W/") == strings.TrimPrefix(etag, "W/") {
				return true
			}
		}
	}
	return false
}

// accepts reports whether the request names an encoding as welcome.
func accepts(req *http.Request, encoding string) bool {
	for _, line := range req.Header["Accept-Encoding"] {
		for item := range strings.SplitSeq(line, ",") {
			name, q, _ := strings.Cut(item, ";")
			if strings.EqualFold(strings.TrimSpace(name), encoding) {
				q = strings.TrimSpace(q)
				return q != "q=0" && q != "q=0.0" && q != "q=0.00" && q != "q=0.000"
			}
		}
	}
	return false
}
