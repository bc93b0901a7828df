// Package uploads remembers for the page who uploads to this server, and what was refused. It is in memory, and
// bounded; only who has a good credential is in it.
package uploads

import (
	"cmp"
	"io"
	"net/http"
	"slices"
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

// Book is a store.Uploads. The zero value is empty.
type Book struct {
	mu      sync.Mutex
	senders map[string]*store.Sender
	refused []store.Refusal // the oldest first
}

// Senders implements store.Uploads.
func (b *Book) Senders() []store.Sender {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]store.Sender, 0, len(b.senders))
	for _, s := range b.senders {
		list = append(list, *s)
	}
	slices.SortFunc(list, func(x, y store.Sender) int {
		return cmp.Or(cmp.Compare(y.Bytes, x.Bytes), strings.Compare(x.Name, y.Name))
	})
	return list
}

// Refused implements store.Uploads.
func (b *Book) Refused() []store.Refusal {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := slices.Clone(b.refused)
	slices.Reverse(list)
	return list
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
		seen := &watched{ResponseWriter: w}
		body := &counted{ReadCloser: req.Body}
		if req.Body != http.NoBody {
			req.Body = body
		}
		cache.ServeHTTP(seen, req)
		b.note(name, what, seen, body.n)
	})
}

func (b *Book) note(name, what string, seen *watched, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now().UTC()
	s := b.senders[name]
	if s == nil {
		if b.senders == nil {
			b.senders = make(map[string]*store.Sender)
		}
		if len(b.senders) >= maxSenders { // who was silent for longest goes
			var oldest *store.Sender
			for _, o := range b.senders {
				if oldest == nil || o.Last.Before(oldest.Last) {
					oldest = o
				}
			}
			delete(b.senders, oldest.Name)
		}
		s = &store.Sender{Name: name}
		b.senders[name] = s
	}
	s.Last, s.Bytes = now, s.Bytes+bytes
	switch {
	case seen.status >= 400:
		s.Refused++
		words, _, _ := strings.Cut(string(seen.words), "\n")
		if b.refused = append(b.refused, store.Refusal{At: now, Who: name, What: what, Status: seen.status, Words: clip.Line(words, maxWords)}); len(b.refused) > maxRefused {
			b.refused = slices.Delete(b.refused, 0, len(b.refused)-maxRefused)
		}
	case strings.HasSuffix(what, ".narinfo"):
		s.Paths++
	}
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
