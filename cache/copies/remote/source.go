// Package remote reads and writes binary caches over HTTP, for package copies: any cache
// that a Nix could substitute from, and a server that takes uploads.
//
// A cache is slow, cut in the middle, sends elsewhere and lies: each read has a time in
// which something must come, a NAR that broke off is asked for again from where it was,
// a narinfo is bounded, and a password goes to the cache's own host alone.
package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"narwharf/cache/copies"
	"narwharf/narinfo"
	"narwharf/narinfo/clip"
)

// Options of a cache that is asked.
type Options struct {
	Base      *url.URL // without a slash at its end
	Transport http.RoundTripper
	Password  string // of HTTP Basic, as from a netrc; "" for none
	User      string
	Agent     string
	// Patience is how long nothing may come; 0 is a minute.
	Patience time.Duration
}

// Cache is a binary cache that is read over HTTP.
type Cache struct {
	client
	StoreDir string // "" if it does not say
}

const (
	attempts   = 5 // of a request, or to go on with one that broke off
	maxNarinfo = 1 << 20
)

// Open looks whether something is a cache for paths of a store directory; "" is any.
func Open(ctx context.Context, o Options, storeDir string) (*Cache, error) {
	c := &Cache{client: newClient(o)}
	text, err := c.text(ctx, "nix-cache-info", 1<<16)
	if errors.Is(err, fs.ErrNotExist) || bytes.HasPrefix(bytes.TrimSpace(text), []byte("<")) { // a page
		return nil, fmt.Errorf("%s has no nix-cache-info: is it a Nix cache? Look at the name, the port and the path in its URL", o.Base)
	}
	if err != nil {
		return nil, err
	}
	if c.StoreDir = copies.StoreDir(text); storeDir != "" && c.StoreDir != "" && c.StoreDir != storeDir {
		return nil, fmt.Errorf("%s is a cache for paths of %s, not of %s", o.Base, c.StoreDir, storeDir)
	}
	return c, nil
}

// Info implements copies.Source.
func (c *Cache) Info(ctx context.Context, hash string) (*narinfo.Info, error) {
	text, err := c.text(ctx, hash+".narinfo", maxNarinfo)
	if err != nil {
		return nil, err
	}
	return copies.ParseInfo(hash, text)
}

// text reads a small file. Transient faults are tried again.
func (c *Cache) text(ctx context.Context, name string, limit int64) (text []byte, err error) {
	err = c.again(ctx, func() error {
		resp, err := c.do(ctx, http.MethodGet, c.base.String()+"/"+name, nil, 0, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if err := c.refused(resp, name); err != nil {
			return err
		}
		if text, err = io.ReadAll(io.LimitReader(resp.Body, limit+1)); err != nil {
			return transient{err}
		}
		if int64(len(text)) > limit {
			return fmt.Errorf("%s has more than %d bytes", name, limit)
		}
		return nil
	})
	return text, err
}

// refused is the error of an answer that is none.
func (c *Cache) refused(resp *http.Response, name string) error {
	switch {
	case resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent:
		return nil
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusGone,
		// What a bucket answers for what it lacks to who may not list it.
		resp.StatusCode == http.StatusForbidden && !strings.HasSuffix(name, "-info"):
		return fmt.Errorf("%s: %s: %w", name, resp.Status, fs.ErrNotExist)
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%s: %s: it asks for a password (give --netrc-file, as for Nix)", c.base.Redacted(), resp.Status)
	}
	err := fmt.Errorf("%s: %s: %s", name, resp.Status, firstLine(resp.Body))
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		return transient{err}
	}
	return err
}

// firstLine is what an answer says to people.
func firstLine(body io.Reader) string {
	text, _ := io.ReadAll(io.LimitReader(body, 2048)) // as far as it goes
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return clip.Line(line, 400)
}

// NAR implements copies.Source.
func (c *Cache) NAR(ctx context.Context, info *narinfo.Info) (io.ReadCloser, error) {
	ref, err := url.Parse(info.URL)
	if err != nil {
		return nil, err
	}
	base := *c.base
	base.Path += "/"
	target := base.ResolveReference(ref)
	if target.Scheme != "http" && target.Scheme != "https" {
		return nil, fmt.Errorf("%s is no URL of a NAR", clip.Text(info.URL, 200))
	}
	d := &download{c: c, ctx: ctx, url: target.String(), name: info.URL}
	return d, c.again(ctx, d.open)
}

// download is a NAR that is read, over as many requests as it takes.
type download struct {
	c         *Cache
	ctx       context.Context
	url, name string
	at        int64
	body      io.ReadCloser
	tries     int // in a row that brought nothing
}

// open asks for the file from where it broke off.
func (d *download) open() error {
	header := http.Header{}
	if d.at > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", d.at))
	}
	resp, err := d.c.do(d.ctx, http.MethodGet, d.url, nil, 0, header)
	if err != nil {
		return err
	}
	if err := d.c.refused(resp, d.name); err != nil {
		resp.Body.Close()
		return err
	}
	d.body = resp.Body
	if d.at > 0 && resp.StatusCode != http.StatusPartialContent {
		if _, err := io.CopyN(io.Discard, d.body, d.at); err != nil {
			resp.Body.Close()
			return transient{err}
		}
	}
	return nil
}

// Read implements io.Reader.
func (d *download) Read(p []byte) (int, error) {
	for {
		n, err := d.body.Read(p)
		if d.at += int64(n); n > 0 {
			d.tries = 0
			return n, nil // an error comes again
		}
		if err == nil || err == io.EOF || d.ctx.Err() != nil {
			return 0, err
		}
		d.body.Close()
		if d.tries++; d.tries >= attempts {
			return 0, fmt.Errorf("it broke off after %d bytes: %w", d.at, err)
		}
		if err := d.c.again(d.ctx, d.open); err != nil {
			return 0, err
		}
	}
}

// Close implements io.Closer.
func (d *download) Close() error { return d.body.Close() }
