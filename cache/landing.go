package cache

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"regexp"
	"strings"

	"narwharf/cache/refusal"
	"narwharf/cache/reply"
)

//go:embed landing.html
var landingText string

var landingPage = template.Must(template.New("landing").Parse(landingText))

// pages answers what is about the cache as a whole.
type pages struct{ *parts }

// getLanding shows a person how to use the cache: keys and lines to copy.
func (s *pages) getLanding(w *reply.Writer, req *http.Request, _ string) error {
	totals, err := s.Uploads.Index.Totals()
	if err != nil {
		return err
	}
	base := s.baseURL(req)
	data := struct {
		URL, Scheme, Rest, Version string
		Keys                       []string
		Paths                      int64
		Unpacked, Store            string
	}{URL: base, Version: s.Version, Paths: totals.Paths, Unpacked: refusal.Size(totals.NarSize)}
	if s.Local != nil {
		data.Store = s.Local.StoreDir()
	}
	for _, k := range s.Signer.PublicKeys() {
		data.Keys = append(data.Keys, k.String())
	}
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

var prefixGrammar = regexp.MustCompile(`^(/[0-9A-Za-z._~-]+)*$`)

// baseURL is where the client finds this cache: what the configuration says,
// else what the request says.
func (s *pages) baseURL(req *http.Request) string {
	if s.PublicURL != nil {
		return s.PublicURL.String()
	}
	scheme := "http"
	if req.TLS != nil || req.Header.Get("X-Forwarded-Proto") == "https" {
		scheme = "https"
	}
	prefix := strings.TrimRight(req.Header.Get("X-Forwarded-Prefix"), "/")
	if !prefixGrammar.MatchString(prefix) {
		prefix = "" // people paste what this page says into a shell
	}
	return scheme + "://" + req.Host + prefix
}
