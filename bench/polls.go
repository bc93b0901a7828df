//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"narwharf/bench/load"
)

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
		if r.Status == 304 { // the others took longer to come than it waits
			return h.poll(i, agentWait()), nil
		}
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
// what a poll costs that is answered after its time; an empty row if there was
// none.
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
	if polls == 0 { // d was shorter than their patience
		return row{}, nil
	}
	r := row{what: fmt.Sprintf("… which time out after 40 to 50 s, within %.0f s", d.Seconds()), values: [2]string{fmt.Sprintf("%d polls", polls)}}
	r.cpus[0] = fmt.Sprintf("%.0f µs each", float64((after-before).Microseconds())/float64(polls))
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
	c, err := dial(h.server.addr, h.server.admin)
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
