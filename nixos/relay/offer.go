package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/narinfo"
	"narwharf/signing"
)

// An offer is a line of the manifest, and the cache that has it.
type offer struct {
	line signing.Line

	mu    sync.Mutex // one looks, whoever else asks waits
	info  *narinfo.Info
	cache *Cache
	url   *url.URL // of the NAR

	failed error // why its NAR did not come, for all that the relay could do
}

// errRefused is that every cache has answered, and none has what was asked for.
var errRefused = errors.New("no cache has it")

// offer looks for the path of a line until some cache has it.
func (r *Relay) offer(ctx context.Context, line signing.Line) (*offer, error) {
	hash := line.Path.Hash()
	r.mu.Lock()
	o := r.offers[hash]
	if o == nil {
		o = &offer{line: line}
		r.offers[hash] = o
	}
	r.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.info != nil {
		return o, nil
	}
	var last error
	for i := range r.Caches {
		c := &r.Caches[i]
		info, err := r.narinfo(ctx, c, line)
		if err == nil && (info.StoreDir != r.StoreDir || !signing.LineOf(info).Equal(line)) {
			err = fmt.Errorf("%w: %s has other bytes for %s than the promoter signed", errRefused, c.URL.Redacted(), line.Path)
		}
		if err == nil {
			base := *c.URL
			base.Path += "/"
			o.url, err = base.Parse(info.URL)
		}
		if err == nil {
			o.info, o.cache = info, c
			return o, nil
		}
		if last == nil || !errors.Is(err, errRefused) { // what may be cured by another try
			last = err
		}
	}
	return nil, last
}

// maxNarinfo bounds a narinfo with so many references: those of a closure are in memory together, and a
// cache may make signatures up.
func maxNarinfo(references int) int64 { return 32<<10 + 256*int64(references) }

// narinfo asks a cache for the narinfo of the path of a line.
func (r *Relay) narinfo(ctx context.Context, c *Cache, line signing.Line) (*narinfo.Info, error) {
	p := line.Path
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	resp, err := r.get(ctx, c, c.URL.JoinPath(p.Hash()+".narinfo"), 0, false)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusForbidden, http.StatusUnauthorized, http.StatusGone:
		return nil, fmt.Errorf("%w: %s answers %s for the narinfo of %s", errRefused, c.URL.Redacted(), resp.Status, p)
	default:
		return nil, fmt.Errorf("%s answers %s for the narinfo of %s", c.URL.Redacted(), resp.Status, p)
	}
	plain, err := narfile.Decode(resp.Body, resp.Header.Get("Content-Encoding"), maxNarinfo(len(line.References)), "the narinfo", refusal.Narinfo)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	text, err := io.ReadAll(plain)
	if err != nil {
		return nil, fmt.Errorf("read the narinfo of %s from %s: %w", p, c.URL.Redacted(), err)
	}
	i, err := narinfo.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: what %s says of %s: %w", errRefused, c.URL.Redacted(), p, err)
	}
	return i, nil
}

// maxRedirects is for one request.
const maxRedirects = 5

// get asks a cache, from a byte on, and follows where it leads: to itself, and for NARs to
// the hosts that may be asked besides. The token goes to the cache's own origin.
func (r *Relay) get(ctx context.Context, c *Cache, to *url.URL, from int64, elsewhere bool) (*http.Response, error) {
	for range maxRedirects {
		own := Origin(to) == Origin(c.URL)
		if !own && !elsewhere {
			return nil, fmt.Errorf("%w: %s leads to %s, which is not its own", errRefused, c.URL.Redacted(), Origin(to))
		}
		transport := http.RoundTripper(r.Transport)
		if !own {
			if err := r.outside.allow(c.URL, to); err != nil {
				return nil, fmt.Errorf("%w: %s %w", errRefused, c.URL.Redacted(), err)
			}
			transport = r.outside
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
		if err != nil {
			return nil, err
		}
		req.URL.User, req.URL.Fragment = nil, ""
		req.Header.Set("User-Agent", UserAgent)
		if from > 0 {
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
		}
		if own && c.Token != "" {
			req.SetBasicAuth(c.User, c.Token)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", Origin(to), err)
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			return resp, nil
		}
		_ = resp.Body.Close()
		if to, err = to.Parse(resp.Header.Get("Location")); err != nil {
			return nil, fmt.Errorf("%w: %s redirects to what is no URL", errRefused, c.URL.Redacted())
		}
	}
	return nil, fmt.Errorf("%w: %s redirects in circles", errRefused, c.URL.Redacted())
}

var usualPort = map[string]string{"http": "80", "https": "443"}

// Origin is scheme, host and port.
func Origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = usualPort[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}
