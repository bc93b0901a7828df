//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"narwharf/bench/load"
)

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
