//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"narwharf/bench/load"
	"narwharf/narinfo"
)

// localRows measures a server of the paths of a Nix store, of which nothing
// was uploaded. nginx has what the server answers, as files: the narinfos, the
// packed NARs, and the two large NARs as they are. (So its NARs lie in other
// pages of the cache than the store's, but for the packed ones they are as
// hot.)
func localRows(p plan, st *nixStore, dir string, start func(dir, root string) (*server, error), n *nginx) ([]row, error) {
	subject, err := start(filepath.Join(dir, "local"), st.root)
	if err != nil {
		return nil, err
	}
	defer remove(filepath.Join(dir, "local"))
	defer func() { subject.stop() }()
	yard, err := n.start(filepath.Join(dir, "local-yardstick"))
	if err != nil {
		return nil, err
	}
	defer remove(filepath.Join(dir, "local-yardstick"))
	defer yard.stop()
	sizes, err := layOutLocal(st, subject, yard)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", subject.name, err)
	}
	if err := syncDisk(dir); err != nil {
		return nil, err
	}
	both := []target{{subject, subject.addr}, {yard.server, yard.addr}}
	l := &local{p: p, st: st, dir: dir, subject: subject, both: both, www: yard.www, sizes: sizes}
	var out []row
	for _, section := range []func() ([]row, error){l.narinfos, l.closure, l.bigFile, l.manyFiles, l.firstBytes} {
		rows, err := section()
		if err != nil {
			return nil, err
		}
		out = append(out, rows...)
	}
	rows, err := l.peers()
	if err != nil {
		return nil, err
	}
	out = append(out, rows...)
	if rows, err = crowdRows(p, st, dir, start, target{yard.server, yard.addr}); err != nil {
		return nil, err
	}
	out = append(out, rows...)
	rows, err = localMemoryRows(st, filepath.Join(dir, "local-memory"), start)
	return append(out, rows...), err
}

// local is what the rows of a local store have in common.
type local struct {
	p       plan
	st      *nixStore
	dir     string
	subject *server
	both    []target
	www     string
	sizes   map[string]int64 // of the files that nginx serves, by URL path
}

// layOutLocal asks the server for everything once, compares it with the store,
// and lays it into nginx's folder.
func layOutLocal(st *nixStore, subject *server, yard *nginxServer) (map[string]int64, error) {
	conn, err := dial(subject.addr, "")
	if err != nil {
		return nil, err
	}
	defer func() { conn.close() }()
	sizes := map[string]int64{}
	if err := os.Mkdir(filepath.Join(yard.www, "nar"), 0o755); err != nil {
		return nil, err
	}
	keep := func(url string, unpack bool, want *narinfo.Info) error {
		sum, err := conn.save(url, filepath.Join(yard.www, url), unpack)
		if err == nil && (sum.plain != want.NarHash || sum.plainSize != want.NarSize) {
			err = fmt.Errorf("GET %s: it is not the NAR of %s", url, want.Path)
		}
		sizes[url] = sum.size
		return err
	}
	for _, i := range st.paths {
		if err := keep(packedURL(i), true, i); err != nil {
			return nil, err
		}
	}
	for _, i := range []*narinfo.Info{st.big, st.many} {
		if err := keep(plainURL(i), false, i); err != nil {
			return nil, err
		}
	}
	for _, i := range st.paths {
		name := narinfoPath(i.Path)
		text, err := conn.packedInfo(name, sizes[packedURL(i)])
		if err != nil {
			return nil, err
		}
		if err := sameLocal(text, i); err != nil {
			return nil, fmt.Errorf("GET %s: %w", name, err)
		}
		sizes[name] = int64(len(text))
		if err := os.WriteFile(filepath.Join(yard.www, name), text, 0o644); err != nil {
			return nil, err
		}
	}
	return sizes, nil
}

// packedInfo asks for a narinfo until it has the FileSize that was seen: the
// text is made anew some time after the encode.
func (c *client) packedInfo(name string, size int64) ([]byte, error) {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		text, err := c.get(name)
		if err != nil {
			return nil, err
		}
		i, err := narinfo.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("GET %s: %w", name, err)
		}
		if i.FileSize == size {
			return text, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("GET %s: it has no FileSize of %d long after the NAR was packed:\n%s", name, size, text)
		}
	}
}

// sameLocal compares what does not depend on how the NAR is packed.
func sameLocal(text []byte, want *narinfo.Info) error {
	got, err := narinfo.Parse(text)
	if err != nil {
		return err
	}
	if "/"+got.URL != packedURL(want) || got.Compression != "zstd" || len(got.Sigs) == 0 {
		return errors.New("it has another URL, or no signature:\n" + string(text))
	}
	w := *want
	w.URL, w.Compression, w.FileHash, w.FileSize, w.Sigs = got.URL, got.Compression, got.FileHash, got.FileSize, got.Sigs
	if a, b := got.Append(nil), w.Append(nil); !bytes.Equal(a, b) {
		return errors.New("the narinfo differs from what is in the store:\n" + string(a) + "instead of\n" + string(b))
	}
	return nil
}

func (l *local) requests(urls ...string) []load.Request {
	var out []load.Request
	for _, url := range urls {
		out = append(out, load.Get(url, l.sizes[url]))
	}
	return out
}

func (l *local) urls(of func(*narinfo.Info) string) []string {
	var out []string
	for _, i := range l.st.paths {
		out = append(out, of(i))
	}
	return out
}

func infoURL(i *narinfo.Info) string { return narinfoPath(i.Path) }

// narinfos measures narinfos of local paths.
func (l *local) narinfos() ([]row, error) {
	r := reading{what: "local store: narinfo, 16 connections", conns: 16, time: l.p.sample, reqs: l.requests(l.urls(infoURL)...)}
	all, err := r.measure(l.p.localRounds, l.both)
	if err != nil {
		return nil, err
	}
	main := newRow(r.what+", req/s", "%.0f", all[0], all[1], byValue)
	main.atLeast = 1.0
	main.addCPU("%.2f s/100k", all[0], all[1])
	return []row{main, newRow("… p99, µs", "%.0f", all[0], all[1], byP99)}, nil
}

// closure measures the packed NARs after their first encode.
func (l *local) closure() ([]row, error) {
	var out []row
	for _, conns := range []int{1, 4, 16} {
		r := reading{what: fmt.Sprintf("local store: .nar.zst once packed, %d paths, %s", len(l.st.paths), connections(conns)),
			reqs: l.requests(l.urls(packedURL)...), conns: conns, time: l.p.sample, nars: true}
		all, err := r.measure(l.p.localRounds, l.both)
		if err != nil {
			return nil, err
		}
		main := newRow(r.what+", GB/s", "%.2f", all[0], all[1], byValue)
		main.atLeast = 0.95
		main.addCPU("%.3f s/GB", all[0], all[1])
		out = append(out, main)
	}
	return out, nil
}

func connections(n int) string {
	if n == 1 {
		return "1 connection"
	}
	return fmt.Sprintf("%d connections", n)
}
