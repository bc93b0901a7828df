//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"narwharf/bench/load"
	"narwharf/hooks/api"
	"narwharf/signing"
)

// A wake is what happened after one promote.
type wake struct {
	woken    []time.Duration // after the PUT was sent, sorted
	reported []time.Duration // the same of statuses that were acknowledged
	promoted time.Duration   // until the promoter had its answer
	cpu, own time.Duration   // of the server and of the load generator
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
	return h.status(i, &api.Status{
		State: api.OK, Seq: p.seq, Attempt: fmt.Sprintf("%s-%d", h.names[i], p.seq), Action: string(signing.Auto),
		Wanted: p.system, Current: p.system, Booted: p.system, Profile: p.system, Confirmed: p.system, HighestSeq: p.seq,
		Durations: map[string]int64{"stage": 812, "activate": 2210, "probation": 10_004, "commit": 97, "total": 13_123},
		Transitions: []api.Transition{
			{State: api.Verifying, After: 1}, {State: api.Staging, After: 4}, {State: api.Activating, After: 816},
			{State: api.Probation, After: 3026}, {State: api.Committing, After: 13_030}, {State: api.OK, After: 13_123},
		},
		CurrentGeneration: p.seq, BootGeneration: p.seq,
	}, d.Pointer)
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
