//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"narwharf/hooks/api"
	"narwharf/signing"
)

// writer is one kind of client that writes, and how many of it there are.
type writer struct {
	kind string
	n    int
	most int // turns of each; 0: no end
	one  func(ctx context.Context, url string, client, turn int) error
	done atomic.Int64
}

// busyRow is 32 clients that report, join, take and give back reboot slots, and promote, at both servers by turns.
func busyRow(p plan, c *cluster, systems *promoter) (row, error) {
	token, err := c.a.newToken("busy", "follow:"+webChannel)
	if err != nil {
		return row{}, err
	}
	joins := make([]string, 7)
	for i := range joins {
		if joins[i], err = c.joinToken(); err != nil {
			return row{}, err
		}
	}
	reboots, err := c.a.newToken("reboots", "reboot:bench")
	if err != nil {
		return row{}, err
	}
	promoter := &promoter{key: systems.key, systems: systems.systems}
	if promoter.token, err = c.a.newToken("others", "promote:others"); err != nil {
		return row{}, err
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: time.Minute}
	send := func(ctx context.Context, method, url, token string, body any, header ...string) error {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(text))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if answer, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode >= 300 {
			return errors.Join(fmt.Errorf("%s %s: %s %.300s", method, url, resp.Status, answer), err)
		}
		return nil
	}
	var late atomic.Int64
	writers := []*writer{
		{kind: "reports", n: 20, one: func(ctx context.Context, url string, client, turn int) error {
			name := fmt.Sprintf("busy-%d", client)
			return send(ctx, http.MethodPut, url+"/api/v1/hosts/"+name+"/status", token, &api.Status{Agent: "bench", StartID: 1, Counter: int64(turn + 1), Channel: webChannel,
				Target: name, System: "x86_64-linux", BootID: "0b1c2d3e-4f50-4162-8374-95a6b7c8d9e0", State: api.Idle})
		}},
		{kind: "joins", n: len(joins), most: 1000, one: func(ctx context.Context, url string, client, turn int) error {
			return send(ctx, http.MethodPost, url+"/api/v1/join?channel="+webChannel, joins[client], &api.Join{Host: fmt.Sprintf("new-%d-%d", client, turn), Channel: webChannel, Instance: fmt.Sprintf("%032x", client<<20+turn)})
		}},
		{kind: "slots", n: 4, one: func(ctx context.Context, url string, client, turn int) error {
			what := []string{"pre-reboot", "steady-state"}[turn/2%2]
			return send(ctx, http.MethodPost, url+"/fleetlock/v1/"+what, reboots,
				map[string]any{"client_params": map[string]string{"id": fmt.Sprintf("m%d", client), "group": "bench"}}, "Fleet-Lock-Protocol", "true")
		}},
		{kind: "promotes", n: 1, one: func(ctx context.Context, url string, _, _ int) error {
			r, err := promoter.nextOf("others", []string{signing.Everyone})
			if err != nil {
				return err
			}
			for { // a server that has not heard of the last one yet says that somebody else promoted
				err := send(ctx, http.MethodPut, url+"/api/v1/channels/others", promoter.token, json.RawMessage(r.body), "If-Match", fmt.Sprintf(`"%d"`, r.seq-1))
				if err == nil || !strings.Contains(err.Error(), "race_lost") {
					return err
				}
				late.Add(1)
			}
		}},
	}
	r, err := c.busy(p, writers)
	r.remark += fmt.Sprintf(", %d promotes tried again since the other server had not heard of the last", late.Load())
	return r, err
}

// busy lets the writers write for a while.
func (c *cluster) busy(p plan, writers []*writer) (row, error) {
	const undone = "select (xact_rollback + deadlocks)::float8 from pg_stat_database where datname = current_database()"
	before, err := c.db.Number(c.name, undone)
	if err != nil {
		return row{}, err
	}
	ctx, end := context.WithTimeout(context.Background(), p.busy)
	defer end()
	var all sync.WaitGroup
	var failed atomic.Pointer[error]
	urls := []string{"http://" + c.a.addr, "http://" + c.b.addr}
	for _, w := range writers {
		for i := range w.n {
			all.Go(func() {
				for turn := 0; ctx.Err() == nil && failed.Load() == nil && (w.most == 0 || turn < w.most); turn++ {
					if err := w.one(ctx, urls[turn%2], i, turn); err != nil {
						if ctx.Err() == nil {
							failed.Store(&err)
						}
						return
					}
					w.done.Add(1)
				}
			})
		}
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return row{}, *err
	}
	after, err := c.db.Number(c.name, undone)
	if err != nil {
		return row{}, err
	}
	total, words := int64(0), ""
	for _, w := range writers {
		total += w.done.Load()
		words += fmt.Sprintf("%.0f %s/s, ", float64(w.done.Load())/p.busy.Seconds(), w.kind)
	}
	r := row{
		what:   "… 32 clients that report, join, take slots and promote, at both by turns, writes/s",
		values: [2]string{fmt.Sprintf("%.0f", float64(total)/p.busy.Seconds())},
		remark: words + fmt.Sprintf("%.0f of %d transactions undone", after-before, total),
	}
	progress("%s: %s (%s)", r.what, r.values[0], r.remark)
	return r, nil
}

// bloatRow is what the table of the state takes after all that was written.
func (c *cluster) bloatRow() (row, error) {
	var numbers [4]float64
	for i, sql := range []string{
		"select pg_total_relation_size('narwharf_state')::float8",
		"select coalesce(sum(length(bucket) + length(key) + length(value)), 0)::float8 from narwharf_state",
		"select coalesce(n_tup_upd + n_tup_ins + n_tup_del, 0)::float8 from pg_stat_user_tables where relname = 'narwharf_state'",
		"select coalesce(n_tup_hot_upd, 0)::float8 from pg_stat_user_tables where relname = 'narwharf_state'",
	} {
		n, err := c.db.Number(c.name, sql)
		if err != nil {
			return row{}, err
		}
		numbers[i] = n
	}
	r := row{
		what:   fmt.Sprintf("… its table after %.0f changes of rows, with what autovacuum does by default", numbers[2]),
		values: [2]string{mib(int64(numbers[0]))},
		remark: fmt.Sprintf("%.1f × the %s in it; %.0f %% of the changes without an entry of the index", numbers[0]/max(numbers[1], 1), mib(int64(numbers[1])), 100*numbers[3]/max(numbers[2], 1)),
	}
	progress("%s: %s (%s)", r.what, r.values[0], r.remark)
	return r, nil
}
