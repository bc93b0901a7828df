package cache

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"slices"
	"strings"

	"narwharf/cache/blob"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/signing"
)

//go:embed landing.html
var landingText string

var landingPage = template.Must(template.New("landing").Parse(landingText))

// pages answers what is about the cache as a whole.
type pages struct{ *parts }

// getLanding shows a person how to use the cache: keys and lines to copy.
func (s *pages) getLanding(w *reply.Writer, req *http.Request, _ string) error {
	totals, err := s.Cache.Uploads.Index.Totals()
	if err != nil {
		return err
	}
	base, root := reply.Base(req, s.PublicURL)
	data := struct {
		URL, Near, Root, Version string
		Keys                     []string
		Others                   bool // some of them are of upstreams
		Paths                    int64
		Unpacked, Store          string
	}{URL: base, Near: base + reply.LAN, Root: root, Version: s.Version, Paths: totals.Paths, Unpacked: refusal.Size(totals.NarSize)}
	if s.Cache.Local != nil {
		data.Store = s.Cache.Local.StoreDir()
	}
	for _, k := range s.keys() {
		data.Keys = append(data.Keys, k.String())
	}
	data.Others = len(s.Cache.Signer.Others()) > 0
	var page bytes.Buffer
	if err := landingPage.Execute(&page, data); err != nil {
		return fmt.Errorf("landing page: %w", err)
	}
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store") // it may name the host that this client used
	return reply.Short(w, "text/html; charset=utf-8", page.String())
}

// getCacheInfo has WantMassQuery, which lets clients ask for many narinfos at once, also
// where nobody named this cache.
func (s *pages) getCacheInfo(w *reply.Writer, _ *http.Request, _ string) error {
	return reply.Short(w, "text/x-nix-cache-info", fmt.Sprintf("StoreDir: %s\nWantMassQuery: 1\nPriority: %d\n", s.Cache.Uploads.StoreDir, s.Priority))
}

// putCacheInfo answers a client that thinks it founds a cache: Nix puts
// "StoreDir: …" where it found no nix-cache-info. What agrees is fine, and
// nothing is ever changed by it.
func (s *pages) putCacheInfo(w *reply.Writer, req *http.Request, _ string) error {
	text, err := io.ReadAll(narfile.Limit(req.Body, 4096, "nix-cache-info"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if dir, ok := strings.CutPrefix(line, "StoreDir:"); ok && strings.TrimSpace(dir) == s.Cache.Uploads.StoreDir {
			return reply.Stored(w)
		}
	}
	return refusal.New(refusal.StoreDir, "this cache is for paths in %s", s.Cache.Uploads.StoreDir)
}

func (s *pages) getPubkey(w *reply.Writer, _ *http.Request, _ string) error {
	var text strings.Builder
	for _, k := range s.keys() {
		text.WriteString(k.String() + "\n")
	}
	return reply.Short(w, textType, text.String())
}

// keys are what clients have to trust: ours, and behind them those of upstreams whose paths go out
// under them.
func (s *pages) keys() []signing.PublicKey {
	return slices.Concat(s.Cache.Signer.PublicKeys(), s.Cache.Signer.Others())
}

func (s *pages) getVersion(w *reply.Writer, _ *http.Request, _ string) error {
	return reply.Short(w, textType, "narwharf "+s.Version+"\n")
}

// getHealthz says that the process answers, and nothing more: a supervisor
// should not restart it because a disk is full.
func (s *pages) getHealthz(w *reply.Writer, _ *http.Request, _ string) error {
	return reply.Short(w, textType, "ok\n")
}

// getReadyz really looks: at the index, at the files, at the local store if it is served, at
// the room left. A cache without room still serves, so that is said and is no failure.
func (s *pages) getReadyz(w *reply.Writer, req *http.Request, _ string) error {
	var problems []string
	// The all-zero hash: what counts is that the table answers.
	if _, err := s.Cache.Uploads.Index.Referrers(strings.Repeat("0", 32)); err != nil {
		problems = append(problems, "index: "+err.Error())
	}
	if _, err := s.Cache.Uploads.Files.Stat("nix-cache-info"); err != nil {
		problems = append(problems, "files: "+err.Error())
	}
	if s.Cache.Local != nil {
		if _, err := s.Cache.Local.Version(req.Context()); err != nil {
			problems = append(problems, "local store: "+err.Error())
		}
	}
	if len(problems) > 0 {
		return refusal.New(refusal.NotReady, "not ready: %s", strings.Join(problems, "; "))
	}
	text := "ready\n"
	free, known, err := blob.Free(s.Cache.Uploads.Files)
	if err != nil {
		return refusal.New(refusal.NotReady, "not ready: disk: %v", err)
	}
	if known {
		text += fmt.Sprintf("room for uploads: %s\n", refusal.Size(max(free, 0)))
	}
	if s.Cache.Local != nil {
		text += "local store: " + s.Cache.Local.StoreDir() + "\n"
	}
	return reply.Short(w, textType, text)
}

func (s *pages) getMetrics(w *reply.Writer, req *http.Request, _ string) error {
	s.metrics.ServeHTTP(w, req)
	return nil
}
