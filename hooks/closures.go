package hooks

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"narwharf/cache/limits"
	"narwharf/hooks/api"
	"narwharf/hooks/call"
	"narwharf/hooks/longpoll"
	"narwharf/signing"
	"narwharf/signing/access/scope"
)

// getClosure serves a manifest. It is immutable.
func (s *Server) getClosure(c *call.Call) error {
	d, err := closureParam(c)
	if err != nil {
		return err
	}
	text, size, err := s.channels.Manifest(d)
	if err != nil {
		return err
	}
	defer text.Close()
	h, etag := c.W.Header(), `"`+d.Hex()+`"`
	h.Set("Content-Type", "text/plain; charset=utf-8")
	// Shared caches may keep what is "public" for those who may not read it.
	audience := "private"
	if s.access.Anybody(scope.Scope{Kind: scope.Pull}) {
		audience = "public"
	}
	h.Set("Cache-Control", audience+", max-age=31536000, immutable")
	h.Set("Etag", etag)
	if longpoll.Matches(c.Req.Header.Get("If-None-Match"), etag) {
		c.W.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	c.W.WriteHeader(http.StatusOK)
	if n, _ := io.Copy(c.W, text); n < size && c.Req.Method != http.MethodHead {
		panic(http.ErrAbortHandler) // a read error, or the client left: never a whole answer
	}
	return nil
}

// closureParam reads 64 hex digits, with or without "sha256:".
func closureParam(c *call.Call) (signing.Digest, error) {
	d, err := signing.ParseDigest("sha256:" + strings.TrimPrefix(c.Param("digest"), "sha256:"))
	if err != nil {
		return d, api.Errorf(api.BadRequest, "a closure manifest is named by 64 hex digits: %v", err)
	}
	return d, nil
}

// putClosure takes a manifest that a promoter wants to be compared.
func (s *Server) putClosure(c *call.Call) error {
	d, err := closureParam(c)
	if err != nil {
		return err
	}
	body, done, err := c.Body(c.Rooms.Room, signing.MaxManifest, signing.MaxManifest)
	if err != nil {
		return err
	}
	defer done()
	text, err := io.ReadAll(body)
	if tooBig := new(http.MaxBytesError); errors.As(err, &tooBig) {
		return err
	}
	switch {
	case errors.Is(err, limits.ErrSlow):
		return err
	case err != nil:
		return api.Errorf(api.BadRequest, "the body ended early: %v", err)
	case len(text) == 0:
		return api.Errorf(api.BadRequest, "the body is empty, it should be a closure manifest")
	case strings.TrimSpace(string(text)) == "{}":
		return api.Errorf(api.BadRequest, "the body is not a closure manifest: it has a line for each path, see docs/formats.md")
	}
	if err := s.channels.PutManifest(d, text); err != nil {
		return err
	}
	longpoll.WriteJSON(c.W, http.StatusCreated, nil)
	return nil
}
