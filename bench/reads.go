//go:build linux

package main

import (
	"fmt"
	"time"

	"narwharf/bench/load"
)

// A target is one address of a running server.
type target struct {
	*server
	addr string
}

// A reading is how one row of GETs is measured.
type reading struct {
	what  string
	reqs  []load.Request
	conns int
	time  time.Duration // about as long as one sample should take
	nars  bool          // count bytes instead of requests
	reads int           // clients copy bodies by reads of that size; 0: they throw them away
}

// measure takes k samples of each target, alternating, each on connections of
// its own that are warm. The first target's warm-up decides how many times a
// sample goes through the list; it is the same for all.
func (r reading) measure(k int, targets []target) ([][]sample, error) {
	passes := 0
	return rounds(k, len(targets), func(i int) (sample, error) {
		t := targets[i]
		pool, err := load.Dial(t.addr, r.conns)
		if err != nil {
			return sample{}, err
		}
		defer pool.Close()
		pool.Copies = r.reads
		warm, err := pool.Run(r.reqs, load.Limit{Duration: r.time / 5})
		if err != nil {
			return sample{}, fmt.Errorf("%s: %w", t.name, err)
		}
		if passes == 0 {
			passes = max(1, int(warm.Rate()*r.time.Seconds())/len(r.reqs))
		}
		before, err := t.cpu()
		if err != nil {
			return sample{}, err
		}
		own := ownCPU()
		res, err := pool.Run(r.reqs, load.Limit{Count: passes * len(r.reqs)})
		if err != nil {
			return sample{}, fmt.Errorf("%s: %w", t.name, err)
		}
		own = ownCPU() - own
		after, err := t.cpu()
		if err != nil {
			return sample{}, err
		}
		s := sample{value: res.Rate()}
		work := float64(len(res.Latencies)) / 1e5
		if r.nars {
			s.value = res.Throughput() / 1e9
			work = float64(res.Bytes) / 1e9
		}
		s.cpu, s.load = (after-before).Seconds()/work, own.Seconds()/work
		s.p50 = float64(res.Percentile(50).Nanoseconds()) / 1e3
		s.p99 = float64(res.Percentile(99).Nanoseconds()) / 1e3
		progress("%s, %s: %.4g %s, CPU %.3f s per %s", r.what, t.name, s.value, r.unit(), s.cpu, r.work())
		return s, nil
	})
}

func (r reading) unit() string {
	if r.nars {
		return "GB/s"
	}
	return "req/s"
}

// work is what CPU time is counted by.
func (r reading) work() string {
	if r.nars {
		return "GB"
	}
	return "100k"
}

// narinfoRows measures narinfos as everybody asks for them first.
func narinfoRows(p plan, c *closure, texts map[string][]byte, subject *server, yard *nginxServer) ([]row, error) {
	r := reading{what: "narinfo, 16 connections", conns: 16, time: p.sample}
	for _, path := range c.paths {
		name := narinfoPath(path.info.Path)
		r.reqs = append(r.reqs, load.Get(name, int64(len(texts[name[1:]]))))
	}
	all, err := r.measure(p.rounds, []target{{subject, subject.addr}, {yard.server, yard.addr}, {yard.server, yard.cached}})
	if err != nil {
		return nil, err
	}
	a, b, cached := all[0], all[1], all[2]
	main := newRow(r.what+", req/s", "%.0f", a, b, byValue)
	main.atLeast = 1.0
	main.addCPU("%.2f s/100k", a, b)
	against := newRow("… against nginx with `open_file_cache`", "%.0f", a, cached, byValue)
	against.addCPU("%.2f s/100k", a, cached)
	return []row{
		main,
		newRow("… p50, µs", "%.0f", a, b, byP50),
		newRow("… p99, µs", "%.0f", a, b, byP99),
		newRow("… CPU of the load generator itself, s/100k", "%.2f", a, b, byLoad),
		against,
	}, nil
}

// narRows measures stored NARs over the whole closure.
func narRows(p plan, c *closure, subject *server, yard *nginxServer) ([]row, error) {
	var reqs []load.Request
	for _, path := range c.paths {
		reqs = append(reqs, load.Get("/"+path.info.URL, path.info.FileSize))
	}
	var out []row
	for _, reads := range []int{16 << 10, 64 << 10, 256 << 10} {
		for _, conns := range []int{1, 4} {
			r := reading{what: fmt.Sprintf("stored NARs, %s, clients that copy by reads of %d KiB", connections(conns), reads>>10),
				reqs: reqs, conns: conns, time: p.sample, nars: true, reads: reads}
			all, err := r.measure(p.rounds, []target{{subject, subject.addr}, {yard.server, yard.addr}})
			if err != nil {
				return nil, err
			}
			copying := newRow(r.what+", GB/s", "%.2f", all[0], all[1], byValue)
			copying.atLeast = 0.95
			copying.addCPU("%.3f s/GB", all[0], all[1])
			out = append(out, copying)
		}
	}
	for _, conns := range []int{1, 4, 16} {
		r := reading{what: fmt.Sprintf("stored NARs, %d connections", conns), reqs: reqs, conns: conns, time: p.sample, nars: true}
		if conns == 1 {
			r.what = "stored NARs, 1 connection"
		}
		all, err := r.measure(p.rounds, []target{{subject, subject.addr}, {yard.server, yard.addr}})
		if err != nil {
			return nil, err
		}
		main := newRow(r.what+", GB/s", "%.2f", all[0], all[1], byValue)
		main.atLeast = 0.95
		main.addCPU("%.3f s/GB", all[0], all[1])
		seconds := func(s sample) float64 { return float64(c.fileSize) / 1e9 / s.value }
		out = append(out, main,
			newRow("… whole closure, s", "%.3f", all[0], all[1], seconds),
			newRow("… CPU of the load generator itself, s/GB", "%.3f", all[0], all[1], byLoad))
	}
	return out, nil
}
