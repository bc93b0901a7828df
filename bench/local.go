//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
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
	rows, err = crowdRows(p, st, dir, start, target{yard.server, yard.addr})
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

// bigFile measures an uncompressed NAR that is mostly one file.
func (l *local) bigFile() ([]row, error) {
	url := plainURL(l.st.big)
	r := reading{what: "local store: uncompressed NAR of one large file", reqs: l.requests(url), conns: 1, time: l.p.sample, nars: true}
	all, err := r.measure(l.p.localRounds, l.both)
	if err != nil {
		return nil, err
	}
	hot := newRow(r.what+", hot, GB/s", "%.2f", all[0], all[1], byValue)
	hot.addCPU("%.3f s/GB", all[0], all[1])
	hot.atLeast = 0.9
	if l.p.colds == 0 {
		return []row{hot}, nil
	}
	files := []string{filepath.Join(l.st.real(l.st.big), "blob"), filepath.Join(l.www, url)}
	if all, err = l.cold(r, files); err != nil {
		return nil, err
	}
	cold := newRow("… cold, GB/s", "%.2f", all[0], all[1], byValue)
	cold.addCPU("%.3f s/GB", all[0], all[1])
	return []row{hot, cold}, nil
}

// cold takes samples of one request that finds nothing of files in memory.
func (l *local) cold(r reading, files []string) ([][]sample, error) {
	return rounds(l.p.colds, len(l.both), func(i int) (sample, error) {
		if err := chill(files...); err != nil {
			return sample{}, err
		}
		return r.once(l.both[i])
	})
}

// once is one request for each of r's, on a connection of its own.
func (r reading) once(t target) (sample, error) {
	pool, err := load.Dial(t.addr, 1)
	if err != nil {
		return sample{}, err
	}
	defer pool.Close()
	before, err := t.cpu()
	if err != nil {
		return sample{}, err
	}
	res, err := pool.Run(r.reqs, load.Limit{Count: len(r.reqs)})
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w", t.name, err)
	}
	after, err := t.cpu()
	s := sample{value: res.Throughput() / 1e9, cpu: (after - before).Seconds() / float64(res.Bytes) * 1e9}
	progress("%s, cold, %s: %.3g GB/s", r.what, t.name, s.value)
	return s, err
}

// manyFiles measures an uncompressed NAR of 20 000 small files, in files per
// second: against nginx, which has the NAR as one file, and against each Nix.
func (l *local) manyFiles() ([]row, error) {
	url := plainURL(l.st.many)
	r := reading{what: fmt.Sprintf("local store: uncompressed NAR of %d small files", manyFiles), reqs: l.requests(url), conns: 1, time: l.p.sample / 2, nars: true}
	files := func(s sample) float64 { return s.value * 1e9 / float64(l.st.many.NarSize) * manyFiles }
	perFile := func(all [][]sample) [][]sample { // CPU by file, not by byte
		for _, samples := range all {
			for i := range samples {
				samples[i].cpu *= float64(l.st.many.NarSize) / 1e9
			}
		}
		return all
	}
	served, err := r.measure(l.p.localRounds, l.both)
	if err != nil {
		return nil, err
	}
	// nginx's CPU time for a file of 25 MB is less than a tick
	main := newRow(r.what+", hot, files/s", "%.0f", served[0], served[1], files)
	out := []row{main}
	for i := len(l.st.nix) - 1; i >= 0; i-- {
		dumped, err := l.dumps(l.st.nix[i], r, false)
		if err != nil {
			return nil, err
		}
		dumped = perFile(dumped)
		what := fmt.Sprintf("… against `nix-store --dump` of Nix %s into a pipe, hot", l.st.nix[i].version)
		against := newRow(what, "%.0f", dumped[0], dumped[1], files)
		against.addCPU("%.3f s", dumped[0], dumped[1])
		against.atLeast, against.than = 1.2, "Nix"
		out = append(out, against)
	}
	if l.p.colds == 0 {
		return out, nil
	}
	dumped, err := l.dumps(l.st.nix[0], r, true)
	if err != nil {
		return nil, err
	}
	cold := newRow(fmt.Sprintf("… against Nix %s, cold", l.st.nix[0].version), "%.0f", dumped[0], dumped[1], files)
	perFile(dumped)
	cold.addCPU("%.3f s", dumped[0], dumped[1])
	return append(out, cold), nil
}

// dumps measures the server in turn with nix-store --dump.
func (l *local) dumps(n *nixClient, r reading, cold bool) ([][]sample, error) {
	path, k := l.st.real(l.st.many), l.p.localRounds
	if cold {
		k = l.p.colds
	}
	return rounds(k, 2, func(i int) (sample, error) {
		if cold {
			if err := chill(); err != nil {
				return sample{}, err
			}
			if _, _, err := n.dump(filepath.Join(l.dir, "nothing")); err == nil { // the program itself is to be hot
				return sample{}, errors.New("nix-store dumps what does not exist")
			}
		}
		if i == 0 {
			return r.once(l.both[0])
		}
		wall, cpu, err := n.dump(path)
		size := float64(l.st.many.NarSize) / 1e9
		return sample{value: size / wall.Seconds(), cpu: cpu.Seconds() / size}, err
	})
}

// firstBytes measures how long the first byte of a body takes.
func (l *local) firstBytes() ([]row, error) {
	var out []row
	for _, cold := range []bool{false, true} {
		if cold && l.p.colds == 0 {
			break
		}
		k, what := 5*l.p.localRounds, fmt.Sprintf("local store: first byte of the NAR of %d small files, hot, ms", manyFiles)
		if cold {
			k, what = l.p.colds, "… cold, ms"
		}
		all, err := rounds(k, 2, func(i int) (sample, error) {
			if cold {
				if err := chill(filepath.Join(l.www, plainURL(l.st.many))); err != nil {
					return sample{}, err
				}
			}
			took, err := firstByte(l.both[i].addr, plainURL(l.st.many))
			return sample{value: float64(took.Microseconds()) / 1e3}, err
		})
		if err != nil {
			return nil, err
		}
		r := newRow(what, "%.2f", all[0], all[1], byValue)
		if !cold {
			r.goal, r.missed = "< 5 ms", median(pick(all[0], byValue)) >= 5
		}
		out = append(out, r)
	}
	return out, nil
}

// firstByte is the time from a request to the first byte of the body.
func firstByte(addr, path string) (time.Duration, error) {
	conn, err := dial(addr, "")
	if err != nil {
		return 0, err
	}
	defer conn.close()
	began := time.Now()
	resp, err := conn.ask("GET", path, "", nil, 0)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return 0, fmt.Errorf("GET %s: status %s", path, resp.Status)
	}
	var one [1]byte
	_, err = io.ReadFull(resp.Body, one[:])
	took := time.Since(began)
	conn.close() // or Close would read the rest
	return took, err
}
