package frame

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/reply"
	"narwharf/hooks/rights"
	"narwharf/signing/access/scope"
)

// Request is somebody who looks at a view, or does something.
type Request struct {
	rights.Request
	frame *Frame
	req   *http.Request
	id    string
	live  bool
}

// Live tells that only Fragments, Parts and Cells are asked for, by a page that is open.
func (r *Request) Live() bool { return r.live }

func (f *Frame) request(w http.ResponseWriter, req *http.Request) *Request {
	r := &Request{frame: f, req: req, id: reply.RequestID(w)}
	r.Request = rights.Request{
		Who: f.Access.Identify(req), Param: req.PathValue, Query: req.URL.Query(),
		ChannelOf: func(string) (string, error) { return "", nil }, // the API says whose a host is
	}
	return r
}

// request is the same for another need.
func (r *Request) request() *rights.Request {
	again := r.Request
	return &again
}

// Path is that of the URL.
func (r *Request) Path() string { return r.req.URL.Path }

// Context ends when the browser leaves.
func (r *Request) Context() context.Context { return r.req.Context() }

// Now is the server's time.
func (r *Request) Now() time.Time { return r.frame.Clock() }

// Can tells whether who asks has a right, so that buttons of others are not shown.
func (r *Request) Can(kind scope.Kind, channel string) bool {
	return r.Who.Deny(scope.Scope{Kind: kind, Glob: channel}) == nil
}

// Get reads from the API by the rights of who asks. path has the query in it. What the API refuses is an *api.Error.
func (r *Request) Get(path string, value any) error {
	_, err := r.Call(http.MethodGet, path, nil, nil, value)
	return err
}

// Do changes something by the API; body is sent as JSON, and value may be nil.
func (r *Request) Do(method, path string, body, value any) error {
	_, err := r.Call(method, path, nil, body, value)
	return err
}

// passed are headers that the API judges a request by.
var passed = []string{"Authorization", "Cookie", "Origin", "Sec-Fetch-Site", "User-Agent", "X-Forwarded-For"}

// Call is a request to the API in this process, with the credential of who asks. It returns the headers of
// the answer. A value that is a *[]byte takes the body as it is.
func (r *Request) Call(method, path string, header http.Header, body, value any) (http.Header, error) {
	u, err := url.Parse(path)
	if err != nil {
		return nil, fmt.Errorf("ask the API for %q: %w", path, err)
	}
	req := &http.Request{
		Method: method, URL: u, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: make(http.Header), Body: http.NoBody,
		Host: r.req.Host, RemoteAddr: r.req.RemoteAddr, TLS: r.req.TLS, RequestURI: path,
	}
	req = req.WithContext(r.req.Context())
	for _, name := range passed {
		if v := r.req.Header[name]; v != nil {
			req.Header[name] = v
		}
	}
	for name, v := range header {
		req.Header[name] = v
	}
	req.Header.Set("X-Request-Id", r.id)
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("ask the API for %q: %w", path, err)
		}
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
		req.Header.Set("Content-Type", "application/json")
	}
	a := &answer{header: make(http.Header)}
	r.frame.API.ServeHTTP(a, req)
	return a.header, a.take(value)
}

// answer is what the API answers.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

func (a *answer) take(value any) error {
	if a.status >= http.StatusBadRequest {
		e := new(api.Error)
		if err := json.Unmarshal(a.body.Bytes(), e); err != nil || e.Message == "" {
			return fmt.Errorf("the API answers with status %d: %.200s", a.status, a.body.String())
		}
		e.Status = a.status
		return e
	}
	if text, ok := value.(*[]byte); ok {
		*text = a.body.Bytes()
		return nil
	}
	if value == nil || a.body.Len() == 0 {
		return nil
	}
	return json.Unmarshal(a.body.Bytes(), value)
}
