package reply

import (
	"net/http"
	"regexp"
	"strconv"
)

// Elsewhere sends the client to a URL that it may read for a short while. A client whose
// download breaks asks us again, and has to have seen Accept-Ranges for that.
func Elsewhere(w *Writer, url string) error {
	h := w.Header()
	h.Del("Etag")
	h.Del("Content-Type")
	h["Accept-Ranges"] = []string{"bytes"}
	h["Cache-Control"] = []string{"no-store"} // the URL ends soon
	h["Content-Length"] = []string{"0"}
	h["Location"] = []string{url}
	w.WriteHeader(http.StatusFound)
	return nil
}

var nixVersion = regexp.MustCompile(`\bNix/(\d+)\.(\d+)`)

// Resends tells whether a client is known to send the body of a PUT again after a 5xx: Nix
// since 2.33, whose uploads can be begun anew.
func Resends(req *http.Request) bool {
	m := nixVersion.FindStringSubmatch(req.UserAgent())
	if m == nil {
		return false
	}
	major, _ := strconv.Atoi(m[1]) // digits by the pattern
	minor, _ := strconv.Atoi(m[2])
	return major > 2 || major == 2 && minor >= 33
}
