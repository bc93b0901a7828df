package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// An Uploader is a client of our own. [Uploader.Upload] does what Nix 2.35 and later do; the single
// steps let a test lie.
type Uploader struct {
	T           testing.TB
	Base        string // URL of the cache
	Token       string // Basic password, sent unasked as Nix does; empty: none
	StoreDir    string
	Compression string
	Parallel    int  // NAR uploads at once
	Listing     bool // send .ls before each NAR
	Client      *http.Client
}

// NewUploader makes a client that uploads zstd.
func NewUploader(t testing.TB, base, token string) *Uploader {
	t.Helper()
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16, ExpectContinueTimeout: 10 * time.Second}
	t.Cleanup(transport.CloseIdleConnections)
	return &Uploader{
		T: t, Base: base, Token: token, StoreDir: "/nix/store", Compression: "zstd", Parallel: 4,
		Client: &http.Client{Transport: transport, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}},
	}
}

// A Reply is a whole answer.
type Reply struct {
	Request string
	Status  int
	Header  http.Header
	Body    string
}

// OK reports success in the eyes of every Nix.
func (r Reply) OK() bool { return r.Status == 200 || r.Status == 201 || r.Status == 204 }

func (r Reply) String() string {
	return fmt.Sprintf("%s -> %d %q", r.Request, r.Status, Tail(r.Body, 6000))
}

// Try sends a request; an error is one of the connection.
func (u *Uploader) Try(method, path, contentType string, body []byte) (Reply, error) {
	reply := Reply{Request: method + " " + path}
	req, err := http.NewRequest(method, u.Base+path, nil)
	if err != nil {
		return reply, err
	}
	if method == http.MethodPut {
		// Always with Content-Length and, from a megabyte on, asking before sending, like Nix.
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		if len(body) == 0 {
			req.Body = http.NoBody
		}
		if len(body) > 1<<20 {
			req.Header.Set("Expect", "100-continue")
		}
		req.Header.Set("Content-Type", contentType)
	}
	if u.Token != "" {
		req.SetBasicAuth("e2e", u.Token)
	}
	res, err := u.Client.Do(req)
	if err != nil {
		return reply, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	reply.Status, reply.Header, reply.Body = res.StatusCode, res.Header, string(text)
	return reply, err
}

// Do sends a request that must be answered.
func (u *Uploader) Do(method, path, contentType string, body []byte) Reply {
	u.T.Helper()
	reply, err := u.Try(method, path, contentType, body)
	if err != nil {
		u.T.Fatalf("%s %s: %v", method, path, err)
	}
	return reply
}

// Get reads a path below the base.
func (u *Uploader) Get(path string) Reply { u.T.Helper(); return u.Do(http.MethodGet, path, "", nil) }

// Head asks for a path without its body.
func (u *Uploader) Head(path string) Reply { u.T.Helper(); return u.Do(http.MethodHead, path, "", nil) }

// PutNAR sends a file to the URL of doc.
func (u *Uploader) PutNAR(doc Doc, file []byte) Reply {
	u.T.Helper()
	return u.Do(http.MethodPut, "/"+doc.URL, "application/x-nix-nar", file)
}

// PutDoc sends a narinfo of the path with that hash part.
func (u *Uploader) PutDoc(hash string, text string) Reply {
	u.T.Helper()
	return u.Do(http.MethodPut, "/"+hash+".narinfo", "text/x-nix-narinfo", []byte(text))
}

// Describe makes file and narinfo of a path with the uploader's store folder and compression.
func (u *Uploader) Describe(p *Path) (Doc, []byte) {
	u.T.Helper()
	return Describe(u.T, p, u.StoreDir, u.Compression)
}

// Upload sends paths in the order of Nix 2.35 and later, and fails the test on any refusal.
func (u *Uploader) Upload(paths ...*Path) {
	u.T.Helper()
	if _, err := u.TryUpload(paths...); err != nil {
		u.T.Fatalf("upload: %v", err)
	}
}

// TryUpload sends paths in the order of Nix 2.35 and later: a look at the narinfos of all, the
// listings and NARs of what is missing with the biggest first and several at once, then narinfos one
// after another with references first. It returns the hash parts whose narinfo was accepted or
// already there, also beside an error.
func (u *Uploader) TryUpload(paths ...*Path) (accepted []string, err error) {
	var todo []*Path
	for _, p := range paths {
		reply, err := u.Try(http.MethodGet, "/"+p.Hash()+".narinfo", "", nil)
		switch {
		case err != nil:
			return accepted, err
		case reply.Status == http.StatusOK:
			accepted = append(accepted, p.Hash())
		case reply.Status == http.StatusNotFound:
			todo = append(todo, p)
		default:
			return accepted, errors.New(reply.String())
		}
	}
	docs, err := u.tryNARs(todo)
	if err != nil {
		return accepted, err
	}
	for _, p := range topological(todo) {
		reply, err := u.Try(http.MethodPut, "/"+p.Hash()+".narinfo", "text/x-nix-narinfo", []byte(docs[p].String()))
		if err == nil && !reply.OK() {
			err = errors.New(reply.String())
		}
		if err != nil {
			return accepted, err
		}
		accepted = append(accepted, p.Hash())
	}
	return accepted, nil
}

// tryNARs sends the files of paths and returns their narinfos, or the first error.
func (u *Uploader) tryNARs(paths []*Path) (map[*Path]Doc, error) {
	order := slices.Clone(paths)
	slices.SortStableFunc(order, func(a, b *Path) int { return len(b.NAR) - len(a.NAR) })
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		first error
		docs  = map[*Path]Doc{}
		queue = make(chan *Path)
	)
	for range max(1, u.Parallel) {
		wg.Go(func() {
			for p := range queue {
				doc, file := u.Describe(p)
				err := u.tryNAR(p, doc, file)
				mu.Lock()
				docs[p] = doc
				if err != nil && first == nil {
					first = err
				}
				mu.Unlock()
			}
		})
	}
	for _, p := range order {
		queue <- p
	}
	close(queue)
	wg.Wait()
	return docs, first
}

func (u *Uploader) tryNAR(p *Path, doc Doc, file []byte) error {
	if u.Listing {
		ls := `{"root":{"size":1,"type":"regular"},"version":1}`
		reply, err := u.Try(http.MethodPut, "/"+p.Hash()+".ls", "application/json", []byte(ls))
		if err == nil && !reply.OK() {
			err = errors.New(reply.String())
		}
		if err != nil {
			return err
		}
	}
	reply, err := u.Try(http.MethodHead, "/"+doc.URL, "", nil)
	if err != nil || reply.Status == http.StatusOK {
		return err
	}
	if reply.Status != http.StatusNotFound {
		return errors.New(reply.String())
	}
	reply, err = u.Try(http.MethodPut, "/"+doc.URL, "application/x-nix-nar", file)
	if err == nil && !reply.OK() {
		err = errors.New(reply.String())
	}
	return err
}

// topological orders paths so that what a path refers to comes before it.
func topological(paths []*Path) []*Path {
	wanted := map[*Path]bool{}
	for _, p := range paths {
		wanted[p] = true
	}
	var order []*Path
	var visit func(p *Path)
	visit = func(p *Path) {
		if !wanted[p] {
			return
		}
		wanted[p] = false
		for _, r := range p.Refs {
			visit(r)
		}
		order = append(order, p)
	}
	for _, p := range paths {
		visit(p)
	}
	return order
}

// Fetch reads a path as a client does and compares its NAR with what was uploaded.
func (u *Uploader) Fetch(p *Path) Doc {
	u.T.Helper()
	info := u.Get("/" + p.Hash() + ".narinfo")
	if info.Status != http.StatusOK {
		u.T.Fatalf("fetch %s: %v", p.Base, info)
	}
	doc := ParseDoc(u.T, info.Body)
	file := u.Get("/" + doc.URL)
	if file.Status != http.StatusOK {
		u.T.Fatalf("fetch %s: %v", p.Base, file)
	}
	if doc.NarHash != nixHash(p.NAR) {
		u.T.Fatalf("%s has NarHash %s, uploaded was %s", p.Base, doc.NarHash, nixHash(p.NAR))
	}
	if doc.FileHash != "" && doc.FileHash != nixHash([]byte(file.Body)) {
		u.T.Fatalf("%s has FileHash %s, but /%s is %s", p.Base, doc.FileHash, doc.URL, nixHash([]byte(file.Body)))
	}
	if !strings.HasPrefix(doc.URL, "nar/") {
		u.T.Fatalf("%s has URL %s", p.Base, doc.URL)
	}
	return doc
}
