package cache

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/cache/signed"
	"narwharf/cache/upload"
	"narwharf/narinfo"
	"narwharf/signing"
)

// narinfos answers /<hash>.narinfo.
type narinfos struct{ *parts }

func (s *narinfos) getNarinfo(w *reply.Writer, req *http.Request, hash string) error {
	t, err := s.Cache.Signer.Get(req.Context(), hash, s.Cache.Uploads.Index)
	if err == nil && t.Local != nil {
		w.Source = sourceLocal
		if s.mayPush(req) {
			err = s.Cache.Hold(req.Context(), t.Local.Info.Path)
		}
	}
	if err != nil {
		return err
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
	if err := s.checkSignatures(info, w.By); err != nil {
		return err
	}
	if err := s.Cache.PutInfo(req.Context(), hash, info, w.By); err != nil {
		return err
	}
	s.Log.Info("uploaded", "path", info.Path, "nar_size", info.NarSize, "by", w.By)
	return reply.Stored(w)
}

// checkSignatures applies require_upload_sig, and takes out what claims to be
// a signature by a key that we know and is not: it would only mislead.
func (s *narinfos) checkSignatures(info *narinfo.Info, by string) error {
	known := slices.Concat(s.RequireUploadSig, s.Cache.Signer.PublicKeys())
	if len(known) == 0 {
		return nil
	}
	text := info.AppendFingerprint(nil)
	var good []string
	for _, sig := range info.Sigs {
		name, _, err := signing.ParseSignature(sig)
		if err != nil {
			return refusal.New(refusal.Signature, "%v", err)
		}
		ours := slices.ContainsFunc(known, func(k signing.PublicKey) bool { return k.Name() == name })
		if _, ok := signing.VerifyAny(text, []string{sig}, known); ours && !ok {
			s.Log.Warn("dropped a wrong signature from an upload", "path", info.Path, "key", name, "by", by)
			continue
		}
		good = append(good, sig)
	}
	info.Sigs = good
	if len(s.RequireUploadSig) == 0 {
		return nil
	}
	if _, ok := signing.VerifyAny(text, good, s.RequireUploadSig); !ok {
		return refusal.New(refusal.Unsigned, "%s needs a signature by %s: sign it with nix store sign, or copy with ?secret-key=FILE", info.Path, keyNames(s.RequireUploadSig))
	}
	return nil
}

func keyNames(keys []signing.PublicKey) string {
	var names []string
	for _, k := range keys {
		names = append(names, k.Name())
	}
	if len(names) > 3 {
		return strings.Join(names[:3], " or ") + " or another of the configured keys"
	}
	return strings.Join(names, " or ")
}
