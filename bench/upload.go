//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"
)

// upload sends the closure as `nix copy` does, over n connections: for each
// path GET narinfo, HEAD NAR, PUT NAR, PUT narinfo, and a path only after
// those it refers to. It returns how long that took.
func upload(addr, token string, c *closure, n int) (time.Duration, error) {
	var clients []*client
	defer func() {
		for _, cl := range clients {
			cl.close()
		}
	}()
	for range n {
		cl, err := dial(addr, token)
		if err != nil {
			return 0, err
		}
		clients = append(clients, cl)
	}
	done := make([]chan struct{}, len(c.paths))
	for i := range done {
		done[i] = make(chan struct{})
	}
	failed := make(chan struct{})
	var once sync.Once
	var firstErr error
	fail := func(err error) {
		once.Do(func() {
			firstErr = err
			close(failed)
		})
	}
	// Paths are taken in topological order, so the lowest unfinished one never
	// waits, and nobody waits for ever.
	next := make(chan int, len(c.paths))
	for i := range c.paths {
		next <- i
	}
	close(next)
	var wg sync.WaitGroup
	start := time.Now()
	for _, cl := range clients {
		wg.Go(func() {
			for i := range next {
				for _, ref := range c.paths[i].refs {
					select {
					case <-done[ref]:
					case <-failed:
						return
					}
				}
				if err := cl.uploadPath(c.paths[i]); err != nil {
					fail(err)
					return
				}
				close(done[i])
			}
		})
	}
	wg.Wait()
	return time.Since(start), firstErr
}

func (c *client) uploadPath(p *storePath) error {
	info, file := narinfoPath(p.info.Path), "/"+p.info.URL
	status, err := c.status(http.MethodGet, info)
	if err != nil {
		return err
	}
	if status != http.StatusNotFound {
		return fmt.Errorf("GET %s: status %d before the upload, want 404", info, status)
	}
	if status, err = c.status(http.MethodHead, file); err != nil {
		return err
	}
	switch status {
	case http.StatusOK: // another path has the same content
	case http.StatusNotFound:
		f, err := os.Open(p.file)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := c.put(file, "application/x-nix-nar", f, p.info.FileSize); err != nil {
			return err
		}
	default:
		return fmt.Errorf("HEAD %s: status %d", file, status)
	}
	text := p.info.Append(nil)
	return c.put(info, "text/x-nix-narinfo", bytes.NewReader(text), int64(len(text)))
}
