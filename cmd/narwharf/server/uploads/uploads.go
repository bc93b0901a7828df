// Package uploads remembers for the page who uploads, and what was refused. It is in the state, to which all servers that
// share it add every ten seconds (who is killed loses as much), and bounded; only who has a good credential is in it.
package uploads

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"narwharf/hooks/dashboard/store"
	"narwharf/narinfo/clip"
	"narwharf/signing/access"
)

// What is kept at most.
const (
	maxSenders = 200
	maxRefused = 100
	maxWords   = 500 // bytes
)

// Book is what came to this server. The zero value is empty.
type Book struct {
	mu  sync.Mutex
	new seen // that is not in the state yet
}

// Around is a cache whose uploads are noted. auth says whose a request is.
func (b *Book) Around(cache http.Handler, auth *access.Authenticator) http.Handler {
	return b.around(cache, func(req *http.Request) string {
		if p := auth.Identify(req); p.Credential == access.Valid {
			return p.Name
		}
		return ""
	})
}

// around is Around; who is the name of the sender, "" if it is not to be noted.
func (b *Book) around(cache http.Handler, who func(*http.Request) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		name := ""
		if req.Method == http.MethodPut {
			name = who(req)
		}
		if name == "" {
			cache.ServeHTTP(w, req)
			return
		}
		what := clip.Line(req.URL.Path, 200)
		status := &watched{ResponseWriter: w}
		body := &counted{ReadCloser: req.Body}
		if req.Body != http.NoBody {
			req.Body = body
		}
		cache.ServeHTTP(status, req)
		b.note(name, what, status, body.n)
	})
}

func (b *Book) note(name, what string, status *watched, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	news := seen{senders: []store.Sender{{Name: name, Bytes: bytes, Last: time.Now().UTC()}}}
	s := &news.senders[0]
	switch {
	case status.status >= 400:
		s.Refused++
		words, _, _ := strings.Cut(string(status.words), "\n")
		news.refused = []store.Refusal{{At: s.Last, Who: name, What: what, Status: status.status, Words: clip.Line(words, maxWords)}}
	case strings.HasSuffix(what, ".narinfo"):
		s.Paths++
	}
	b.new.add(&news)
}

// watched notes what is answered to an upload.
type watched struct {
	http.ResponseWriter
	status int
	words  []byte
}

// Unwrap is for http.ResponseController.
func (w *watched) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *watched) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *watched) Write(p []byte) (int, error) {
	if w.status >= 400 {
		w.words = append(w.words, p[:min(len(p), maxWords-len(w.words))]...)
	}
	return w.ResponseWriter.Write(p)
}

// counted counts a body.
type counted struct {
	io.ReadCloser
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n += int64(n)
	return n, err
}
