package remote

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/probe"
	"narwharf/hooks/api/trust"
	"narwharf/hooks/doctor"
	"narwharf/signing"
)

// front is a cache that has the probe alone, behind what spoils it.
func front(t *testing.T, key signing.SecretKey, spoil func(w http.ResponseWriter, req *http.Request, next http.HandlerFunc)) *Cache {
	t.Helper()
	info := probe.Info("/nix/store")
	var err error
	if info.Sigs, err = signing.SignInfo(info, []signing.SecretKey{key}); err != nil {
		t.Fatal(err)
	}
	cache := func(w http.ResponseWriter, req *http.Request) {
		probe.Answer(w.Header(), req)
		switch req.URL.Path {
		case "/nix-cache-info":
			_, _ = io.WriteString(w, "StoreDir: /nix/store\n")
		case "/pubkey":
			_, _ = io.WriteString(w, key.Public().String()+"\n")
		case "/healthz":
		case "/" + probe.Hash + ".narinfo":
			_, _ = w.Write(info.Append(nil))
		case "/nar/" + probe.File:
			http.ServeContent(w, req, "", time.Time{}, strings.NewReader(string(probe.NAR)))
		default:
			http.Error(w, "nothing", http.StatusNotFound)
		}
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { spoil(w, req, cache) }))
	t.Cleanup(srv.Close)
	c, err := New(srv.URL+"?compression=zstd", trust.Files{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newKey(t *testing.T) signing.SecretKey {
	t.Helper()
	k, err := signing.GenerateKey("cache-1")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestWay(t *testing.T) {
	var mu sync.Mutex
	keeps := map[string]http.Header{}
	for name, c := range map[string]struct {
		spoil func(w http.ResponseWriter, req *http.Request, next http.HandlerFunc)
		check string // the one finding that is none of OK
		level doctor.Level
	}{
		"well": {spoil: func(w http.ResponseWriter, req *http.Request, next http.HandlerFunc) { next(w, req) }},
		"a clock": {check: "clock", level: doctor.Fault, spoil: func(w http.ResponseWriter, req *http.Request, next http.HandlerFunc) {
			w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
			next(w, req)
		}},
		"keeps 404s": {check: "kept-404", level: doctor.Fault, spoil: func(w http.ResponseWriter, req *http.Request, next http.HandlerFunc) {
			mu.Lock()
			defer mu.Unlock()
			if h := keeps[req.URL.Path]; h != nil {
				w.Header().Set(probe.Header, h.Get(probe.Header))
				w.WriteHeader(http.StatusNotFound)
				return
			}
			next(w, req)
			if strings.HasSuffix(req.URL.Path, ".narinfo") {
				keeps[req.URL.Path] = w.Header().Clone()
			}
		}},
		"drops ranges": {check: "ranges", level: doctor.Fault, spoil: func(w http.ResponseWriter, req *http.Request, next http.HandlerFunc) {
			req.Header.Del("Range")
			next(w, req)
		}},
		"a limit": {check: "upload-size", level: doctor.Fault, spoil: func(w http.ResponseWriter, req *http.Request, next http.HandlerFunc) {
			if req.ContentLength > 1<<20 {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				return
			}
			next(w, req)
		}},
		"collects": {check: "upload-buffering", level: doctor.Fault, spoil: func(w http.ResponseWriter, req *http.Request, next http.HandlerFunc) {
			_, _ = io.Copy(io.Discard, req.Body)
			next(w, req)
		}},
		"an older server": {check: "kept-404", level: doctor.Note, spoil: func(w http.ResponseWriter, req *http.Request, next http.HandlerFunc) {
			req.Header.Del(probe.Header)
			next(w, req)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := new(doctor.Report)
			front(t, newKey(t), c.spoil).Way(t.Context(), r)
			if len(r.Findings) != 4 {
				t.Errorf("%d findings", len(r.Findings))
			}
			for _, f := range r.Findings {
				if want := f.Check == c.check; want != (f.Level != doctor.OK) || want && f.Level != c.level || f.Level == doctor.Fault && len(f.Type) == 0 {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

func TestVerify(t *testing.T) {
	key := newKey(t)
	c := front(t, key, func(w http.ResponseWriter, req *http.Request, next http.HandlerFunc) {
		if req.Header.Get("Authorization") == "" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		if strings.HasPrefix(req.URL.Path, "/nar/") && req.Header.Get("X-Spoil") != "" {
			_, _ = io.WriteString(w, "other")
			return
		}
		next(w, req)
	})
	if err := c.Ask(t.Context()); err == nil || !strings.Contains(err.Error(), "takes a token") {
		t.Errorf("without a password: %v", err)
	}
	c.Password = "x"
	keys, err := c.Keys(t.Context())
	if err != nil || len(keys) != 1 || keys[0].String() != key.Public().String() {
		t.Fatalf("%v, %v", keys, err)
	}
	info, err := c.Narinfo(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Verify(t.Context(), info); err != nil {
		t.Error(err)
	}
	info.NarHash[0]++
	if err := c.Verify(t.Context(), info); err == nil || !strings.Contains(err.Error(), "something on the way changes it") {
		t.Errorf("other bytes: %v", err)
	}
	if _, err := c.Narinfo(t.Context(), "/nix/store/00000000000000000000000000000000-x"); err == nil {
		t.Error("what is not there was found")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Ask(ctx); err == nil {
		t.Error("asked all the same")
	}
}
