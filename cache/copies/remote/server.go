package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"narwharf/cache/copies"
	"narwharf/narinfo"
)

// Server is a cache that takes uploads, by the plain PUTs of nix copy.
type Server struct{ client }

// NewServer makes one. Its password is a token with the scope push.
func NewServer(o Options) *Server { return &Server{newClient(o)} }

// HasPath tells whether the server has a path, by its hash part.
func (s *Server) HasPath(ctx context.Context, hash string) (bool, error) {
	return s.head(ctx, hash+".narinfo")
}

// Has implements copies.Target. What the server keeps of a narinfo is its own text, and a
// path that is there is there with all that it refers to.
func (s *Server) Has(ctx context.Context, info *narinfo.Info) (bool, error) {
	return s.head(ctx, info.Path.Hash()+".narinfo")
}

// HasNAR implements copies.Target.
func (s *Server) HasNAR(ctx context.Context, name string, _ int64) (bool, error) {
	return s.head(ctx, name)
}

func (s *Server) head(ctx context.Context, name string) (has bool, err error) {
	err = s.again(ctx, func() error {
		resp, err := s.do(ctx, http.MethodHead, s.base.String()+"/"+name, nil, 0, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		switch {
		case resp.StatusCode == http.StatusOK:
			has = true
			return nil
		case resp.StatusCode == http.StatusNotFound:
			return nil
		}
		return s.judge(resp, name)
	})
	return has, err
}

// PutNAR implements copies.Target.
func (s *Server) PutNAR(ctx context.Context, name string, size int64, body func() (io.ReadCloser, error)) error {
	return s.put(ctx, name, "application/x-nix-nar", size, body)
}

// PutInfo implements copies.Target.
func (s *Server) PutInfo(ctx context.Context, info *narinfo.Info) error {
	text := info.Append(nil)
	return s.put(ctx, info.Path.Hash()+".narinfo", "text/x-nix-narinfo", int64(len(text)), func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(text)), nil
	})
}

// PutSidecar implements copies.Target. Listings the server makes itself.
func (s *Server) PutSidecar(ctx context.Context, name string, text []byte) error {
	if strings.HasSuffix(name, ".ls") {
		return nil
	}
	kind := "application/json"
	if strings.HasPrefix(name, "log/") {
		kind = "text/plain; charset=utf-8"
	}
	return s.put(ctx, name, kind, int64(len(text)), func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(text)), nil
	})
}

func (s *Server) put(ctx context.Context, name, kind string, size int64, body func() (io.ReadCloser, error)) error {
	return s.again(ctx, func() error {
		opened, err := body()
		if err != nil {
			return err
		}
		in := &watched{ReadCloser: opened}
		defer in.Close()
		header := http.Header{"Content-Type": {kind}}
		if size > 1<<20 { // what is refused by its headers need not be read
			header.Set("Expect", "100-continue")
		}
		resp, err := s.do(ctx, http.MethodPut, s.base.String()+"/"+(&url.URL{Path: name}).EscapedPath(), in, size, header)
		if bad := in.ended(); errors.Is(bad, copies.ErrOther) { // it would be so again
			return bad
		}
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode < 300 {
			return nil
		}
		return s.judge(resp, name)
	})
}

// watched keeps the error that a body ended with.
type watched struct {
	io.ReadCloser
	mu  sync.Mutex // net/http may still read when it has answered
	err error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.err = err
	}
	return n, err
}

func (w *watched) ended() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// judge makes an error of an answer: of the one path, of all, or one that may pass.
func (s *Server) judge(resp *http.Response, name string) error {
	err := fmt.Errorf("%s: %s: %s", name, resp.Status, firstLine(resp.Body))
	switch code := resp.StatusCode; {
	case code == http.StatusForbidden && resp.Request.Method == http.MethodPut && strings.HasSuffix(name, ".narinfo"):
		return &copies.Refused{Words: err.Error()} // signing.require_upload_sig
	case code == http.StatusNotFound && resp.Request.Method == http.MethodPut && !strings.HasSuffix(name, ".narinfo") && !strings.HasPrefix(name, "nar/"):
		return &copies.Refused{Words: err.Error()} // no name of a sidecar there
	case code == http.StatusUnauthorized || code == http.StatusForbidden || code == http.StatusMethodNotAllowed || code == http.StatusNotFound:
		return fmt.Errorf("the server takes no upload: %w (a token with the scope push is needed: --token-file)", err)
	case code == http.StatusTooManyRequests || code >= 500 && code != http.StatusNotImplemented && code != http.StatusInsufficientStorage:
		return transient{err}
	case code >= 400 && code < 500:
		return &copies.Refused{Words: err.Error()}
	}
	return err
}
