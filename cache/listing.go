package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/nar"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/narinfo"
)

// maxListing bounds an uploaded listing's text: some 600,000 files.
const maxListing = 64 << 20

// getListing answers /<hash>.ls. The listing is made from the NAR, whose
// hash was verified, when it is first asked for, and kept.
func (s *Server) getListing(w *response, req *http.Request, hash string) error {
	f, err := s.uploads.Files.Open(hash + ".ls")
	if errors.Is(err, fs.ErrNotExist) {
		f, err = s.makeListing(req.Context(), hash)
	}
	if s.local != nil && errors.Is(err, index.ErrNotFound) {
		return s.getLocalListing(w, req, hash)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return s.sendBlob(w, req, f, "application/json")
}

// getLocalListing walks a path of the local store. It opens no file, and its
// ETag is known before: the same NAR has the same listing.
func (s *Server) getLocalListing(w *response, req *http.Request, hash string) error {
	info, err := s.local.Info(req.Context(), hash)
	if err != nil {
		return err
	}
	w.source = sourceLocal
	etag := info.NarHash.Base32()
	w.Header().Set("Etag", `"`+etag+`"`)
	if noneMatch(req, `"`+etag+`"`) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	text, err := s.walk(req.Context(), info)
	if err != nil {
		return s.brokenLocal(w, req, &narSource{info, true}, err)
	}
	return sendText(w, req, bytes.NewReader(text), int64(len(text)), "application/json", etag)
}

// walk makes the listing of a local path; a few at a time, as all listings.
func (s *Server) walk(ctx context.Context, info *narinfo.Info) ([]byte, error) {
	select {
	case s.listings <- struct{}{}:
		defer func() { <-s.listings }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	tree, err := s.local.Measure(ctx, info)
	if err != nil {
		return nil, err
	}
	text, err := tree.Listing().AppendJSON(nil)
	if err != nil { // as in list
		return nil, refusal.New(refusal.Missing, "%s has no listing: %v", info.Path, err)
	}
	return text, nil
}

// makeListing makes the listing of a path, keeps it and returns it.
func (s *Server) makeListing(ctx context.Context, hash string) (*blob.File, error) {
	name := hash + ".ls"
	// Anybody may ask for the listing of anything, and making one reads a
	// whole NAR: each is made once, whoever else waits, and a few at a time.
	defer s.locks.Lock(name)()
	if f, err := s.uploads.Files.Open(name); err == nil {
		return f, nil
	}
	select {
	case s.listings <- struct{}{}:
		defer func() { <-s.listings }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r, err := s.uploads.Index.Get(hash)
	if err != nil {
		return nil, err
	}
	text, err := s.list(r.Info)
	if err != nil {
		return nil, err
	}
	if err := blob.WriteFile(s.uploads.Files, name, text); err != nil {
		s.log.Warn("a listing could not be kept, it will be made again", "file", name, "error", err)
	} else if now, err := s.uploads.Index.Get(hash); err != nil || now.Info.NarHash != r.Info.NarHash {
		// The path was taken out meanwhile, and may have come back as another.
		if err := errors.Join(err, s.uploads.Files.Remove(name)); err != nil {
			return nil, err
		}
	}
	modified := time.Now()
	if st, err := s.uploads.Files.Stat(name); err == nil {
		modified = st.ModTime // the ETag is made of it, and later answers have the file's
	}
	return &blob.File{
		Info:    blob.Info{Name: name, Size: int64(len(text)), ModTime: modified},
		Content: inMemory{bytes.NewReader(text)},
	}, nil
}

type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

// list reads the NAR of a path and returns the listing's text.
func (s *Server) list(info *narinfo.Info) ([]byte, error) {
	plain, err := narfile.Open(s.uploads.Files, info.URL)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	root, err := nar.List(plain)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", info.URL, damaged(err))
	}
	text, err := root.AppendJSON(nil)
	if err != nil { // a name that JSON cannot hold; Nix writes no listing either
		return nil, refusal.New(refusal.Missing, "%s has no listing: %v", info.Path, err)
	}
	return text, nil
}

// damaged takes the status off an error about content: here it is our own
// stored file, not something that the caller sent.
func damaged(err error) error { return errors.New(err.Error()) }

// putListing takes what `nix copy` with write-nar-listing=1 sends. It comes
// before the NAR and cannot be checked then; the listing that is served is
// made from verified bytes. So a well-formed one is accepted and not kept.
func (s *Server) putListing(w *response, req *http.Request, _ string) error {
	text, err := smallBody(req, maxListing, "the listing", refusal.Content)
	if err != nil {
		return err
	}
	if _, err := nar.ParseListing(text); err != nil {
		return refusal.New(refusal.Listing, "not a NAR listing: %v", err)
	}
	return stored(w)
}

// smallBody reads a body whole, its Content-Encoding undone.
func smallBody(req *http.Request, limit int64, what string, kind refusal.Kind) ([]byte, error) {
	if req.ContentLength > limit {
		return nil, refusal.New(refusal.TooLarge, "%s is larger than the %s that this cache takes", what, refusal.Size(limit))
	}
	plain, err := narfile.Decode(req.Body, req.Header.Get("Content-Encoding"), limit, what, kind)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	return io.ReadAll(plain)
}
