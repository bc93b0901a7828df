package main

import (
	"net/http"
	"net/url"
	"strings"
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
