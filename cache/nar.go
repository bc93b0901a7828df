package cache

import (
	"bytes"
	"net/http"
	"strings"

	"narwharf/cache/local"
	"narwharf/cache/probe"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/narinfo/clip"
	"narwharf/signing/access/scope"
)

const narType = "application/x-nix-nar"

// nars answers /nar/<file>.
type nars struct {
	*parts
	plain endpoint // sends a plain NAR of "<hash part>-<NAR hash>"
}

// getNar sends a stored NAR file as it is: by sendfile, with a strong ETag,
// and with ranges. Nix resumes a broken download only where it saw
// "Accept-Ranges: bytes", on errors too, and never one that had a
// Content-Encoding; it sends no If-Range, so the bytes of a URL never change.
func (s *nars) getNar(w *reply.Writer, req *http.Request, file string) error {
	w.Header()["Accept-Ranges"] = []string{"bytes"}
	if name := harmoniaName(req, file); name != "" {
		return s.plain(w, s.counts(w, req, s.Access.Identify(req)), name)
	}
	w.Header()["Content-Type"] = []string{narType}
	w.Header()["Etag"] = []string{`"` + file[:52] + `"`}
	if file == probe.File {
		return reply.Content(w, req, bytes.NewReader(probe.NAR), int64(len(probe.NAR)))
	}
	f, url, err := s.Cache.OpenNar(req.Context(), file, s.mayPush(req), req.Method == http.MethodGet)
	if err != nil {
		return err
	}
	if url != "" {
		return reply.Elsewhere(w, url)
	}
	defer f.Close()
	return reply.Content(w, req, f.Content, f.Size)
}

// harmoniaName is our name of a plain NAR, if the request has Harmonia's, which clients remember
// for 30 days after a switch to us: nar/<NAR hash>.nar?hash=<hash part>. An upload without
// compression may lie there by that name; it is the same.
func harmoniaName(req *http.Request, file string) string {
	hash := req.URL.Query().Get("hash")
	digits, plain := strings.CutSuffix(file, local.PlainSuffix)
	if name := hash + "-" + digits; plain && localGrammar.MatchString(name) {
		return name
	}
	return ""
}

func (s *nars) putNar(w *reply.Writer, req *http.Request, file string) error {
	// Nothing on /nar/ is ever content-encoded; the NAR's own compression
	// is part of the file.
	if enc := req.Header.Get("Content-Encoding"); enc != "" && enc != "none" && enc != "identity" {
		return refusal.New(refusal.Encoding, "a NAR takes no Content-Encoding (%s): its compression is named in the narinfo", clip.Text(enc, 100))
	}
	if err := s.Cache.PutNar(req.Context(), file, req.Body, req.ContentLength); err != nil {
		return err
	}
	s.Log.Debug("received", "nar", file, "size", req.ContentLength)
	return reply.Stored(w)
}

func (s *parts) mayPush(req *http.Request) bool {
	return s.Access.Identify(req).Deny(scope.Scope{Kind: scope.Push}) == nil
}
