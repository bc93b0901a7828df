package main

import (
	"net/http"
	"net/url"
	"strings"

	"narwharf/cache/blob"
	"narwharf/hooks"
)

// web sends the API to channels and everything else to the cache. A proxy may
// have left the path of public_url on the request or taken it off.
func web(publicURL *url.URL, channels, cache http.Handler) http.Handler {
	prefix := ""
	if publicURL != nil {
		prefix = publicURL.Path
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		path := req.URL.Path
		if prefix != "" {
			if rest, ok := strings.CutPrefix(path, prefix); ok && strings.HasPrefix(rest, "/") {
				path = rest
			}
		}
		if !strings.HasPrefix(path, "/api/") {
			cache.ServeHTTP(w, req)
			return
		}
		req.URL.Path, req.URL.RawPath = path, ""
		channels.ServeHTTP(w, req)
	})
}

// contentFiles lets channels keep their files beside those of the cache.
type contentFiles struct{ blob.Store }

var _ hooks.Files = contentFiles{}

// Write implements hooks.Files.
func (f contentFiles) Write(name string, data []byte) error {
	return blob.WriteFile(f.Store, name, data)
}

// Read implements hooks.Files.
func (f contentFiles) Read(name string, limit int64) ([]byte, error) {
	return blob.ReadFile(f.Store, name, limit)
}

// List implements hooks.Files.
func (f contentFiles) List(dir string, fn func(name string) error) error {
	return f.Store.List(dir, func(i blob.Info) error { return fn(i.Name) })
}
