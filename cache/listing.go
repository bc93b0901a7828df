package cache

import (
	"bytes"
	"net/http"

	"narwharf/cache/meter"
	"narwharf/cache/nar"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/cache/stored"
)

// listings answers /<hash>.ls.
type listings struct{ *parts }

func (s *listings) getListing(w *reply.Writer, req *http.Request, hash string) error {
	f, src, err := s.Cache.Listing(req.Context(), hash)
	if err != nil {
		return err
	}
	if src != nil {
		return s.sendListingOf(w, req, src)
	}
	defer f.Close()
	return reply.Blob(w, req, f, jsonType)
}

// sendListingOf makes the listing of what is no upload, if the client has not got it: the same NAR has the
// same one.
func (s *listings) sendListingOf(w *reply.Writer, req *http.Request, src *stored.Source) error {
	w.Source = meter.Local
	if src.Upstream != nil {
		w.Source = meter.Upstream
	}
	etag := src.NarHash.Base32()
	if reply.NotModified(w, req, `"`+etag+`"`) {
		return nil
	}
	text, err := s.Cache.ListingOf(req.Context(), src)
	if err != nil {
		return s.brokenLocal(w, req, src, err)
	}
	return reply.Text(w, req, bytes.NewReader(text), int64(len(text)), jsonType, etag)
}

// putListing takes what `nix copy` with write-nar-listing=1 sends. It comes
// before the NAR and cannot be checked then; the listing that is served is
// made from verified bytes. So a well-formed one is accepted and not kept.
func (s *listings) putListing(w *reply.Writer, req *http.Request, _ string) error {
	text, err := smallBody(req, stored.MaxListing, "the listing", refusal.Content)
	if err != nil {
		return err
	}
	if _, err := nar.ParseListing(text); err != nil {
		return refusal.New(refusal.Listing, "not a NAR listing: %v", err)
	}
	return reply.Stored(w)
}
