package cache

import (
	"bytes"
	"context"
	"errors"
	"net/http"

	"narwharf/cache/index"
	"narwharf/cache/listing"
	"narwharf/cache/nar"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/narinfo"
)

// maxListing bounds an uploaded listing's text: some 600,000 files.
const maxListing = 64 << 20

// listings answers /<hash>.ls.
type listings struct {
	*parts
	maker *listing.Maker
}

// getListing answers /<hash>.ls. The listing is made from the NAR, whose
// hash was verified, when it is first asked for, and kept.
func (s *listings) getListing(w *reply.Writer, req *http.Request, hash string) error {
	f, err := s.maker.Open(req.Context(), hash)
	if s.Local != nil && errors.Is(err, index.ErrNotFound) {
		return s.getLocalListing(w, req, hash)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return reply.Blob(w, req, f, "application/json")
}

// getLocalListing walks a path of the local store. It opens no file, and its
// ETag is known before: the same NAR has the same listing.
func (s *listings) getLocalListing(w *reply.Writer, req *http.Request, hash string) error {
	info, err := s.Local.Info(req.Context(), hash)
	if err != nil {
		return err
	}
	w.Source = sourceLocal
	etag := info.NarHash.Base32()
	w.Header().Set("Etag", `"`+etag+`"`)
	if reply.NoneMatch(req, `"`+etag+`"`) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	text, err := s.walk(req.Context(), info)
	if err != nil {
		return s.brokenLocal(w, req, &narSource{info, true}, err)
	}
	return reply.Text(w, req, bytes.NewReader(text), int64(len(text)), "application/json", etag)
}

// walk makes the listing of a local path; a few at a time, as all listings.
func (s *listings) walk(ctx context.Context, info *narinfo.Info) ([]byte, error) {
	done, err := s.maker.Turn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	tree, err := s.Local.Measure(ctx, info)
	if err != nil {
		return nil, err
	}
	return listing.Text(info.Path, tree.Listing())
}

// putListing takes what `nix copy` with write-nar-listing=1 sends. It comes
// before the NAR and cannot be checked then; the listing that is served is
// made from verified bytes. So a well-formed one is accepted and not kept.
func (s *listings) putListing(w *reply.Writer, req *http.Request, _ string) error {
	text, err := smallBody(req, maxListing, "the listing", refusal.Content)
	if err != nil {
		return err
	}
	if _, err := nar.ParseListing(text); err != nil {
		return refusal.New(refusal.Listing, "not a NAR listing: %v", err)
	}
	return reply.Stored(w)
}
