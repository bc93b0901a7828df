//go:build linux

package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/klauspost/compress/zstd"

	"narwharf/narinfo"
)

// saved is what a download was.
type saved struct {
	size      int64 // of the file
	plain     narinfo.Hash
	plainSize int64 // of the NAR in it
}

// save downloads into a file, and tells the hash of what is in it.
func (c *client) save(url, file string, unpack bool) (saved, error) {
	s, err := c.download(url, file, unpack)
	if err != nil {
		return saved{}, fmt.Errorf("GET %s: %w", url, err)
	}
	return s, nil
}

func (c *client) download(url, file string, unpack bool) (s saved, err error) {
	f, err := os.Create(file)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	resp, err := c.ask(http.MethodGet, url, "", nil, 0)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return s, fmt.Errorf("status %s", resp.Status)
	}
	if s.size, err = io.Copy(f, resp.Body); err != nil {
		return s, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return s, err
	}
	var r io.Reader = bufio.NewReaderSize(f, 1<<20)
	if unpack {
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return s, err
		}
		defer z.Close()
		r = z
	}
	sum := sha256.New()
	s.plainSize, err = io.Copy(sum, r)
	s.plain = narinfo.Hash(sum.Sum(nil))
	return s, err
}
