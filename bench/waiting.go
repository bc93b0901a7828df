//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"narwharf/bench/load"
	"narwharf/hooks/api"
	"narwharf/signing"
)

// lookAgain is for how long agents of before park that have staged a release and wait for
// leave to begin with it, in seconds.
const lookAgain = 15

// waitingRow is what hosts cost that have staged a release and are not let begin: all but
// the one of a first wave that bakes.
func (h *hosts) waitingRow(p plan) (row, error) {
	if err := h.policy(`{"rollout": {"waves": [{"max": 1, "bake": "30d"}, {}]}}`); err != nil {
		return row{}, err
	}
	// The server reads what it has of the hosts; builds of before told who asked meanwhile to ask again.
	settle := func(i int, r load.Reply) ([]byte, error) {
		if r.Status == http.StatusOK {
			return h.poll(i, lookAgain), h.learn(i, r, h.promoter.seq)
		}
		return h.poll(i, lookAgain), nil
	}
	if err := h.fleet.Collect(3*time.Second, nil, settle); err != nil {
		return row{}, err
	}
	granted := make(grants)
	seq, err := h.allStage(granted)
	if err != nil {
		return row{}, fmt.Errorf("hosts that wait for leave: %w", err)
	}
	polls, woken := 0, 0
	again := func(i int, r load.Reply) ([]byte, error) {
		if polls++; r.Status != http.StatusNotModified {
			woken++
			if err := errors.Join(h.learn(i, r, seq), granted.note(h.names[i], r.Body)); err != nil {
				return nil, err
			}
		}
		return h.poll(i, lookAgain), nil
	}
	if err := h.fleet.Collect(2*time.Second, nil, again); err != nil { // who was granted hears of it
		return row{}, err
	}
	polls, woken = 0, 0
	before, err := h.server.cpu()
	if err == nil {
		err = h.fleet.Collect(p.waiting, nil, again)
	}
	if err != nil {
		return row{}, err
	}
	after, err := h.server.cpu()
	if err != nil {
		return row{}, err
	}
	r := row{what: fmt.Sprintf("%d hosts of before that wait for leave, and ask again every %d s", len(h.names), lookAgain)}
	r.values[0] = fmt.Sprintf("%.0f polls/s", float64(polls)/p.waiting.Seconds())
	if len(granted) != 1 {
		return row{}, fmt.Errorf("of a wave of one host %d were granted: %v", len(granted), granted)
	}
	r.remark = fmt.Sprintf("%.1f %% of a core; %d were told something; the one of the wave was granted, once", 100*(after-before).Seconds()/p.waiting.Seconds(), woken)
	r.cpus[0] = fmt.Sprintf("%.0f µs each", float64((after-before).Microseconds())/float64(max(polls, 1)))
	progress("%s: %s (%s, %s)", r.what, r.values[0], r.remark, r.cpus[0])
	return r, nil
}

// allStage promotes a release, and returns its seq once each host has reported that it has it.
func (h *hosts) allStage(granted grants) (seq int64, err error) {
	was := h.promoter.systems[h.promoter.seq%2].StorePath
	release, err := h.promoter.next([]string{signing.Everyone})
	if err != nil {
		return 0, err
	}
	h.counter++
	answered := make(chan error, 1)
	go func() {
		_, err := h.promoter.send(release)
		answered <- err
	}()
	staged, sent := 0, make([]bool, len(h.names))
	err = h.fleet.Collect(hostLimit, func() bool { return staged == len(h.names) }, func(i int, r load.Reply) ([]byte, error) {
		switch {
		case r.Status == http.StatusNoContent:
			staged++
			return h.poll(i, lookAgain), nil
		case r.Status == http.StatusNotModified, r.Status == http.StatusServiceUnavailable:
			return h.poll(i, lookAgain), nil
		}
		if err := errors.Join(h.learn(i, r, release.seq), granted.note(h.names[i], r.Body)); err != nil {
			return nil, err
		}
		if sent[i] { // its answer is another now
			return h.poll(i, lookAgain), nil
		}
		sent[i] = true
		return h.staged(i, release, was)
	})
	if err == nil {
		err = <-answered
	}
	return release.seq, err
}

// grants are the IDs of those that hosts were given, by host.
type grants map[string]string

// note takes what a host was told. One that is given another grant than before was granted twice.
func (g grants) note(host string, body []byte) error {
	var d api.Desired
	if err := json.Unmarshal(body, &d); err != nil || d.Grant == nil {
		return err
	}
	if was := g[host]; was != "" && was != d.Grant.ID {
		return fmt.Errorf("%s was granted %s and then %s", host, was, d.Grant.ID)
	}
	g[host] = d.Grant.ID
	return nil
}

// policy sets that of the channel.
func (h *hosts) policy(text string) error {
	if h.operator == "" {
		token, err := h.server.newToken("operator", "operate")
		if err != nil {
			return err
		}
		h.operator = token
	}
	req, err := http.NewRequest(http.MethodPut, "http://"+h.server.addr+"/api/v1/channels/"+webChannel+"/policy", bytes.NewReader([]byte(text)))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+h.operator)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the policy: %s %s, %w", resp.Status, body, err)
	}
	return nil
}

// staged is the request by which host i says that it has staged a release and runs another.
func (h *hosts) staged(i int, p *promotion, runs string) ([]byte, error) {
	return h.status(i, &api.Status{
		State: api.Staged, Seq: p.seq, Attempt: fmt.Sprintf("%s-%d", h.names[i], p.seq), Action: string(signing.Auto), Wanted: p.system,
		Current: runs, Booted: runs, Profile: runs, Confirmed: runs, HighestSeq: p.seq, WaitingFor: &api.Waiting{Kind: api.WaitWave},
		CurrentGeneration: p.seq - 1, BootGeneration: p.seq - 1,
	}, nil)
}

// status is the request by which host i reports. head is that of the release, if it is told.
func (h *hosts) status(i int, is *api.Status, head json.RawMessage) ([]byte, error) {
	is.Agent, is.StartID, is.Counter, is.Channel, is.Target, is.System = "bench", 1, h.counter, webChannel, h.names[i], "x86_64-linux"
	is.BootID = "0b1c2d3e-4f50-4162-8374-95a6b7c8d9e0"
	body, err := json.Marshal(struct {
		*api.Status
		Head json.RawMessage `json:"head,omitempty"`
	}{is, head})
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf("PUT /api/v1/hosts/%s/status HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: narwharf\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		h.names[i], h.token, len(body))
	return append([]byte(text), body...), nil
}
