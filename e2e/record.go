package e2e

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// A Request is one that went through a Recorder.
type Request struct {
	Method string
	Path   string // decoded, as the server got it
	Raw    string // as it stood on the request line
	Header http.Header
	Status int
}

func (r Request) String() string { return fmt.Sprintf("%s %s -> %d", r.Method, r.Raw, r.Status) }

// A Recorder is a reverse proxy that notes each request. With a prefix it serves the cache below
// that path and strips it, as a web server before Narwharf would.
type Recorder struct {
	server *httptest.Server
	prefix string

	mu       sync.Mutex
	requests []Request
}

// NewRecorder starts a recorder before target (a base URL). It ends with the test.
func NewRecorder(t testing.TB, target, prefix string) *Recorder {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	rec := &Recorder{prefix: strings.TrimSuffix(prefix, "/")}
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.SetXForwarded()
			r.Out.Host = r.In.Host
		},
		Transport:     transport,
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw := r.URL.EscapedPath()
		status := &statusWriter{ResponseWriter: w}
		defer func() {
			rec.mu.Lock()
			defer rec.mu.Unlock()
			rec.requests = append(rec.requests, Request{
				Method: r.Method, Path: r.URL.Path, Raw: raw, Header: r.Header.Clone(), Status: status.code,
			})
		}()
		proxy.ServeHTTP(status, r)
	})
	rec.server = httptest.NewServer(http.StripPrefix(rec.prefix, handler))
	t.Cleanup(func() {
		rec.server.Close()
		transport.CloseIdleConnections() // a server that stops waits for connections that never asked
	})
	return rec
}

type statusWriter struct {
	http.ResponseWriter
	code int
}

func (w *statusWriter) WriteHeader(code int) {
	if code >= 200 {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// URL is the base to give to a client, with the prefix and without a slash at its end.
func (rec *Recorder) URL() string { return rec.server.URL + rec.prefix }

// Addr is host:port.
func (rec *Recorder) Addr() string { return strings.TrimPrefix(rec.server.URL, "http://") }

// Requests are those seen so far, or since Reset.
func (rec *Recorder) Requests() []Request {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return append([]Request(nil), rec.requests...)
}

// Reset forgets what was seen.
func (rec *Recorder) Reset() {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.requests = nil
}

// Select are the requests of a method (empty: any) whose decoded path holds part.
func (rec *Recorder) Select(method, part string) []Request {
	var found []Request
	for _, r := range rec.Requests() {
		if (method == "" || r.Method == method) && strings.Contains(r.Path, part) {
			found = append(found, r)
		}
	}
	return found
}
