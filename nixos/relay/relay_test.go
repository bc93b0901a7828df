package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestRate: all transfers together keep to the rate, and arrive as they
// were sent.
func TestRate(t *testing.T) {
	const size, rate = 64 << 10, 256 << 10
	text := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	var seen sync.Map
	cache := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.URL.String(), r.Header.Get("Authorization")+" "+r.Header.Get("Accept-Encoding"))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
	}))
	defer cache.Close()
	s, err := New(rate, http.DefaultTransport, []string{"file:///cache", cache.URL + "/nix?trusted=1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	base, query, _ := strings.Cut(s.URLs[1], "?")
	if s.URLs[0] != "file:///cache" || query != "trusted=1" || !strings.HasPrefix(base, "http://127.0.0.1:") {
		t.Fatalf("Nix is told %q", s.URLs)
	}
	began := time.Now()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			r, err := http.NewRequest(http.MethodGet, fmt.Sprintf("%s/nar/%d", base, i), nil)
			if err != nil {
				t.Error(err)
				return
			}
			r.SetBasicAuth("narwharf", "token")
			r.Header.Set("Accept-Encoding", "zstd")
			want := text
			if i == 3 {
				r.Header.Set("Range", "bytes=1000-")
				want = text[1000:]
			}
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d: %d bytes of %d: %v", i, len(got), len(want), err)
			}
		})
	}
	wg.Wait()
	if took, least := time.Since(began), time.Duration(4*size-1000)*time.Second/rate; took < least {
		t.Errorf("all came within %v, which should take %v", took, least)
	}
	if sent, _ := seen.Load("/nix/nar/0"); sent != "Basic bmFyd2hhcmY6dG9rZW4= zstd" {
		t.Errorf("the cache was sent %q", sent)
	}
	if s.Why(nil) != nil || s.Why(io.EOF) != io.EOF {
		t.Error("a reason where there is none")
	}
}

// TestTellsWhy: Nix sees a 502 or an end, the operator the reason.
func TestTellsWhy(t *testing.T) {
	cache := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
	}))
	s, err := New(1<<20, http.DefaultTransport, []string{cache.URL, "http://nothing.invalid"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for _, c := range []struct{ url, says string }{{s.URLs[0], "unexpected EOF"}, {s.URLs[1], "nothing.invalid"}} {
		resp, err := http.Get(c.url + "/nix-cache-info")
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
			if err == nil && resp.StatusCode != http.StatusBadGateway {
				t.Errorf("%s: %s, and no error", c.url, resp.Status)
			}
		}
		if err := s.Why(errors.New("nix-store: exit status 1")); !strings.Contains(err.Error(), c.says) {
			t.Errorf("the reason is %v", err)
		}
	}
	cache.Close()
}

// TestRedirect: where a cache sends Nix elsewhere, by a path of its own,
// Nix goes there and not to a path of the relay's.
func TestRedirect(t *testing.T) {
	cache := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/nix/nar/a":
			http.Redirect(w, r, "/blob/a?key=1", http.StatusFound)
		case "/nix/nar/b":
			w.Header().Set("Location", "../../blob/a?key=1")
			w.WriteHeader(http.StatusTemporaryRedirect)
		case "/blob/a":
			_, _ = io.WriteString(w, r.URL.RawQuery)
		default:
			http.NotFound(w, r)
		}
	}))
	defer cache.Close()
	s, err := New(1<<20, http.DefaultTransport, []string{cache.URL + "/nix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for _, name := range []string{"a", "b"} {
		resp, err := http.Get(s.URLs[0] + "/nar/" + name)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || string(text) != "key=1" {
			t.Errorf("%s: %s %q %v", name, resp.Status, text, err)
		}
	}
}

func TestWithoutProxy(t *testing.T) {
	for _, c := range []struct{ lower, upper, want string }{
		{"", "", "127.0.0.1"}, {"", "a.example", "a.example,127.0.0.1"}, {"b.example", "a.example", "b.example,127.0.0.1"}, {"*", "", "*"},
	} {
		got := WithoutProxy(func(name string) string { return map[string]string{"no_proxy": c.lower, "NO_PROXY": c.upper}[name] })
		if !slices.Equal(got, []string{"no_proxy=" + c.want, "NO_PROXY=" + c.want}) {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
