package remote

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/effect"
)

// receiver is a server that takes reports, or answers as it is told to.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	taken  []*api.Status
	refuse []api.Error // the next answers, first one first
	seen   chan struct{}
}

func newReceiver(t *testing.T) (*receiver, *Server) {
	t.Helper()
	r := &receiver{seen: make(chan struct{}, 100)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		defer func() { r.seen <- struct{}{} }()
		if len(r.refuse) > 0 {
			e := r.refuse[0]
			r.refuse = r.refuse[1:]
			w.WriteHeader(e.Status)
			_ = json.NewEncoder(w).Encode(e)
			return
		}
		s := new(api.Status)
		if err := json.NewDecoder(req.Body).Decode(s); err != nil {
			t.Error(err)
		}
		r.taken = append(r.taken, s)
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(r.Close)
	client, err := api.NewClient(api.ClientOptions{Servers: []string{r.URL}})
	if err != nil {
		t.Fatal(err)
	}
	return r, New(Options{Client: client, Host: "h1", Channel: "prod", Target: "h1", Log: slog.New(slog.DiscardHandler)})
}

func (r *receiver) await(t *testing.T) {
	t.Helper()
	select {
	case <-r.seen:
	case <-time.After(10 * time.Second):
		t.Fatal("no report came")
	}
}

func (r *receiver) last() api.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *r.taken[len(r.taken)-1]
}

// TestReports: a report that the server could not take is sent again until it has it, or a
// newer one; what it took is known.
func TestReports(t *testing.T) {
	r, s := newReceiver(t)
	r.refuse = []api.Error{{Status: 503, Kind: api.Unavailable, Message: "stopping"}}
	s.Report(t.Context(), &api.Status{StartID: 7, Counter: 1})
	r.await(t)
	if s.Delivered() != 0 {
		t.Errorf("%d was not taken", s.Delivered())
	}
	s.Report(t.Context(), &api.Status{StartID: 7, Counter: 2})
	r.await(t)
	if err := s.ReportNow(t.Context(), &api.Status{StartID: 7, Counter: 3}); err != nil {
		t.Fatal(err)
	}
	r.await(t)
	if got := r.last(); got.Counter != 3 || s.Delivered() != 3 {
		t.Errorf("the last is %d, and %d is known to be taken", got.Counter, s.Delivered())
	}
	s.Close(t.Context())
}

// TestLaterStart: a server that knows a later start of the agent – the clock was set back,
// the journal is gone – is told a later one still, also by the agent that confirms.
func TestLaterStart(t *testing.T) {
	r, s := newReceiver(t)
	r.refuse = []api.Error{{Status: 409, Kind: api.StaleStatus, Message: "stale", StartID: 1000}}
	if err := s.ReportNow(t.Context(), &api.Status{StartID: 7, Counter: 1}); err != nil {
		t.Fatal(err)
	}
	if got := r.last(); got.StartID != 1001 || got.Counter != 1 {
		t.Errorf("told (%d, %d)", got.StartID, got.Counter)
	}
	p := s.Confirm(t.Context(), &api.Status{StartID: 7, Counter: 2, Confirm: "nonce"}, func(_ context.Context, status *api.Status) effect.Probed {
		if status.StartID != 1001 || status.Counter != 2 || status.Confirm != "nonce" {
			t.Errorf("the other agent is given %+v", status)
		}
		return effect.Probed{Outcome: effect.ProbeOK, By: "it"}
	})
	if p.By != "it" || s.Delivered() != 2 {
		t.Errorf("%+v, and %d is known to be taken", p, s.Delivered())
	}
	s.Confirm(t.Context(), &api.Status{Counter: 3}, func(context.Context, *api.Status) effect.Probed {
		return effect.Probed{Outcome: effect.ProbeUnreachable}
	})
	if s.Delivered() != 2 {
		t.Error("what nobody took is taken")
	}
	s.Close(t.Context())
}

// TestLastReport: a server that was away is told the newest report when the agent ends.
func TestLastReport(t *testing.T) {
	r, s := newReceiver(t)
	for range 2 {
		r.refuse = append(r.refuse, api.Error{Status: 503, Kind: api.Unavailable, Message: "stopping"})
	}
	s.Report(t.Context(), &api.Status{StartID: 7, Counter: 1})
	r.await(t)
	s.Report(t.Context(), &api.Status{StartID: 7, Counter: 2})
	r.await(t)
	s.Close(t.Context())
	if got := r.last(); got.Counter != 2 {
		t.Errorf("told %d", got.Counter)
	}
}

func TestOutcome(t *testing.T) {
	for _, c := range []struct {
		err  error
		want effect.ProbeOutcome
	}{
		{nil, effect.ProbeOK},
		{&api.Error{Status: 403}, effect.ProbeRefused},
		{&api.Error{Status: 502}, effect.ProbeUnreachable},
		{errors.New("no route"), effect.ProbeUnreachable},
	} {
		if got := Outcome(c.err); got != c.want {
			t.Errorf("%v: %s", c.err, got)
		}
	}
}
