//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
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
	out := []row{memory, polls}

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
	time.Sleep(2 * time.Second)
	if idle, _, err = s.memory(); err != nil {
		return nil, 0, err
	}
	h.fleet, err = load.NewFleet(s.addr)
	return h, idle, err
}

// poll is the request that an agent sends for host i: at first for what there
// is, later for what it does not have, which may take wait seconds.
func (h *hosts) poll(i, wait int) []byte {
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
		b = append(b, "\r\nPrefer: wait="...)
		b = strconv.AppendInt(b, int64(wait), 10)
		b = append(b, "\r\n"...)
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

// arrive lets the hosts come one after the other within a time, as they do
// after the server was started anew: it told them to wait for 1 to 5 s. Each
// asks what there is, and then waits for another answer.
func (h *hosts) arrive(within time.Duration) error {
	const steps = 100
	answers := 0
	got := func(i int, r load.Reply) ([]byte, error) {
		answers++
		err := h.learn(i, r, h.promoter.seq)
		return h.poll(i, agentWait()), err
	}
	for step := range steps {
		for len(h.names)*(step+1)/steps > h.fleet.Len() {
			if err := h.fleet.Join(h.poll(h.fleet.Len(), 0)); err != nil {
				return err
			}
		}
		if err := h.fleet.Collect(within/steps, nil, got); err != nil {
			return err
		}
	}
	if err := h.fleet.Collect(hostLimit, func() bool { return answers == len(h.names) }, got); err != nil {
		return err
	}
	return h.parked()
}

// agentWait is for how long an agent parks, in seconds.
func agentWait() int { return 40 + rand.IntN(11) }

// attend lets the hosts poll as they do when nothing happens, and measures
// what a poll costs that is answered after its time.
func (h *hosts) attend(d time.Duration) (row, error) {
	before, err := h.server.cpu()
	if err != nil {
		return row{}, err
	}
	polls := 0
	err = h.fleet.Collect(d, nil, func(i int, r load.Reply) ([]byte, error) {
		if polls++; r.Status != 304 {
			return nil, fmt.Errorf("%s was told %d, when nothing had changed: %.300s", h.names[i], r.Status, r.Body)
		}
		return h.poll(i, agentWait()), nil
	})
	if err != nil {
		return row{}, err
	}
	after, err := h.server.cpu()
	if err != nil {
		return row{}, err
	}
	r := row{what: fmt.Sprintf("… which time out after 40 to 50 s, within %.0f s", d.Seconds()), values: [2]string{fmt.Sprintf("%d polls", polls)}}
	if polls > 0 {
		r.cpus[0] = fmt.Sprintf("%.0f µs each", float64((after-before).Microseconds())/float64(polls))
	}
	return r, nil
}

// park lets each host wait for another answer than its last one.
func (h *hosts) park() error {
	for i := range h.names {
		if err := h.fleet.Send(i, h.poll(i, agentWait())); err != nil {
			return err
		}
	}
	return h.parked()
}

// parked returns once the server says that all hosts wait.
func (h *hosts) parked() error {
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
	done := func() bool { return len(w.woken) == len(h.names) && (!report || len(w.reported) == len(h.names)) }
	err = h.fleet.Collect(hostLimit, done, func(i int, r load.Reply) ([]byte, error) {
		switch {
		case r.Status == 304: // its patience was over just now
			return h.poll(i, agentWait()), nil
		case r.Status == 204 && report:
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
	return w, h.park()
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
