package cache

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"narwharf/cache/blob"
	"narwharf/cache/nar"
)

// maxListing bounds an uploaded listing's text: some 600,000 files.
const maxListing = 64 << 20

// getListing answers /<hash>.ls. The listing is made from the NAR, whose
// hash was verified, when it is first asked for, and kept.
func (s *Server) getListing(w *response, req *http.Request, hash string) error {
	name := hash + ".ls"
	f, err := s.uploads.blobs.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.makeListing(hash); err != nil {
			return err
		}
		f, err = s.uploads.blobs.Open(name)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return s.sendBlob(w, req, f, "application/json")
}

func (s *Server) makeListing(hash string) error {
	name := hash + ".ls"
	// Anybody may ask for the listing of anything, and making one reads a
	// whole NAR: a few at a time, and each one once, whoever else waits.
	s.listings <- struct{}{}
	defer func() { <-s.listings }()
	defer s.uploads.locks.lock(name)()
	if _, err := s.uploads.blobs.Stat(name); err == nil {
		return nil
	}
	r, err := s.index().Get(hash)
	if err != nil {
		return err
	}
	in, err := s.uploads.blobs.Open(r.Info.URL)
	if err != nil {
		return err
	}
	defer in.Close()
	buf := readers.get(in.Content)
	defer readers.put(buf)
	_, plain, err := decodeNar(buf, strings.TrimPrefix(r.Info.URL, "nar/"))
	if err != nil {
		return fmt.Errorf("list %s: %w", r.Info.URL, damaged(err))
	}
	defer plain.Close()
	root, err := nar.List(plain)
	if err != nil {
		return fmt.Errorf("list %s: %w", r.Info.URL, damaged(err))
	}
	text, err := root.AppendJSON(nil)
	if err != nil { // a name that JSON cannot hold; Nix writes no listing either
		return refuse(http.StatusNotFound, "missing", "%s has no listing: %v", r.Info.Path, err)
	}
	if err := blob.WriteFile(s.uploads.blobs, name, text); err != nil {
		return err
	}
	// The path may have been taken out meanwhile, and come back as another.
	now, err := s.index().Get(hash)
	if err == nil && now.Info.NarHash == r.Info.NarHash {
		return nil
	}
	return errors.Join(err, s.uploads.blobs.Remove(name))
}

// damaged takes the status off an error about content: here it is our own
// stored file, not something that the caller sent.
func damaged(err error) error { return errors.New(err.Error()) }

// putListing takes what `nix copy` with write-nar-listing=1 sends. It comes
// before the NAR and cannot be checked then; the listing that is served is
// made from verified bytes. So a well-formed one is accepted and not kept.
func (s *Server) putListing(w *response, req *http.Request, _ string) error {
	text, err := s.smallBody(req, maxListing, "the listing")
	if err != nil {
		return err
	}
	if _, err := nar.ParseListing(text); err != nil {
		return refuse(http.StatusUnprocessableEntity, "listing", "not a NAR listing: %v", err)
	}
	return stored(w)
}

// smallBody reads a body whole, its Content-Encoding undone.
func (s *Server) smallBody(req *http.Request, limit int64, what string) ([]byte, error) {
	if req.ContentLength > limit {
		return nil, refuse(http.StatusRequestEntityTooLarge, "too-large", "%s is larger than the %s that this cache takes", what, sizeText(limit))
	}
	src := &source{r: newCapped(req.Body, limit, what)}
	plain, err := decodeBody(src, req.Header.Get("Content-Encoding"))
	if err != nil {
		return nil, cmp.Or(src.err, err)
	}
	defer plain.Close()
	text, err := io.ReadAll(newCapped(plain, limit, what))
	if src.err != nil {
		return nil, src.err
	}
	if err != nil {
		return nil, asRefusal(err, "content")
	}
	return text, nil
}
