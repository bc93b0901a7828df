//go:build linux

package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"narwharf/bench/load"
	"narwharf/signing"
)

// Targets of two servers (DESIGN, section 9).
const (
	maxWakeAcross       = 2 * time.Second
	maxStatementsPoll   = 0.1
	maxStatementsReport = 2
)

// scaleRows measures two servers with one database and one bucket beside one server with its files.
func scaleRows(p plan, dir string) ([]row, error) {
	c, err := startCluster(p.binary, filepath.Join(dir, "cluster"), fmt.Sprintf("hosts_per_credential = %d", p.hosts+100_000), fmt.Sprintf("connections_per_token = %d", p.hosts+1000))
	if err != nil {
		return nil, err
	}
	defer c.stop()
	out, err := clusterReads(p, c, dir)
	if err != nil {
		return nil, err
	}
	rows, systems, err := clusterHosts(p, c, filepath.Join(dir, "hosts"))
	if err != nil {
		return nil, err
	}
	out = append(out, rows...)
	writes, err := busyRow(p, c, systems)
	if err != nil {
		return nil, err
	}
	bloat, err := c.bloatRow()
	if err != nil {
		return nil, err
	}
	return append(out, writes, bloat), nil
}

// clusterReads compares narinfos and NARs.
func clusterReads(p plan, c *cluster, dir string) ([]row, error) {
	files, err := makeClosure(filepath.Join(dir, "closure"), p.size, p.count)
	if err != nil {
		return nil, err
	}
	one, err := startNarwharf(p.binary, filepath.Join(dir, "one"), "")
	if err != nil {
		return nil, err
	}
	defer one.stop()
	for _, s := range []*server{one, c.a} {
		took, err := upload(s.put, s.token, files, 8)
		if err != nil {
			return nil, err
		}
		progress("uploaded the closure in %s", took.Round(time.Millisecond))
	}
	var infos, nars []load.Request
	texts := make(map[*server]map[string][]byte)
	for _, s := range []*server{one, c.a, c.b} { // which also brings all NARs into their disk caches
		if texts[s], err = checkAll(s.addr, files); err != nil {
			return nil, err
		}
	}
	for _, path := range files.paths {
		name := narinfoPath(path.info.Path)
		if len(texts[one][name[1:]]) != len(texts[c.b][name[1:]]) {
			return nil, fmt.Errorf("%s differs in length", name)
		}
		infos = append(infos, load.Get(name, int64(len(texts[one][name[1:]]))))
		nars = append(nars, load.Get("/"+path.info.URL, path.info.FileSize))
	}
	pair := []*server{c.a, c.b}
	compare := func(what, format string, reqs []load.Request, conns int, nars bool, least float64) (row, error) {
		all, err := rounds(p.rounds, 2, func(i int) (sample, error) {
			return together([][]*server{pair, {one}}[i], reqs, conns, p.sample, nars)
		})
		if err != nil {
			return row{}, err
		}
		r := newRow(what, format, all[0], all[1], byValue)
		r.atLeast, r.than = least, "one server"
		unit := "%.2f s/100k"
		if nars {
			unit = "%.3f s/GB"
		}
		r.addCPU(unit, all[0], all[1])
		progress("%s: %s, ratio %s", what, r.values, r.ratio)
		return r, nil
	}
	info, err := compare("two servers, PostgreSQL and "+c.where()+": narinfo, 16 connections, req/s; beside one with its files", "%.0f", infos, 16, false, 0.8)
	if err != nil {
		return nil, err
	}
	nar, err := compare("… stored NARs out of their disk caches, 16 connections, GB/s", "%.2f", nars, 16, true, 0.9)
	return []row{info, nar}, err
}

// together asks servers at once, with as many connections to each, and adds up what they answer.
func together(servers []*server, reqs []load.Request, conns int, d time.Duration, nars bool) (s sample, err error) {
	pools := make([]*load.Pool, len(servers))
	for i, srv := range servers {
		if pools[i], err = load.Dial(srv.addr, conns/len(servers)); err != nil {
			return s, err
		}
		defer pools[i].Close()
	}
	run := func(d time.Duration) (all []*load.Result, err error) {
		all = make([]*load.Result, len(pools))
		errs := make(chan error, len(pools))
		for i, pool := range pools {
			go func() {
				var err error
				all[i], err = pool.Run(reqs, load.Limit{Duration: d})
				errs <- err
			}()
		}
		for range pools {
			err = errors.Join(err, <-errs)
		}
		return all, err
	}
	cpu := func() (sum time.Duration, err error) {
		for _, srv := range servers {
			one, err := srv.cpu()
			if err != nil {
				return 0, err
			}
			sum += one
		}
		return sum, nil
	}
	if _, err := run(d / 5); err != nil {
		return s, err
	}
	before, err := cpu()
	if err != nil {
		return s, err
	}
	all, err := run(d)
	if err != nil {
		return s, err
	}
	after, err := cpu()
	if err != nil {
		return s, err
	}
	work := 0.0
	for _, r := range all {
		if nars {
			s.value += r.Throughput() / 1e9
			work += float64(r.Bytes) / 1e9
		} else {
			s.value += r.Rate()
			work += float64(len(r.Latencies)) / 1e5
		}
	}
	s.cpu = (after - before).Seconds() / work
	return s, nil
}

// clusterHosts has hosts that wait at one server, and promotes at the other, by the promoter that it returns.
func clusterHosts(p plan, c *cluster, dir string) ([]row, *promoter, error) {
	h, idle, err := gather(p, dir, func(string) (*server, error) { return c.b, nil })
	if err != nil {
		return nil, nil, err
	}
	defer h.fleet.Close()
	h.promoter.addr = c.a.addr
	// Each asks what there is, and then waits; some of them come to the end of their patience.
	statements, err := c.during(func() error {
		if err := h.arrive(p.arrival); err != nil {
			return err
		}
		_, err := h.attend(p.settle)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	polls := 2 * float64(len(h.names))
	memory, each, err := h.memoryRow(fmt.Sprintf("… memory for each of %d hosts that wait at one of them", p.hosts), idle)
	if err != nil {
		return nil, nil, err
	}
	memory.goal, memory.missed = "≤ 20 KiB", each > maxPerHost
	asked := countRow("… statements for each poll", statements, polls, maxStatementsPoll)

	var quiet, reports []wake
	for range p.wakes {
		w, err := h.promote([]string{signing.Everyone}, false)
		if err != nil {
			return nil, nil, err
		}
		quiet = append(quiet, w)
		progress("promote at one server, the last of %d hosts at the other woken after %s", len(h.names), ms(at(w.woken, 100)))
	}
	woken := h.wakeRow("… promote at one, hosts at the other", quiet)
	woken.goal, woken.missed = "< 2 s", medianOf(quiet, func(w wake) time.Duration { return at(w.woken, 100) }) >= maxWakeAcross
	statements, err = c.during(func() error {
		for range p.wakes {
			w, err := h.promote([]string{signing.Everyone}, true)
			if err != nil {
				return err
			}
			reports = append(reports, w)
			progress("… and each reports: the last after %s", ms(at(w.reported, 100)))
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	told := countRow("… statements for each report", statements, float64(p.wakes*len(h.names)), maxStatementsReport)
	engine, err := engineRow(h, c)
	return []row{memory, asked, woken, h.reportRow(reports), told, engine}, h.promoter, err
}

// countRow is how many of something there were for each of something else.
func countRow(what string, n, of, most float64) row {
	each := max(n, 0) / of
	r := row{what: what, values: [2]string{fmt.Sprintf("%.2f", each)}, goal: fmt.Sprintf("≤ %g", most), missed: each > most}
	progress("%s: %.2f", what, each)
	return r
}

// engineRow has the engine of roll-outs let all hosts go in two waves, through the database.
func engineRow(h *hosts, c *cluster) (row, error) {
	if _, err := h.goesOut(noRollout); err != nil {
		return row{}, err
	}
	plain, err := h.goesOut(noRollout)
	if err != nil {
		return row{}, err
	}
	var out outing
	statements, err := c.during(func() (err error) {
		out, err = h.goesOut(twoWaves)
		return err
	})
	if err != nil {
		return row{}, err
	}
	n := float64(len(h.names))
	r := row{
		what:   fmt.Sprintf("… %d hosts in two waves, a tenth at a time, each reports twice: promote to the last report acknowledged", len(h.names)),
		values: [2]string{ms(out.took)},
		remark: fmt.Sprintf("%.0f grants/s, %.1f statements a host; everyone at once without the engine %s", n/out.took.Seconds(), statements/n, ms(plain.took)),
	}
	r.cpus[0] = ms(out.cpu)
	progress("%s: %s (%s)", r.what, r.values[0], r.remark)
	return r, nil
}
