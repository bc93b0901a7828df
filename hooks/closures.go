package hooks

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"narwharf/hooks/api"
	"narwharf/hooks/longpoll"
	"narwharf/signing"
	"narwharf/signing/access"
)

// getClosure serves a manifest. It is immutable.
func (s *Server) getClosure(c *call) error {
	if err := c.need(pullScope); err != nil {
		return err
	}
	d, err := closureParam(c)
	if err != nil {
		return err
	}
	text, err := s.channels.Manifest(d)
	if err != nil {
		return err
	}
	h, etag := c.w.Header(), `"`+d.Hex()+`"`
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Etag", etag)
	if longpoll.Matches(c.req.Header.Get("If-None-Match"), etag) {
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	longpoll.WriteJSON(c.w, http.StatusOK, text)
	return nil
}

// closureParam reads 64 hex digits, with or without "sha256:".
func closureParam(c *call) (signing.Digest, error) {
	d, err := signing.ParseDigest("sha256:" + strings.TrimPrefix(c.param("digest"), "sha256:"))
	if err != nil {
		return d, api.Errorf(api.BadRequest, "a closure manifest is named by 64 hex digits: %v", err)
	}
	return d, nil
}

// putClosure takes a manifest that a promoter wants to be compared.
func (s *Server) putClosure(c *call) error {
	if err := c.need(access.Scope{Kind: access.Push}, access.Scope{Kind: access.Promote, Glob: "*"}); err != nil && !c.mayPromoteSome() {
		return err
	}
	d, err := closureParam(c)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(http.MaxBytesReader(c.w, c.req.Body, signing.MaxManifest))
	if tooBig := new(http.MaxBytesError); errors.As(err, &tooBig) {
		return err
	}
	switch {
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
	longpoll.WriteJSON(c.w, http.StatusCreated, nil)
	return nil
}

// mayPromoteSome tells whether the caller may promote any channel at all.
func (c *call) mayPromoteSome() bool {
	return slices.ContainsFunc(c.who.Scopes, func(sc access.Scope) bool { return sc.Kind == access.Promote || sc.Kind == access.Admin })
}
