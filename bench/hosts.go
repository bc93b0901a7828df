//go:build linux

package main

import (
	"fmt"
	"time"

	"narwharf/bench/load"
	"narwharf/signing"
)

// Targets of many hosts on one server (DESIGN, section 9).
const (
	maxPerHost = 20 << 10    // bytes
	maxWake    = time.Second // from promote to the last host
)

// hostLimit is how long all hosts together may take for anything.
const hostLimit = 2 * time.Minute

// hosts are machines that follow one channel, each with a connection.
type hosts struct {
	server   *server
	promoter *promoter
	fleet    *load.Fleet
	token    string
	operator string // another token, once it is needed
	names    []string
	etags    []string
	counter  int64 // of reports
}

// hostRows measures what n parked hosts cost, and how soon they know of a
// release.
func hostRows(p plan, dir string, start func(string) (*server, error)) ([]row, error) {
	h, idle, err := gather(p, dir, start)
	if err != nil {
		return nil, err
	}
	defer func() { h.server.stop() }()
	defer h.fleet.Close()

	if err := h.arrive(p.arrival); err != nil {
		return nil, err
	}
	polls, err := h.attend(p.settle)
	if err != nil {
		return nil, err
	}
	memory, each, err := h.memoryRow(fmt.Sprintf("memory for each of %d hosts that poll", p.hosts), idle)
	if err != nil {
		return nil, err
	}
	memory.goal, memory.missed = "≤ 20 KiB", each > maxPerHost
	out := []row{memory}
	if polls.values[0] != "" {
		out = append(out, polls)
	}

	kinds := []struct {
		what    string
		targets []string
		report  bool
	}{
		{"a release for all", []string{signing.Everyone}, false},
		{"a release with an entry for each", h.names, false},
		{"a release for all, and each reports", []string{signing.Everyone}, true},
	}
	for _, kind := range kinds {
		var wakes []wake
		for range p.wakes {
			w, err := h.promote(kind.targets, kind.report)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", kind.what, err)
			}
			progress("%s: %d hosts woken after p50 %s, p99 %s, all %s; promoter's answer %s; all reports %s; CPU %s, of the load generator %s", kind.what, len(w.woken),
				ms(at(w.woken, 50)), ms(at(w.woken, 99)), ms(at(w.woken, 100)), ms(w.promoted), ms(at(w.reported, 100)), ms(w.cpu), ms(w.own))
			wakes = append(wakes, w)
		}
		if kind.report {
			out = append(out, h.reportRow(wakes))
		} else {
			out = append(out, h.wakeRow(kind.what, wakes))
		}
	}
	if _, err := h.attend(p.settle); err != nil {
		return nil, err
	}
	again, _, err := h.memoryRow(fmt.Sprintf("… memory for each after %d releases and %d reports of each", 3*p.wakes, p.wakes), idle)
	if err != nil {
		return nil, err
	}
	started, err := h.startRow(p, dir)
	if err != nil {
		return nil, err
	}
	return append(out, again, started), nil
}

// gather starts a server with a release, measures its idle memory, and
// connects the hosts.
func gather(p plan, dir string, start func(string) (*server, error)) (h *hosts, idle int64, err error) {
	s, err := start(dir)
	if err != nil {
		return nil, 0, err
	}
	h = &hosts{server: s, names: make([]string, p.hosts), etags: make([]string, p.hosts)}
	defer func() {
		if err != nil {
			if h.fleet != nil {
				h.fleet.Close()
			}
			s.stop()
		}
	}()
	for i := range h.names {
		h.names[i] = fmt.Sprintf("h%05d", i)
	}
	if h.token, err = s.newToken("hosts", "follow:"+webChannel); err != nil {
		return nil, 0, err
	}
	if h.promoter, err = newPromoter(s, dir); err != nil {
		return nil, 0, err
	}
	r, err := h.promoter.next([]string{signing.Everyone})
	if err != nil {
		return nil, 0, err
	}
	if _, err := h.promoter.send(r); err != nil {
		return nil, 0, err
	}
	time.Sleep(2 * time.Second)
	if idle, _, err = s.memory(); err != nil {
		return nil, 0, err
	}
	h.fleet, err = load.NewFleet(s.addr)
	return h, idle, err
}

// memoryRow measures how much memory the server has over idle for each host.
func (h *hosts) memoryRow(what string, idle int64) (row, int64, error) {
	now, _, err := h.server.memory()
	if err != nil {
		return row{}, 0, err
	}
	n := int64(len(h.names))
	each := (now - idle) / n
	m, err := h.metrics()
	if err != nil {
		return row{}, 0, err
	}
	kib := func(bytes float64) string { return fmt.Sprintf("%.1f", bytes/float64(n)/1024) }
	r := row{what: what, values: [2]string{fmt.Sprintf("%.1f KiB", float64(each)/1024)}}
	r.remark = fmt.Sprintf("idle %s, now %s; heap in use %s, stacks %s, objects %s KiB each", mib(idle), mib(now),
		kib(m["go_memstats_heap_inuse_bytes"]), kib(m["go_memstats_stack_inuse_bytes"]), kib(m["go_memstats_heap_alloc_bytes"]))
	progress("%s: %s (%s)", r.what, r.values[0], r.remark)
	return r, each, nil
}
