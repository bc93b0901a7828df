package hooks

import (
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"narwharf/hooks/api"
	"narwharf/nixos"
	"narwharf/nixos/remote"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// TestAgentsOverHTTP: the agent of a simulated host speaks with the real server as that of a
// real host does. It takes a release, confirms it, posts its log, and goes back when it is
// told to, through a server that is away for a while and an agent that dies.
func TestAgentsOverHTTP(t *testing.T) {
	t.Run("http", func(t *testing.T) { agentsOver(t, httptest.NewServer) })
	t.Run("https with a private authority", func(t *testing.T) { agentsOver(t, httptest.NewTLSServer) })
}

func agentsOver(t *testing.T, serve func(http.Handler) *httptest.Server) {
	w := newWorld(t)
	first, second := sim.System{Path: sim.Path("first")}, sim.System{Path: sim.Path("second")}
	a := newAgents(w, t, 1, first, second)
	host := a.hosts[0].World
	front := serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if hash, ok := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/"), ".narinfo"); ok {
			_, _ = rw.Write(w.cache.infos[hash].Append(nil))
			return
		}
		a.s.ServeHTTP(rw, r)
	}))
	defer front.Close()
	o := api.ClientOptions{Servers: []string{front.URL}, Token: w.token("h0", "follow:"+sim.Channel)}
	if cert := front.Certificate(); cert != nil {
		o.Trust.CA = filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(o.Trust.CA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	client, err := api.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	server := remote.New(remote.Options{Client: client, Host: "h0", Channel: sim.Channel, Target: sim.Target, Log: slog.New(slog.DiscardHandler)})
	defer server.Close(t.Context())

	var agent *nixos.Agent
	until := func(state api.State, current string) {
		t.Helper()
		for range 500 {
			if agent == nil {
				agent = host.AgentOf(a.keys.Rules(), server)
				if err := agent.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			a.now.Store(max(a.now.Load(), host.Clock))
			if err := agent.Turn(t.Context()); err != nil {
				t.Fatal(err)
			}
			j := agent.Journal()
			if j.State != state || j.Seq != a.seq || host.Current != current || !j.AtRest() || j.Attempt != nil && j.Attempt.Run > 0 && !j.Attempt.LogPosted {
				continue
			}
			if shown := decode[api.Host](t, a.ask("GET", "/api/v1/hosts/h0", a.op, nil, 200)); shown.Status != nil && shown.Status.State == state && shown.Status.Current == current {
				return
			}
		}
		t.Fatalf("it is %s at seq %d and runs %s; want %s", agent.Journal().State, agent.Journal().Seq, host.Current, state)
	}
	a.release(first.Path, signing.Switch)
	until(api.OK, first.Path)
	host.Down, agent = true, nil // killed, and the next one finds nobody
	a.release(second.Path, signing.Switch)
	agent = host.AgentOf(a.keys.Rules(), server)
	if err := agent.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := agent.Turn(t.Context()); err != nil || host.Current != first.Path {
			t.Fatalf("without a server it runs %s: %v", host.Current, err)
		}
	}
	host.Down = false
	until(api.OK, second.Path)
	shown := decode[api.Host](t, a.ask("GET", "/api/v1/hosts/h0", a.op, nil, 200))
	if shown.Status.Confirm == "" || shown.Status.Unconfirmed {
		t.Errorf("the server was told %+v", shown.Status)
	}
	if log := a.ask("GET", "/api/v1/hosts/h0/log?attempt="+shown.Status.Attempt, a.op, nil, 200); !strings.Contains(log.body, second.Path+"/bin/switch-to-configuration test") {
		t.Errorf("the log is %q", log.body)
	}
	a.ask("POST", "/api/v1/hosts/h0/revert", a.op, map[string]int64{"seq": a.seq}, 200)
	until(api.Reverted, first.Path)
	if len(host.Violations) > 0 {
		t.Error(host.Violations)
	}
}
