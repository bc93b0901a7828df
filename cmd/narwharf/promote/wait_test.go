package promote

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/promoter"
	"narwharf/hooks/rollout"
)

// server answers with one roll-out, or with none and one host that runs the release.
func server(t *testing.T, s *rollout.Summary) *api.Client {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body any = api.Errorf(api.NotFound, "there is none")
		switch {
		case strings.HasPrefix(r.URL.Path, "/api/v1/hosts"):
			body = map[string]any{"hosts": []api.Host{{Host: "web-1", Online: true, WantedSeq: 2, Wanted: "/nix/store/x", Status: &api.Status{Seq: 2, State: api.OK}}}}
		case s != nil:
			body = s
		}
		if r.Header.Get("If-None-Match") != "" {
			<-r.Context().Done()
			return
		}
		w.Header().Set("Etag", `"1"`)
		if e, ok := body.(*api.Error); ok {
			w.WriteHeader(e.Status)
		}
		text, err := json.Marshal(body)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(text)
	}))
	t.Cleanup(srv.Close)
	c, err := api.NewClient(api.ClientOptions{Servers: []string{srv.URL}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What a wait comes to: its exit status, its last line, and the summary.
func TestAwait(t *testing.T) {
	in := func(state rollout.State, change func(*rollout.Summary)) *rollout.Summary {
		s := &rollout.Summary{Channel: "web", Seq: 2, State: state, Total: 3, Well: 2, Waves: []rollout.WaveSummary{}}
		if change != nil {
			change(s)
		}
		return s
	}
	faults := func(s *rollout.Summary) {
		s.Bad, s.Faults = 1, []rollout.HostLine{{Host: "web-3", Phase: "bad", Fault: rollout.Reverted}}
	}
	for name, c := range map[string]struct {
		s       *rollout.Summary
		code    int
		out     string
		errs    string
		summary string
	}{
		"completed":       {in(rollout.Completed, func(s *rollout.Summary) { s.Well = 3 }), 0, "completed: seq 2 of web after ", "", "## ✅ completed: release 2 of web"},
		"tolerated error": {in(rollout.Completed, faults), 0, "2 of 3 hosts run it; 1 ended badly: web-3 reverted\n", "", "- web-3: reverted"},
		"superseded":      {in(rollout.Superseded, nil), 4, "superseded: seq 2 of web", "", "## ❌ superseded"},
		"time":            {in(rollout.Running, nil), 5, "timeout: seq 2 of web", "", "## ❌ timeout"},
		"halted":          {in(rollout.Halted, faults), 6, "halted: seq 2 of web", "next: narwharf rollout retry|resume|abort web", "## ❌ halted"},
		"aborted":         {in(rollout.Aborted, nil), 7, "aborted: seq 2 of web", "", "## ❌ aborted"},
		"no roll-outs":    {nil, 0, "completed: seq 2 of web", "", "all 1 hosts run it"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs strings.Builder
			cmd := &cobra.Command{}
			cmd.SetContext(t.Context())
			cmd.SetOut(&out)
			cmd.SetErr(&errs)
			f := &Flags{client: new(command.ClientFlags), bar: terminal.NewProgress(&errs), timeout: 300 * time.Millisecond, offline: time.Millisecond, summary: filepath.Join(t.TempDir(), "ci.md")}
			f.options = promoter.Options{Client: server(t, c.s), Channel: "web"}
			p, err := promoter.New(f.options, &out, &errs)
			if err != nil {
				t.Fatal(err)
			}
			err = f.await(cmd, p, 2)
			var failed command.Failed
			var exit command.Exit
			code := 0
			switch {
			case errors.As(err, &failed):
				code = failed.Code
			case errors.As(err, &exit):
				code = int(exit)
			case err != nil:
				t.Fatal(err)
			}
			text, err := os.ReadFile(f.summary)
			if code != c.code || err != nil || !strings.Contains(out.String(), c.out) || !strings.Contains(errs.String(), c.errs) || !strings.Contains(string(text), c.summary) {
				t.Errorf("%d, %v\n%s\n%s\n%s", code, err, out.String(), errs.String(), text)
			}
		})
	}
}

// A server that is away is waited for, and the time is over all the same.
func TestAwaitNobody(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, `{"kind":"unavailable","message":"restarting"}`)
	}))
	defer srv.Close()
	c, err := api.NewClient(api.ClientOptions{Servers: []string{srv.URL}})
	if err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	cmd := &cobra.Command{}
	cmd.SetContext(t.Context())
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	f := &Flags{client: new(command.ClientFlags), bar: terminal.NewProgress(&errs), timeout: 100 * time.Millisecond}
	f.options = promoter.Options{Client: c, Channel: "web"}
	var failed command.Failed
	if err := f.await(cmd, nil, 2); !errors.As(err, &failed) || failed.Code != 5 {
		t.Errorf("%v", err)
	}
	if !strings.Contains(errs.String(), "waiting for the server: restarting") {
		t.Error(errs.String())
	}
}
