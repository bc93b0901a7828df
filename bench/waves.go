//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"narwharf/bench/load"
	"narwharf/signing"
)

// Policies that are compared: everyone at once without and with the engine, and waves.
const (
	noRollout = `{"windows": []}`
	oneWave   = `{"rollout": {"prefetch": false}}`
	twoWaves  = `{"rollout": {"waves": [{"max": "1%"}, {}], "max_concurrency": "10%"}}`

	maxEngine = 1.1 // of everyone at once, with the engine over without
)

// waveRows measures what the engine of roll-outs adds where everyone goes at once, and a
// release that goes out in waves.
func waveRows(p plan, dir string, start func(string) (*server, error)) ([]row, error) {
	h, idle, err := gather(p, dir, start)
	if err != nil {
		return nil, err
	}
	defer func() { h.server.stop() }()
	defer h.fleet.Close()
	if err := h.arrive(p.arrival); err != nil {
		return nil, err
	}
	if _, err := h.goesOut(noRollout); err != nil { // each reports for the first time
		return nil, err
	}
	var with, without, cpu, cpuWithout []float64
	for i := range 2 * p.wakes {
		engine := i%4 == 1 || i%4 == 2 // neither is always the first
		policy := noRollout
		if engine {
			policy = oneWave
		}
		out, err := h.goesOut(policy)
		if err != nil {
			return nil, fmt.Errorf("everyone at once: %w", err)
		}
		progress("everyone at once, by the engine %v: all of %d reported after %s; CPU %s", engine, len(h.names), ms(out.took), ms(out.cpu))
		if engine {
			with, cpu = append(with, out.took.Seconds()), append(cpu, out.cpu.Seconds())
		} else {
			without, cpuWithout = append(without, out.took.Seconds()), append(cpuWithout, out.cpu.Seconds())
		}
	}
	one := h.onceRow(with, without, cpu, cpuWithout)
	memory, _, err := h.memoryRow(fmt.Sprintf("… memory for each of %d hosts with the engine's", len(h.names)), idle)
	if err != nil {
		return nil, err
	}
	memory.goal, memory.missed = "", false
	two, err := h.twoWavesRow()
	if err != nil {
		return nil, err
	}
	waiting, err := h.waitingRow(p)
	if err != nil {
		return nil, err
	}
	return []row{one, memory, two, waiting}, nil
}

// onceRow is what the engine adds where everyone goes at once, in seconds and of CPU.
func (h *hosts) onceRow(with, without, cpu, cpuWithout []float64) row {
	adds := pairs(with, without)
	one := row{
		what:   fmt.Sprintf("everyone of %d hosts at once by the engine of roll-outs: promote to the last report acknowledged", len(h.names)),
		values: [2]string{fmt.Sprintf("%.0f ms", 1000*median(with))},
		remark: fmt.Sprintf("%.2f × (%.2f to %.2f) of the same without a policy, CPU %.2f ×", adds.median, adds.low, adds.high, pairs(cpu, cpuWithout).median),
		goal:   "≤ 1.10 × without", missed: adds.median > maxEngine,
	}
	one.cpus[0] = fmt.Sprintf("%.0f ms", 1000*median(cpu))
	return one
}

// twoWavesRow is a release that goes out in waves.
func (h *hosts) twoWavesRow() (row, error) {
	out, err := h.goesOut(twoWaves)
	if err != nil {
		return row{}, fmt.Errorf("waves: %w", err)
	}
	n := float64(len(h.names))
	two := row{
		what:   fmt.Sprintf("%d hosts in two waves, a tenth at a time, each reports twice: promote to the last report acknowledged", len(h.names)),
		values: [2]string{fmt.Sprintf("%.0f ms", 1000*out.took.Seconds())},
		remark: fmt.Sprintf("%.0f grants/s; %.0f µs of CPU a host", n/out.took.Seconds(), 1e6*out.cpu.Seconds()/n),
	}
	two.cpus[0] = ms(out.cpu)
	progress("%s: %s (%s)", two.what, two.values[0], two.remark)
	return two, nil
}

// outing is a release that went out to all hosts.
type outing struct{ took, cpu time.Duration }

// goesOut sets a policy, promotes, and has each host do what it is told until all have
// reported that they run the release. Then all are parked again.
func (h *hosts) goesOut(policy string) (out outing, err error) {
	if err := h.policy(policy); err != nil {
		return out, err
	}
	if err := h.calm(); err != nil { // who is told something else by it
		return out, err
	}
	was := h.promoter.systems[h.promoter.seq%2].StorePath
	release, err := h.promoter.next([]string{signing.Everyone})
	if err != nil {
		return out, err
	}
	h.counter += 2
	counter := h.counter
	staged, ok, done := make([]bool, len(h.names)), make([]bool, len(h.names)), 0
	before, err := h.server.cpu()
	if err != nil {
		return out, err
	}
	answered := make(chan error, 1)
	began := time.Now()
	go func() {
		_, err := h.promoter.send(release)
		answered <- err
	}()
	err = h.fleet.Collect(hostLimit, func() bool { return done == len(h.names) }, func(i int, r load.Reply) ([]byte, error) {
		if r.Status == http.StatusNoContent {
			if ok[i] {
				done++
			}
			return h.poll(i, agentWait()), nil
		}
		seq, err := h.hears(i, r)
		switch {
		case err != nil:
			return nil, err
		case seq != release.seq || ok[i]:
		case bytes.Contains(r.Body, []byte(`"grant":{`)):
			ok[i], h.counter = true, counter
			return h.report(i, release, r.Body)
		case !staged[i]:
			staged[i], h.counter = true, counter-1
			return h.staged(i, release, was)
		}
		return h.poll(i, agentWait()), nil
	})
	h.counter = counter
	if err == nil {
		err = <-answered
	}
	if err != nil {
		return out, err
	}
	out.took = time.Since(began)
	after, err := h.server.cpu()
	if err != nil {
		return out, err
	}
	out.cpu = after - before
	return out, h.calm()
}

// hears takes an answer to a poll, and tells of which release it is; 0 for no news.
func (h *hosts) hears(i int, r load.Reply) (seq int64, err error) {
	if r.Status == http.StatusNotModified {
		return 0, nil
	}
	_, rest, found := bytes.Cut(r.Body, []byte(`"seq":`))
	number, _, _ := bytes.Cut(rest, []byte(","))
	if seq, err = strconv.ParseInt(string(number), 10, 64); r.Status != http.StatusOK || !found || err != nil {
		return 0, fmt.Errorf("%s was told %d %.300s", h.names[i], r.Status, r.Body)
	}
	h.etags[i] = string(r.Field("etag"))
	return seq, nil
}

// calm has hosts poll until none is told anything for a second, and all are parked.
func (h *hosts) calm() error {
	for news := 1; news > 0; {
		news = 0
		err := h.fleet.Collect(time.Second, nil, func(i int, r load.Reply) ([]byte, error) {
			seq, err := h.hears(i, r)
			if seq > 0 {
				news++
			}
			return h.poll(i, agentWait()), err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
