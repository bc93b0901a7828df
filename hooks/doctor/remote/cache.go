// Package remote asks a cache what its clients would meet: whether it answers, with which keys, whether a
// path verifies, and what proxies and caches on the way do to requests. It sends nothing that changes
// anything.
package remote

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"narwharf/cache/probe"
	"narwharf/hooks/api"
	"narwharf/hooks/api/trust"
	"narwharf/narinfo"
	"narwharf/narinfo/clip"
	"narwharf/signing"
)

// A Cache is one over HTTP.
type Cache struct {
	URL      *url.URL
	StoreDir string // of Ask
	Password string // sent as Nix does, "" for none

	client *http.Client
	trust  trust.Files
}

// New makes a cache of its URL, which may have a query, as a store URL of Nix.
func New(at string, files trust.Files) (*Cache, error) {
	at, _, _ = strings.Cut(at, "?")
	u, err := api.ParseURL(at)
	if err != nil {
		return nil, err
	}
	config, err := files.Config()
	if err != nil {
		return nil, err
	}
	return &Cache{URL: u, StoreDir: "/nix/store", trust: files, client: &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, DisableCompression: true,
			TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 20 * time.Second,
		},
	}}, nil
}

// An Answer is what came back.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// maxBody bounds what is read of an answer.
const maxBody = 2 << 20

// get asks for a path below the URL, with headers in pairs.
func (c *Cache) get(ctx context.Context, path string, header ...string) (*Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL.String()+path, nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	if c.Password != "" {
		req.SetBasicAuth("narwharf", c.Password)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, api.Unreached(c.URL, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, fmt.Errorf("GET %s: the answer broke off: %w", path, err)
	}
	return &Answer{resp.StatusCode, resp.Header, body}, nil
}

// ErrNoRight says that reading takes a password, and none was sent or it is not good.
var ErrNoRight = errors.New("reading takes a token that is good")

// must is get, of what has to be there.
func (c *Cache) must(ctx context.Context, path string) ([]byte, error) {
	a, err := c.get(ctx, path)
	if err != nil {
		return nil, err
	}
	return a.good(path)
}

// good is the body of an answer that has to be one.
func (a *Answer) good(path string) ([]byte, error) {
	switch {
	case a.Status == http.StatusUnauthorized || a.Status == http.StatusForbidden:
		return nil, fmt.Errorf("GET %s: %w: %s", path, ErrNoRight, firstLine(a.Body))
	case a.Status != http.StatusOK:
		return nil, fmt.Errorf("GET %s: status %d: %s", path, a.Status, firstLine(a.Body))
	}
	return a.Body, nil
}

func firstLine(body []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	return clip.Line(line, 200)
}

// Ask reads nix-cache-info, and notes the folder of the cache's paths.
func (c *Cache) Ask(ctx context.Context) error {
	a, err := c.get(ctx, "/nix-cache-info")
	if err != nil {
		return err
	}
	switch hint := api.Stranger(a.Status, string(a.Body)); {
	case a.Status == http.StatusNotFound:
		return fmt.Errorf("%s has no /nix-cache-info: what answers there is no Nix cache: look at the name, the port and the path in its URL", c.URL)
	case a.Status != http.StatusOK && hint != "":
		return fmt.Errorf("GET %s/nix-cache-info: status %d%s", c.URL, a.Status, hint)
	}
	text, err := a.good("/nix-cache-info")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if dir, ok := strings.CutPrefix(line, "StoreDir:"); ok {
			c.StoreDir = strings.TrimSpace(dir)
			return nil
		}
	}
	return fmt.Errorf("%s/nix-cache-info names no StoreDir: what answers there is no Nix cache: look at the name, the port and the path in its URL", c.URL)
}

// Keys are those that the cache says it signs with.
func (c *Cache) Keys(ctx context.Context) (keys []signing.PublicKey, err error) {
	text, err := c.must(ctx, "/pubkey")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		k, err := signing.ParsePublicKey(line)
		if err != nil {
			return nil, fmt.Errorf("%s/pubkey: %w", c.URL, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// Narinfo reads that of a path, "" for the one that every Narwharf has.
func (c *Cache) Narinfo(ctx context.Context, path string) (*narinfo.Info, error) {
	hash := probe.Hash
	if path != "" {
		p, err := narinfo.ParsePath(c.StoreDir, path)
		if err != nil {
			return nil, err
		}
		hash = p.Hash()
	}
	text, err := c.must(ctx, "/"+hash+".narinfo")
	if err != nil {
		return nil, err
	}
	info, err := narinfo.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("the narinfo of %s: %w", hash, err)
	}
	if got := info.Path.Hash(); got != hash {
		return nil, fmt.Errorf("asked for %s, and got the narinfo of %s", hash, got)
	}
	return info, nil
}

// Verify reads the NAR of a narinfo: all of one that is not compressed and small, and compares it; of
// another that it is there.
func (c *Cache) Verify(ctx context.Context, info *narinfo.Info) error {
	if info.Compression != "none" || info.NarSize > maxBody {
		a, err := c.get(ctx, "/"+info.URL, "Range", "bytes=0-0")
		if err == nil && a.Status != http.StatusPartialContent && a.Status != http.StatusOK {
			err = fmt.Errorf("GET %s: status %d: %s", info.URL, a.Status, firstLine(a.Body))
		}
		return err
	}
	text, err := c.must(ctx, "/"+info.URL)
	if err != nil {
		return err
	}
	if sum := narinfo.Hash(sha256.Sum256(text)); sum != info.NarHash {
		return fmt.Errorf("the NAR of %s has %d bytes with the hash %s, and the signed hash is %s: something on the way changes it", info.Path, len(text), sum, info.NarHash)
	}
	return nil
}

// word is a random one.
func word() string { return strings.ToLower(rand.Text()[:20]) }

// Ready is an error with what the server says is wrong with it, where it looks.
func (c *Cache) Ready(ctx context.Context) error {
	_, err := c.must(ctx, "/readyz")
	return err
}
