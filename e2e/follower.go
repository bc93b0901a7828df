package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// A follower is a host as the server sees it: it asks, and reports what a test wants.
type follower struct {
	t       testing.TB
	up      *Uploader
	name    string
	more    map[string]any    // fields of its reports that only this build knows
	states  map[string]string // by store path; "ok" if it is not there
	current string
	counter int
	seq     int64
}

func newFollower(s *Server, token, name, first string) *follower {
	return &follower{t: s.T, up: NewUploader(s.T, s.URL(), token), name: name, current: first, states: map[string]string{}}
}

// today makes it speak as this build's agents do.
func (f *follower) today() *follower {
	f.more = map[string]any{"instance": strings.Repeat("5e", 16), "machine": strings.Repeat("0f", 32), "waiting_for": map[string]any{"kind": "window", "asks": true}}
	return f
}

func (f *follower) report(state string, seq int64, wanted string) {
	f.t.Helper()
	f.counter++
	f.seq = seq
	status := map[string]any{
		"agent": "0", "start_id": 1, "counter": f.counter, "channel": "web", "target": f.name, "system": "x86_64-linux", "boot_id": "b1", "state": state,
		"seq": seq, "attempt": fmt.Sprintf("a%d", seq), "action": "auto", "wanted": wanted, "current": f.current, "booted": f.current, "profile": f.current,
		"highest_seq": seq, "confirmed": f.current, "need_reboot": false, "transitions": []any{}, "current_generation": 1, "boot_generation": 1,
	}
	for k, v := range f.more {
		status[k] = v
	}
	body, err := json.Marshal(status)
	if err != nil {
		f.t.Fatal(err)
	}
	r := f.ask("PUT", "/status", body)
	if r.Status != 204 {
		f.t.Errorf("the report of %s: %v", f.name, r)
	}
}

// ask asks again while the server is away, or begins, as agents do.
func (f *follower) ask(method, path string, body []byte) Reply {
	f.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		r, err := f.up.Try(method, "/api/v1/hosts/"+f.name+path, "application/json", body)
		if err == nil && r.Status != 503 {
			return r
		}
		if time.Now().After(end) {
			f.t.Errorf("%s of %s: %v, %v", method, f.name, r, err)
			return r
		}
	}
}

// desired is the path and seq that the server wants.
func (f *follower) desired() (path string, seq int64) {
	f.t.Helper()
	query := "channel=web&target=" + f.name
	if id, ok := f.more["instance"].(string); ok {
		query += "&instance=" + id + "&boot=b1"
	}
	r := f.ask("GET", "/desired?"+query, nil)
	if r.Status != 200 {
		f.t.Errorf("%v", r)
		return "", 0
	}
	var d struct {
		Seq     int64
		Pointer *struct{ Entry []byte }
		Grant   *struct{ Seq int64 }
	}
	if err := json.Unmarshal([]byte(r.Body), &d); err != nil {
		f.t.Errorf("%v: %v", r, err)
		return "", 0
	}
	if d.Pointer == nil || d.Grant == nil {
		return "", 0
	}
	var entry struct {
		StorePath string `json:"store_path"`
	}
	if err := json.Unmarshal(d.Pointer.Entry, &entry); err != nil {
		f.t.Errorf("%s: %v", d.Pointer.Entry, err)
	}
	return entry.StorePath, d.Grant.Seq
}

// follow does what the server wants until the test says stop.
func follow(stop <-chan struct{}, hosts ...*follower) *sync.WaitGroup {
	var wg sync.WaitGroup
	for _, f := range hosts {
		wg.Go(func() {
			for {
				if path, seq := f.desired(); seq > f.seq {
					f.report("staging", seq, path)
					state := f.states[path]
					if state == "" {
						state, f.current = "ok", path
					}
					f.report(state, seq, path)
				}
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
	return &wg
}
