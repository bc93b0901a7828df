package follow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/rollouts"
	"narwharf/hooks/rollout"
)

// script answers each request with the next of some answers: a Summary, or an error.
func script(t *testing.T, answers map[string][]any) rollouts.Client {
	t.Helper()
	at := make(map[string]int)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		list := answers[strings.TrimPrefix(r.URL.Path, "/api/v1/rollouts/")]
		n := min(at[r.URL.Path], len(list)-1)
		at[r.URL.Path]++
		var body any = api.Errorf(api.NotFound, "there is none")
		if n >= 0 {
			body = list[n]
		}
		if e, ok := body.(*api.Error); ok {
			w.WriteHeader(e.Status)
		}
		w.Header().Set("Etag", fmt.Sprintf(`"%d"`, n))
		text, err := json.Marshal(body)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(text)
	}))
	t.Cleanup(s.Close)
	c, err := api.NewClient(api.ClientOptions{Servers: []string{s.URL}})
	if err != nil {
		t.Fatal(err)
	}
	return rollouts.Client{Client: c}
}

func in(state rollout.State, change func(*rollout.Summary)) *rollout.Summary {
	s := &rollout.Summary{Channel: "web", Seq: 2, State: state, Total: 3, Waves: []rollout.WaveSummary{}}
	if change != nil {
		change(s)
	}
	return s
}

func TestRun(t *testing.T) {
	halted := func(s *rollout.Summary) { s.Why = "too many errors" }
	for name, c := range map[string]struct {
		answers map[string][]any
		through bool
		want    rollout.State
		seen    int
		err     error
	}{
		"it completes":        {map[string][]any{"web/2": {in(rollout.Planned, nil), in(rollout.Running, nil), in(rollout.Completed, nil)}}, false, rollout.Completed, 3, nil},
		"it halts":            {map[string][]any{"web/2": {in(rollout.Running, nil), in(rollout.Halted, halted), in(rollout.Completed, nil)}}, false, rollout.Halted, 2, nil},
		"through a halt":      {map[string][]any{"web/2": {in(rollout.Halted, halted), in(rollout.Aborting, nil), in(rollout.Aborted, nil)}}, true, rollout.Aborted, 3, nil},
		"none":                {nil, false, "", 0, ErrNone},
		"none, but of others": {map[string][]any{"web": {in(rollout.Running, func(s *rollout.Summary) { s.Seq = 1 })}}, false, "", 0, ErrNone},
		"queued, then its turn": {map[string][]any{
			"web":   {in(rollout.Running, func(s *rollout.Summary) { s.Seq, s.Queued = 1, 2 })},
			"web/2": {api.Errorf(api.NotFound, "not yet"), api.Errorf(api.NotFound, "not yet"), in(rollout.Completed, nil)},
		}, false, rollout.Completed, 3, nil},
		"queued, and another came": {map[string][]any{
			"web": {in(rollout.Running, func(s *rollout.Summary) { s.Seq, s.Queued = 1, 2 }), in(rollout.Running, func(s *rollout.Summary) { s.Seq, s.Queued = 1, 3 })},
		}, false, rollout.Superseded, 2, nil},
		"may not look": {map[string][]any{"web/2": {api.Errorf(api.Forbidden, "no")}}, false, "", 0, api.Errorf(api.Forbidden, "no")},
	} {
		seen := 0
		s, err := Run(t.Context(), Options{Client: script(t, c.answers), Channel: "web", Seq: 2, Through: c.through, See: func(*rollout.Summary) { seen++ }})
		if seen != c.seen || (err == nil) != (c.err == nil) || errors.Is(c.err, ErrNone) != errors.Is(err, ErrNone) || c.want != "" && (s == nil || s.State != c.want) {
			t.Errorf("%s: %+v, %v, seen %d times", name, s, err, seen)
		}
	}
}

// A server that is away for a while is asked again, and the end of the time is said.
func TestLost(t *testing.T) {
	lost := 0
	c := script(t, map[string][]any{"web/2": {in(rollout.Running, nil), api.Errorf(api.Unavailable, "restarting"), in(rollout.Completed, nil)}})
	s, err := Run(t.Context(), Options{Client: c, Channel: "web", Seq: 2, Lost: func(error) { lost++ }})
	if err != nil || s.State != rollout.Completed || lost != 1 {
		t.Errorf("%+v, %v, lost %d times", s, err, lost)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	s, err = Run(ctx, Options{Client: script(t, map[string][]any{"web/2": {in(rollout.Running, nil)}}), Channel: "web", Seq: 2})
	if !errors.Is(err, context.DeadlineExceeded) || s == nil || s.State != rollout.Running {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestLine(t *testing.T) {
	s := in(rollout.Running, func(s *rollout.Summary) {
		s.Total, s.Well, s.InFlight, s.Bad, s.Offline, s.Armed = 12, 6, 1, 1, 2, 1
		s.Waits = map[api.WaitKind]int{api.WaitWindow: 1, api.WaitOffline: 2, api.WaitHold: 1}
		s.Faults = []rollout.HostLine{{Host: "web-3", Fault: rollout.Reverted}}
		s.Why = "op: lunch"
	})
	want := "6 of 12 hosts run it; 1 armed, and run it from their next reboot on; 1 on their way; 1 ended badly: web-3 reverted; waiting: 1 hold, 1 window; 2 offline (op: lunch)"
	if got := Line(s); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if got := Line(in(rollout.Completed, func(s *rollout.Summary) { s.Total = 0 })); got != "no host had to change" {
		t.Error(got)
	}
}

// Each thing is said once.
func TestNews(t *testing.T) {
	var n News
	one := in(rollout.Running, func(s *rollout.Summary) {
		s.Waves = []rollout.WaveSummary{{Name: "canary", State: rollout.WaveOpen, Size: 1, Open: 1}, {Name: "rest", State: rollout.WaveAhead}}
		s.Flight = []rollout.HostLine{{Host: "web-1", Phase: "begun"}}
	})
	if got := strings.Join(n.Of(one), " | "); got != "running | canary: open, 0 of 1 well, 1 to go | web-1: begun" {
		t.Error(got)
	}
	if again := n.Of(one); len(again) > 0 {
		t.Errorf("it says twice %q", again)
	}
	two := in(rollout.Halted, func(s *rollout.Summary) {
		s.Why = "too many errors"
		s.Waves = []rollout.WaveSummary{{Name: "canary", State: rollout.WaveOpen, Size: 1, Bad: 1}, {Name: "rest", State: rollout.WaveAhead}}
		s.Faults = []rollout.HostLine{{Host: "web-1", Phase: "bad", Fault: rollout.Reverted}}
	})
	if got := strings.Join(n.Of(two), " | "); got != "halted: too many errors | canary: open, 0 of 1 well, 1 bad | web-1: reverted" {
		t.Error(got)
	}
}
