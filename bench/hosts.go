//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"narwharf/bench/load"
	"narwharf/hooks/api"
	"narwharf/signing"
)

// Targets of many hosts on one server (DESIGN, section 9).
const (
	maxPerHost = 20 << 10 // bytes
	maxWake    = time.Second
)

// hostLimit is how long all hosts together may take for anything.
const hostLimit = 2 * time.Minute

// hosts are machines that follow one channel, each with a connection.
type hosts struct {
	server   *server
	promoter *promoter
	fleet    *load.Fleet
	token    string
	names    []string
	etags    []string
	counter  int64 // of reports
}

// A wake is what happened after one promote.
type wake struct {
	woken    []time.Duration // after the PUT was sent, sorted
	reported []time.Duration // the same of statuses that were acknowledged
	promoted time.Duration   // until the promoter had its answer
	cpu, own time.Duration   // of the server and of the load generator
}

// hostRows measures what n parked hosts cost, and how soon they know of a
// release.
func hostRows(p plan, dir string, start func(string) (*server, error)) ([]row, error) {
	h, idle, err := gather(p, dir, start)
	if err != nil {
		return nil, err
	}
	defer h.server.stop()
	defer h.fleet.Close()

	if err := h.park(); err != nil {
		return nil, err
	}
	memory, each, err := h.memoryRow("memory for each of %d parked hosts", idle, p.settle)
	if err != nil {
		return nil, err
	}
	memory.goal, memory.missed = "≤ 20 KiB", each > maxPerHost
	out := []row{memory}

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
	again, _, err := h.memoryRow(fmt.Sprintf("… after %d releases and %d reports of each", 3*p.wakes, p.wakes), idle, p.settle)
	if err != nil {
		return nil, err
	}
	return append(out, again), nil
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
	time.Sleep(p.settle)
	if idle, _, err = s.memory(); err != nil {
		return nil, 0, err
	}
	h.fleet, err = load.DialFleet(s.addr, p.hosts)
	return h, idle, err
}

// poll is the request that an agent sends for host i: at first for what there
// is, later for what it does not have.
func (h *hosts) poll(i int) []byte {
	b := make([]byte, 0, 512)
	b = append(b, "GET /api/v1/hosts/"...)
	b = append(b, h.names[i]...)
	b = append(b, "/desired?channel="+webChannel+"&target="...)
	b = append(b, h.names[i]...)
	b = append(b, " HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: narwharf\r\nAuthorization: Bearer "...)
	b = append(b, h.token...)
	b = append(b, "\r\n"...)
	if h.etags[i] != "" {
		b = append(b, "If-None-Match: "...)
		b = append(b, h.etags[i]...)
		b = append(b, "\r\nPrefer: wait=300\r\n"...)
	}
	return append(b, "Accept-Encoding: gzip\r\n\r\n"...)
}

// learn takes an answer to a poll, which must be of the given seq.
func (h *hosts) learn(i int, r load.Reply, seq int64) error {
	want := fmt.Sprintf(`{"channel":%q,"seq":%d,"pointer":{`, webChannel, seq)
	if r.Status != 200 || !bytes.HasPrefix(r.Body, []byte(want)) {
		return fmt.Errorf("%s was told %d %.300s, want %s…", h.names[i], r.Status, r.Body, want)
	}
	if h.etags[i] = string(r.Field("etag")); h.etags[i] == "" {
		return fmt.Errorf("%s was told no ETag", h.names[i])
	}
	return nil
}

// park lets each host ask what there is, and then wait for another answer.
func (h *hosts) park() error {
	for i := range h.names {
		if err := h.fleet.Send(i, h.poll(i)); err != nil {
			return err
		}
	}
	err := h.fleet.Collect(hostLimit, func(i int, r load.Reply) ([]byte, error) { return nil, h.learn(i, r, h.promoter.seq) })
	if err != nil {
		return err
	}
	return h.wait()
}

// wait lets each host wait for another answer, and returns once the server
// says that they do.
func (h *hosts) wait() error {
	for i := range h.names {
		if err := h.fleet.Send(i, h.poll(i)); err != nil {
			return err
		}
	}
	// The server is asked only when it is silent: with this many hosts its
	// answer is long.
	for end := time.Now().Add(hostLimit); ; {
		if err := h.quiet(); err != nil {
			return err
		}
		m, err := h.metrics()
		if err != nil {
			return err
		}
		if parked := int(m["narwharf_polls_parked"]); parked == len(h.names) {
			return nil
		} else if time.Now().After(end) {
			return fmt.Errorf("%d of %d hosts are parked after %s", parked, len(h.names), hostLimit)
		}
	}
}

// quiet waits until the server has used no CPU for a while.
func (h *hosts) quiet() error {
	last := time.Duration(-1)
	for end := time.Now().Add(hostLimit); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		now, err := h.server.cpu()
		if err != nil {
			return err
		}
		if now-last <= time.Second/userHz {
			return nil
		}
		last = now
	}
	return errors.New("the server does not come to rest")
}

// metrics reads the numbers without labels of /metrics.
func (h *hosts) metrics() (map[string]float64, error) {
	c, err := dial(h.server.addr, h.server.token)
	if err != nil {
		return nil, err
	}
	defer c.close()
	text, err := c.get("/metrics")
	if err != nil {
		return nil, err
	}
	out := make(map[string]float64)
	for line := range bytes.Lines(text) {
		name, number, ok := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		if v, err := strconv.ParseFloat(string(number), 64); ok && err == nil && !bytes.Contains(name, []byte("{")) {
			out[string(name)] = v
		}
	}
	return out, nil
}

// memoryRow measures how much memory the server has over idle for each host.
// The server gets some time before, in which nothing is asked of it.
func (h *hosts) memoryRow(what string, idle int64, settle time.Duration) (row, int64, error) {
	time.Sleep(settle)
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
	if bytes.Contains([]byte(what), []byte("%d")) {
		r.what = fmt.Sprintf(what, n)
	}
	r.remark = fmt.Sprintf("idle %s, now %s; heap in use %s, stacks %s, objects %s KiB each", mib(idle), mib(now),
		kib(m["go_memstats_heap_inuse_bytes"]), kib(m["go_memstats_stack_inuse_bytes"]), kib(m["go_memstats_heap_alloc_bytes"]))
	progress("%s: %s (%s)", r.what, r.values[0], r.remark)
	return r, each, nil
}

// promote sends a release and waits until all parked hosts have it; with
// report, until all have reported that they run it. Then they wait again.
func (h *hosts) promote(targets []string, report bool) (wake, error) {
	release, err := h.promoter.next(targets)
	if err != nil {
		return wake{}, err
	}
	h.counter++
	var w wake
	cpu, err := h.server.cpu()
	if err != nil {
		return wake{}, err
	}
	own := ownCPU()
	answered := make(chan error, 1)
	began := time.Now()
	go func() {
		var err error
		w.promoted, err = h.promoter.send(release)
		answered <- err
	}()
	err = h.fleet.Collect(hostLimit, func(i int, r load.Reply) ([]byte, error) {
		if r.Status == 204 && report {
			w.reported = append(w.reported, r.At.Sub(began))
			return nil, nil
		}
		if err := h.learn(i, r, release.seq); err != nil {
			return nil, err
		}
		w.woken = append(w.woken, r.At.Sub(began))
		if !report {
			return nil, nil
		}
		return h.report(i, release, r.Body)
	})
	// The promote's own error says more than that nobody woke.
	if err := errors.Join(<-answered, err); err != nil {
		return wake{}, err
	}
	w.own = ownCPU() - own
	if err := h.quiet(); err != nil {
		return wake{}, err
	}
	now, err := h.server.cpu()
	if err != nil {
		return wake{}, err
	}
	w.cpu = now - cpu
	slices.Sort(w.woken)
	slices.Sort(w.reported)
	return w, h.wait()
}

// report is the request by which host i says that it runs a release: what the
// agent says after an attempt that went well.
func (h *hosts) report(i int, p *promotion, desired []byte) ([]byte, error) {
	var d struct {
		Pointer json.RawMessage `json:"pointer"`
	}
	if err := json.Unmarshal(desired, &d); err != nil {
		return nil, err
	}
	st := struct {
		api.Status
		Head json.RawMessage `json:"head"`
	}{Head: d.Pointer}
	attempt := fmt.Sprintf("%s-%d", h.names[i], p.seq)
	st.Status = api.Status{
		Agent: "bench", StartID: 1, Counter: h.counter, Channel: webChannel, Target: h.names[i], System: "x86_64-linux",
		BootID: "0b1c2d3e-4f50-4162-8374-95a6b7c8d9e0", State: api.OK, Seq: p.seq, Attempt: attempt, Action: string(signing.Auto),
		Wanted: p.system, Current: p.system, Booted: p.system, Profile: p.system, Confirmed: p.system, HighestSeq: p.seq,
		Durations: map[string]int64{"stage": 812, "activate": 2210, "probation": 10_004, "commit": 97, "total": 13_123},
		Transitions: []api.Transition{
			{State: api.Verifying, After: 1}, {State: api.Staging, After: 4}, {State: api.Activating, After: 816},
			{State: api.Probation, After: 3026}, {State: api.Committing, After: 13_030}, {State: api.OK, After: 13_123},
		},
		CurrentGeneration: p.seq, BootGeneration: p.seq,
	}
	body, err := json.Marshal(st)
	if err != nil {
		return nil, err
	}
	head := fmt.Sprintf("PUT /api/v1/hosts/%s/status HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: narwharf\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		h.names[i], h.token, len(body))
	return append([]byte(head), body...), nil
}

// wakeRow is the median over the wakes of when the last host was told.
func (h *hosts) wakeRow(what string, wakes []wake) row {
	last := medianOf(wakes, func(w wake) time.Duration { return at(w.woken, 100) })
	r := row{
		what:   fmt.Sprintf("%s of %d parked hosts: promote to the last one's answer", what, len(h.names)),
		values: [2]string{ms(last)}, goal: "< 1 s", missed: last >= maxWake,
	}
	r.remark = fmt.Sprintf("p50 %s, p99 %s, promoter's own answer %s",
		ms(medianOf(wakes, func(w wake) time.Duration { return at(w.woken, 50) })),
		ms(medianOf(wakes, func(w wake) time.Duration { return at(w.woken, 99) })),
		ms(medianOf(wakes, func(w wake) time.Duration { return w.promoted })))
	r.cpus[0] = ms(medianOf(wakes, func(w wake) time.Duration { return w.cpu }))
	return r
}

// reportRow is the median over the wakes of when the last report was
// acknowledged.
func (h *hosts) reportRow(wakes []wake) row {
	last := medianOf(wakes, func(w wake) time.Duration { return at(w.reported, 100) })
	r := row{
		what:   fmt.Sprintf("… and each of %d hosts reports at once: promote to the last report acknowledged", len(h.names)),
		values: [2]string{ms(last)},
	}
	r.remark = fmt.Sprintf("p50 %s, last one woken %s; %.0f reports/s",
		ms(medianOf(wakes, func(w wake) time.Duration { return at(w.reported, 50) })),
		ms(medianOf(wakes, func(w wake) time.Duration { return at(w.woken, 100) })),
		float64(len(h.names))/last.Seconds())
	r.cpus[0] = ms(medianOf(wakes, func(w wake) time.Duration { return w.cpu }))
	return r
}

func medianOf(wakes []wake, number func(wake) time.Duration) time.Duration {
	values := make([]time.Duration, len(wakes))
	for i, w := range wakes {
		values[i] = number(w)
	}
	return median(values)
}

func at(sorted []time.Duration, p float64) time.Duration { return load.Percentile(sorted, p) }

func ms(d time.Duration) string { return fmt.Sprintf("%.0f ms", float64(d)/1e6) }
