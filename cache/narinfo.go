package cache

import (
	"net/http"
	"strconv"

	"narwharf/cache/meter"
	"narwharf/cache/probe"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/cache/signed"
	"narwharf/cache/upload"
	"narwharf/narinfo"
)

// narinfos answers /<hash>.narinfo.
type narinfos struct{ *parts }

func (s *narinfos) find(req *http.Request, hash string) (*signed.Narinfo, error) {
	if hash == probe.Hash {
		return s.Cache.Signer.Sign(probe.Info(s.Cache.Uploads.StoreDir), true)
	}
	return s.Cache.Narinfo(req.Context(), hash, s.mayPush(req))
}

func (s *narinfos) getNarinfo(w *reply.Writer, req *http.Request, hash string) error {
	t, err := s.find(req, hash)
	if err == nil && w.LAN {
		t, err = t.Whole()
	}
	if err != nil {
		return err
	}
	switch {
	case t.Local != nil:
		w.Source = meter.Local
	case t.Upstream:
		w.Source = meter.Upstream
	}
	h := w.Header()
	text, etag, compressed := t.Text, t.Etag, t.Gzip
	if compressed != nil {
		h["Vary"] = []string{"Accept-Encoding"}
		if reply.Accepts(req, "gzip") {
			text, etag = compressed, "W/"+t.Etag
		}
	}
	if reply.NotModified(w, req, etag) {
		return nil
	}
	if etag != t.Etag {
		h["Content-Encoding"] = []string{"gzip"}
	}
	h["Content-Type"] = []string{signed.ContentType}
	h["Content-Length"] = []string{strconv.Itoa(len(text))}
	_, _ = w.Write(text) // fails only if the client left; net/http drops the text of a HEAD
	return nil
}

// putNarinfo takes in a narinfo; package upload says by which rules.
func (s *narinfos) putNarinfo(w *reply.Writer, req *http.Request, hash string) error {
	text, err := smallBody(req, upload.MaxNarinfo, "the narinfo", refusal.Narinfo)
	if err != nil {
		return err
	}
	info, err := narinfo.Parse(text)
	if err != nil {
		return refusal.New(refusal.Narinfo, "%v", err)
	}
	dropped, err := s.Cache.Signer.Screen(info, s.RequireUploadSig)
	if err != nil {
		return err
	}
	if len(dropped) > 0 {
		s.Log.Warn("dropped a wrong signature from an upload", "path", info.Path, "keys", dropped, "by", w.By)
	}
	if err := s.Cache.PutInfo(req.Context(), hash, info, w.By); err != nil {
		return err
	}
	s.Log.Info("uploaded", "path", info.Path, "nar_size", info.NarSize, "by", w.By)
	return reply.Stored(w)
}
