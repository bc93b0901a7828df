package reply

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

var prefixGrammar = regexp.MustCompile(`^(/[0-9A-Za-z._~-]+)*$`)

// Base is where the client finds this cache: public, which may be nil, else what the request says.
// Links begin with root, since a page is there at a URL with a slash at its end and at one
// without; relative ones are right where neither says a path.
func Base(req *http.Request, public *url.URL) (base, root string) {
	if public != nil {
		return public.String(), public.Path + "/"
	}
	scheme := "http"
	if req.TLS != nil || req.Header.Get("X-Forwarded-Proto") == "https" {
		scheme = "https"
	}
	prefix := strings.TrimRight(req.Header.Get("X-Forwarded-Prefix"), "/")
	if !prefixGrammar.MatchString(prefix) {
		prefix = "" // people paste what the landing page says into a shell
	}
	if prefix != "" {
		root = prefix + "/"
	}
	return scheme + "://" + req.Host + prefix, root
}

// LAN is the path below which is the same cache again. There the narinfo of a local path that was never
// packed says that its NAR is not compressed: over a fast wire packing takes longer than sending.
const LAN = "/lan"

// Place notes in w below what a request's path was, and leaves the rest in it: a proxy may have left
// the path of the public URL there, without its last slash. Routes match the decoded path.
func Place(w *Writer, req *http.Request, public string) {
	path := beneath(req.URL.Path, public)
	rest := beneath(path, LAN)
	w.LAN = rest != path
	if rest == "" {
		rest = "/"
	}
	req.URL.Path, req.URL.RawPath = rest, ""
}

// beneath is path without a prefix that ends where one of its segments does.
func beneath(path, prefix string) string {
	if rest, ok := strings.CutPrefix(path, prefix); ok && (rest == "" || rest[0] == '/') {
		return rest
	}
	return path
}

// Redirect sends the client to a relative place: a proxy may have taken a prefix off.
func Redirect(w *Writer, to string) error {
	h := w.Header()
	h.Set("Location", to)
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusFound)
	return nil
}
