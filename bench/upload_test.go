//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"narwharf/narinfo"
)

// strictCache is a cache that takes a narinfo only after its NAR and its
// references.
type strictCache struct {
	mu    sync.Mutex
	files map[string][]byte
	log   []string
	spoil string // path of a file that reads get wrong
}

func (s *strictCache) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, r.Method+" "+r.URL.Path)
	if r.Method != http.MethodPut {
		text, ok := s.files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if r.URL.Path == s.spoil {
			text = append([]byte("X"), text[1:]...)
		}
		_, _ = w.Write(text)
		return
	}
	if _, password, _ := r.BasicAuth(); password != "secret" {
		http.Error(w, "no token", http.StatusUnauthorized)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if strings.HasSuffix(r.URL.Path, ".narinfo") {
		info, err := narinfo.Parse(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		needs := []string{"/" + info.URL}
		for _, ref := range info.References {
			needs = append(needs, narinfoPath(ref))
		}
		for _, name := range needs {
			if s.files[name] == nil {
				http.Error(w, "missing "+name, http.StatusUnprocessableEntity)
				return
			}
		}
	}
	s.files[r.URL.Path] = body
	w.WriteHeader(http.StatusCreated)
}

func (s *strictCache) serve(t *testing.T) string {
	t.Helper()
	s.files = map[string][]byte{}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// testClosure has n paths, each referring to the two before it; the last two
// have the same NAR.
func testClosure(t *testing.T, n int) *closure {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "nar"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := &closure{dir: dir}
	for i := range n {
		file := filepath.Join(dir, fmt.Sprint("content-", min(i, n-2)))
		size := 1000
		if i == 1 {
			size = expectAbove + 1 // is announced before it is sent
		}
		if err := os.WriteFile(file, bytes.Repeat([]byte{byte(min(i, n-2))}, size), 0o644); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("p%d", i)
		p, err := pack(dir, &debPackage{name: name, version: "1:1~x", files: []string{file}})
		if err != nil {
			t.Fatal(err)
		}
		for r := max(0, i-2); r < i; r++ {
			p.refs = append(p.refs, r)
			p.info.References = append(p.info.References, c.paths[r].info.Path)
		}
		if p.info, err = narinfo.Parse(p.info.Append(nil)); err != nil {
			t.Fatal(err)
		}
		c.paths = append(c.paths, p)
	}
	return c
}

func TestUpload(t *testing.T) {
	c := testClosure(t, 20)
	for _, conns := range []int{1, 8} {
		cache := new(strictCache)
		addr := cache.serve(t)
		if _, err := upload(addr, "secret", c, conns); err != nil {
			t.Fatalf("%d connections: %v", conns, err)
		}
		if conns == 1 {
			want := 4*len(c.paths) - 1 // the last NAR was there already
			if len(cache.log) != want {
				t.Errorf("%d requests, want %d:\n%s", len(cache.log), want, strings.Join(cache.log, "\n"))
			}
		}
		texts, err := checkAll(addr, c)
		if err != nil {
			t.Fatal(err)
		}
		if len(texts) != len(c.paths) {
			t.Errorf("%d narinfos, want %d", len(texts), len(c.paths))
		}
	}
}

func TestUploadRefused(t *testing.T) {
	c := testClosure(t, 4)
	_, err := upload(new(strictCache).serve(t), "wrong", c, 3)
	if err == nil || !strings.Contains(err.Error(), "401") || !strings.Contains(err.Error(), "no token") {
		t.Errorf("error %v, want the server's 401 and its words", err)
	}
}

func TestUploadIntoFullCache(t *testing.T) {
	c := testClosure(t, 4)
	addr := new(strictCache).serve(t)
	if _, err := upload(addr, "secret", c, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := upload(addr, "secret", c, 1); err == nil || !strings.Contains(err.Error(), "want 404") {
		t.Errorf("error %v, want one: an upload of what is there already measures nothing", err)
	}
}

func TestCheckAllFindsWrongBytes(t *testing.T) {
	c := testClosure(t, 4)
	cache := new(strictCache)
	addr := cache.serve(t)
	if _, err := upload(addr, "secret", c, 1); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/" + c.paths[2].info.URL, narinfoPath(c.paths[1].info.Path)} {
		cache.mu.Lock()
		cache.spoil = name
		cache.mu.Unlock()
		if _, err := checkAll(addr, c); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v, want one about %s", err, name)
		}
	}
}

func TestVerify(t *testing.T) {
	c := testClosure(t, 2)
	if _, err := verifyRow(c); err != nil {
		t.Fatal(err)
	}
	c.paths[1].info.NarHash[0]++
	if _, err := verifyRow(c); err == nil {
		t.Error("a wrong NarHash was not noticed")
	}
}
