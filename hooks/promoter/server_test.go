package promoter_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/state/memory"
	"narwharf/hooks"
	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/signing"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

// must is for what cannot fail, where an example has no test.
func must[T any](v T, err error) T {
	if err != nil {
		log.Panic(err)
	}
	return v
}

// server is the API of channels, over a cache in memory with one closure. Anybody
// may do anything.
type server struct {
	*httptest.Server
	api  *hooks.Server
	ci   signing.SecretKey
	path string // of the closure, which has two paths
	*content
}

func newServer() *server {
	s := &server{ci: must(signing.GenerateKey("ci-1")),
		content: &content{infos: make(map[string]*narinfo.Info), files: make(map[string][]byte)}}
	s.path = s.put("app", s.put("lib")).In("/nix/store")
	store := memory.New(nil)
	tokens, _, err := access.Open(context.Background(), store, "")
	s.api = must(hooks.New(hooks.Options{
		State: store, Cache: s.content, Files: s.content, Access: access.NewAuthenticator(access.Options{Tokens: must(tokens, err), Anonymous: scope.Set{{Kind: scope.Admin}}}),
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	}))
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hash, isInfo := strings.CutSuffix(path.Base(r.URL.Path), ".narinfo")
		info, _, _, err := s.Info(hash)
		switch {
		case !isInfo:
			s.api.ServeHTTP(w, r)
		case err != nil:
			http.NotFound(w, r)
		default:
			_, _ = w.Write(info.Append(nil))
		}
	}))
	return s
}

func (s *server) Close() {
	s.api.Stop()
	s.Server.Close()
}

// put makes a path in the cache, signed by ci.
func (s *server) put(name string, refs ...narinfo.Path) narinfo.Path {
	sum := narinfo.Hash(sha256.Sum256([]byte(name)))
	i := &narinfo.Info{
		StoreDir: "/nix/store", Path: narinfo.Path(sum.Base32()[20:] + "-" + name), URL: "nar/" + sum.Base32() + ".nar", Compression: "none",
		FileHash: sum, FileSize: 100, NarHash: sum, NarSize: 100, References: refs,
	}
	i.Sigs = []string{s.ci.Sign(i.AppendFingerprint(nil))}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.infos[i.Path.Hash()] = i
	return i.Path
}

// follow is a host that says of each release that it runs it, until it is told to
// end.
func (s *server) follow(host, channel string) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	client := must(api.NewClient(api.ClientOptions{Servers: []string{s.URL}}))
	st := &api.Status{Agent: "0.0.0", StartID: 1, Channel: channel, Target: host, BootID: "b", State: api.Idle}
	report := func() error { st.Counter++; return client.PutStatus(ctx, host, st, false) }
	if err := report(); err != nil {
		log.Panic(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for etag := ""; ctx.Err() == nil; {
			d, next, err := client.Desired(ctx, host, channel, host, api.Have{}, etag, 5*time.Second)
			switch {
			case errors.Is(err, api.ErrNotModified):
				continue
			case ctx.Err() != nil:
				return
			case err != nil:
				log.Panic(err)
			}
			etag = next
			if d.Pointer == nil {
				continue
			}
			e := must(signing.ParseEntry(d.Pointer.Entry))
			st.State, st.Seq, st.HighestSeq, st.Wanted, st.Current, st.Profile = api.OK, d.Seq, d.Seq, e.StorePath, e.StorePath, e.StorePath
			if err := report(); err != nil && ctx.Err() == nil {
				log.Panic(err)
			}
		}
	}()
	return func() { cancel(); <-done }
}

// content is a cache, and the files of channels, in memory.
type content struct {
	mu    sync.Mutex
	infos map[string]*narinfo.Info
	files map[string][]byte
}

func (c *content) Stream(name string) (io.ReadCloser, int64, error) {
	text, err := c.Read(name, 1<<30)
	return io.NopCloser(bytes.NewReader(text)), int64(len(text)), err
}

func (c *content) Info(hash string) (*narinfo.Info, time.Time, string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.infos[hash]; i != nil {
		return i, time.Now(), "ci", nil
	}
	return nil, time.Time{}, "", fs.ErrNotExist
}

func (c *content) HasBytes(*narinfo.Info) (bool, error) { return true, nil }

func (c *content) Peek(string, []string, int64) (map[string][]byte, error) { return nil, nil }

func (c *content) Adopt(context.Context, []narinfo.Path, string) (int, error) { return 0, nil }

func (c *content) Write(name string, data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files[name] = bytes.Clone(data)
	return nil
}

func (c *content) Read(name string, _ int64) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if data, ok := c.files[name]; ok {
		return data, nil
	}
	return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}

func (c *content) Use(context.Context, []string) ([]string, error) { return nil, nil }

func (c *content) Remove(string) error { return nil }

func (c *content) List(string, func(string) error) error { return nil }

func (c *content) Folders(string) ([]string, error) { return nil, nil }
