package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"narwharf/cache/copies"
	"narwharf/narinfo"
)

const hash = "00000000000000000000000000000001"

func baseOf(t *testing.T, s *httptest.Server) *url.URL {
	t.Helper()
	u, err := url.Parse(s.URL + "/sub")
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s
}

func sha(text string) narinfo.Hash { return narinfo.Hash(sha256.Sum256([]byte(text))) }

func infoOf(nar, url, compression string) *narinfo.Info {
	return &narinfo.Info{StoreDir: "/nix/store", Path: hash + "-p", URL: url, Compression: compression, NarHash: sha(nar), NarSize: int64(len(nar))}
}

// The URLs that other caches have for their NARs: all are read, with queries, from other
// hosts, and with the password for the cache alone.
func TestURLsOfOthers(t *testing.T) {
	const nar = "not a NAR, which nobody here looks at"
	var mu sync.Mutex
	var elsewhere []string
	cdn := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		elsewhere = append(elsewhere, r.Header.Get("Authorization"))
		mu.Unlock()
		_, _ = io.WriteString(w, nar)
	})
	for name, c := range map[string]struct{ url, compression string }{
		"Harmonia":                  {"nar/" + sha(nar).Base32() + ".nar?hash=" + hash, "none"},
		"nix-serve":                 {"nar/" + hash + "-" + sha(nar).Base32() + ".nar", "none"},
		"attic":                     {"nar/" + hash + ".nar", "zstd"},
		"Cachix":                    {"nar/3f2c9d1e-uuid.nar.zst", "zstd"},
		"a bucket":                  {"nar/" + sha(nar).Base32() + ".nar.xz", "xz"},
		"elsewhere":                 {cdn.URL + "/x.nar.xz", "xz"},
		"sent elsewhere":            {"nar/away.nar.xz", "xz"},
		"from the root of the host": {"/sub/nar/x.nar.xz", "xz"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if _, password, _ := r.BasicAuth(); password != "secret" {
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				switch {
				case r.URL.Path == "/sub/nix-cache-info":
					_, _ = io.WriteString(w, "StoreDir: /nix/store\n")
				case r.URL.Path == "/sub/"+hash+".narinfo":
					_, _ = w.Write(infoOf(nar, c.url, c.compression).Append(nil))
				case r.URL.RequestURI() == "/sub/nar/away.nar.xz":
					http.Redirect(w, r, cdn.URL+"/away", http.StatusFound)
				case r.URL.RequestURI() == "/sub/"+strings.TrimPrefix(c.url, "/sub/"):
					_, _ = io.WriteString(w, nar)
				default:
					w.WriteHeader(http.StatusNotFound)
				}
			})
			if _, err := Open(t.Context(), Options{Base: baseOf(t, s), Transport: Transport()}, ""); err == nil || !strings.Contains(err.Error(), "--netrc-file") {
				t.Error(err)
			}
			cache, err := Open(t.Context(), Options{Base: baseOf(t, s), Transport: Transport(), Password: "secret"}, "/nix/store")
			if err != nil {
				t.Fatal(err)
			}
			info, err := cache.Info(t.Context(), hash)
			if err != nil {
				t.Fatal(err)
			}
			in, err := cache.NAR(t.Context(), info)
			if err != nil {
				t.Fatal(err)
			}
			if text, err := io.ReadAll(in); err != nil || string(text) != nar {
				t.Errorf("%q, %v", text, err)
			}
			in.Close()
			if _, err := cache.Info(t.Context(), strings.Repeat("z", 32)); !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
			if _, err := Open(t.Context(), Options{Base: baseOf(t, s), Transport: Transport(), Password: "secret"}, "/other/store"); err == nil {
				t.Error("a cache of another store was taken")
			}
		})
	}
	if len(elsewhere) == 0 || strings.Join(elsewhere, "") != "" {
		t.Errorf("the password went elsewhere: %q", elsewhere)
	}
}

// A NAR that breaks off is gone on with: by a range, or from the beginning where the
// cache knows none. One that comes to nothing ends.
func TestBrokenOff(t *testing.T) {
	nar := strings.Repeat("0123456789", 100_000)
	for _, ranges := range []bool{true, false} {
		var asked atomic.Int32
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			n := asked.Add(1)
			if n == 2 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			from := 0
			if ranges {
				_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(nar)-from))
			if from > 0 {
				w.WriteHeader(http.StatusPartialContent)
			}
			if n < 4 {
				_, _ = io.WriteString(w, nar[from:from+(len(nar)-from)/2])
				panic(http.ErrAbortHandler)
			}
			_, _ = io.WriteString(w, nar[from:])
		})
		cache := &Cache{client: newClient(Options{Base: baseOf(t, s), Transport: Transport()})}
		cache.pause = time.Millisecond
		in, err := cache.NAR(t.Context(), infoOf(nar, "nar/x.nar", "none"))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil || string(text) != nar {
			t.Errorf("ranges %v: %d bytes, %v", ranges, len(text), err)
		}
		in.Close()
	}
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	cache := &Cache{client: newClient(Options{Base: baseOf(t, s), Transport: Transport(), Patience: 20 * time.Millisecond})}
	cache.pause = time.Millisecond
	in, err := cache.NAR(t.Context(), infoOf(nar, "nar/x.nar", "none"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := io.ReadAll(in); err == nil || !strings.Contains(err.Error(), "nothing came for 20ms") {
		t.Error(err)
	}
}

// What a server answers to an upload: refused is the one path, what may pass is tried
// again, and what ends it ends it.
func TestAnswersToUploads(t *testing.T) {
	for _, c := range []struct {
		status int
		method string
		tries  int32
		path   bool // it is of the path alone
		want   string
	}{
		{422, "PUT", 1, true, "the words"},
		{409, "PUT", 1, true, "the words"},
		{413, "PUT", 1, true, "the words"},
		{501, "PUT", 1, false, "the words"},
		{401, "PUT", 1, false, "scope push"},
		{403, "HEAD", 1, false, "scope push"},
		{503, "PUT", attempts, false, "the words"},
		{429, "PUT", attempts, false, "the words"},
	} {
		var tries atomic.Int32
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != c.method {
				return
			}
			tries.Add(1)
			_, _ = io.Copy(io.Discard, r.Body)
			http.Error(w, "the words\nmore", c.status)
		})
		to := NewServer(Options{Base: baseOf(t, s), Transport: Transport()})
		to.pause = time.Microsecond
		var err error
		if c.method == "HEAD" {
			_, err = to.HasPath(t.Context(), hash)
		} else {
			err = to.PutNAR(t.Context(), "nar/x", 3, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("abc")), nil })
		}
		var refused *copies.Refused
		if err == nil || errors.As(err, &refused) != c.path || tries.Load() != c.tries || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d: %v after %d", c.status, err, tries.Load())
		}
	}
	var tries atomic.Int32
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if tries.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
		text, err := io.ReadAll(r.Body)
		if err == nil && !bytes.Equal(text, []byte("abc")) {
			t.Errorf("%q", text)
		}
	})
	to := NewServer(Options{Base: baseOf(t, s), Transport: Transport()})
	to.pause = time.Microsecond
	opened := 0
	if err := to.PutNAR(t.Context(), "nar/x", 3, func() (io.ReadCloser, error) {
		opened++
		return io.NopCloser(strings.NewReader("abc")), nil
	}); err != nil || opened != 2 {
		t.Error(err, opened)
	}
	if err := to.PutNAR(t.Context(), "nar/x", 3, func() (io.ReadCloser, error) { return bad{}, nil }); !errors.Is(err, copies.ErrOther) {
		t.Error(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := to.HasPath(ctx, hash); err == nil {
		t.Error("it was stopped")
	}
}

type bad struct{}

func (bad) Read([]byte) (int, error) { return 0, fmt.Errorf("%w: ", copies.ErrOther) }
func (bad) Close() error             { return nil }

func TestNetrc(t *testing.T) {
	file := filepath.Join(t.TempDir(), "netrc")
	if err := os.WriteFile(file, []byte("machine a.example login me password one\nmachine b.example\n  password two\ndefault password three\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{"a.example": "me one", "B.example": " two", "c.example": " three"} {
		if user, password, err := Netrc(file, host); err != nil || user+" "+password != want {
			t.Errorf("%s: %q %q, %v", host, user, password, err)
		}
	}
}
