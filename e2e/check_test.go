package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A shop is the service that hosts have: it has metrics of which a test says what they are.
type shop struct {
	*httptest.Server
	errors atomic.Pointer[string] // the error rate, as Prometheus reads it
	status atomic.Int32           // of /healthz
}

func startShop(t *testing.T) *shop {
	t.Helper()
	s := new(shop)
	s.set("0.001")
	s.status.Store(200)
	mux := http.NewServeMux()
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, "# TYPE shop_error_rate gauge\nshop_error_rate{till=\"1\"} 0\nshop_error_rate{till=\"2\"} %s\n", *s.errors.Load())
	})
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(s.status.Load())) })
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *shop) set(errors string) { s.errors.Store(&errors) }

// startPrometheus starts one that scrapes the shop every second. It ends with the test, or by
// what it returns.
func startPrometheus(t *testing.T, s *shop) (url string, kill func()) {
	t.Helper()
	needTool(t, "prometheus", "prometheus")
	dir, port := scratch(t), freePort(t)
	config := fmt.Sprintf("global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n- job_name: shop\n  static_configs: [{targets: [%q]}]\n", strings.TrimPrefix(s.URL, "http://"))
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command("prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "tsdb"), fmt.Sprintf("--web.listen-address=127.0.0.1:%d", port))
	cmd.Stdout, cmd.Stderr, cmd.Dir, cmd.SysProcAttr = log, log, dir, ownGroup()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	kill = func() {
		if !ended {
			ended = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(kill)
	return fmt.Sprintf("http://127.0.0.1:%d", port), kill
}

// gated is a server with checks, a canary h1 and another host h2.
type gated struct {
	*promoter
	hosts []*follower
	path  []string // that can be promoted
	next  int
}

func newGated(t *testing.T, checks string) *gated {
	t.Helper()
	s := NewServer(t, func(c *Config) { c.More = []string{checks} })
	u := NewUploader(t, s.URL(), s.Token("ci", "push"))
	g := &gated{promoter: newPromoter(s, narwharfBin(t), s.Token("op", "push", "promote:*", "operate"), NewKey("deploy-1"))}
	for i := range 6 {
		p := NewPath(fmt.Sprint("release", i), RandomNAR(uint64(900+i), 100))
		u.Upload(p)
		g.path = append(g.path, storePath(p))
	}
	g.release(0, "")
	token := s.Token("hosts", "follow:web", "pull")
	for _, name := range []string{"h1", "h2"} {
		f := newFollower(s, token, name, g.path[0]).today()
		f.report("ok", 1, g.path[0])
		g.hosts = append(g.hosts, f)
	}
	g.must(0, "", "host", "label", "h1", "canary=true")
	stop := make(chan struct{})
	wg := follow(stop, g.hosts...)
	t.Cleanup(func() { close(stop); wg.Wait() })
	return g
}

// policy sets one whose canary bakes with checks.
func (g *gated) policy(code int, says, bake string, checks ...string) {
	g.server.T.Helper()
	names, err := json.Marshal(checks)
	if err != nil {
		g.server.T.Fatal(err)
	}
	g.server.writeFile(filepath.Join(g.files, "policy.json"), fmt.Sprintf(
		`{"rollout": {"prefetch": false, "waves": [{"name": "canary", "select": "canary=true", "max": 1, "bake": %q, "checks": %s}, {}]}}`, bake, names), 0o644)
	g.must(code, says, "channel", "policy", "web", "--file", "policy.json")
}

// release promotes another path.
func (g *gated) release(code int, says string) {
	g.server.T.Helper()
	g.promote(code, says, g.path[g.next])
	g.next++
}

// outcome waits until the last release is over, or halted, and returns that line of the log.
func (g *gated) outcome(limit time.Duration) (kind, text string) {
	g.server.T.Helper()
	u := NewUploader(g.server.T, g.server.URL(), g.token)
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var page struct {
			Events []struct {
				Kind, Text string
				Seq        int
			}
		}
		if err := json.Unmarshal([]byte(u.Get("/api/v1/events").Body), &page); err != nil {
			g.server.T.Fatal(err)
		}
		for _, e := range page.Events {
			if e.Seq == g.next && (e.Kind == "rollout.halted" || e.Kind == "rollout.completed") {
				return e.Kind, e.Text
			}
		}
	}
	g.server.T.Fatalf("release %d has come to no end in %s", g.next, limit)
	return "", ""
}

// runs is which releases the hosts run.
func (g *gated) runs(want ...int) {
	g.server.T.Helper()
	var list []struct {
		Host   string
		Status struct{ Current string }
	}
	if err := json.Unmarshal([]byte(g.must(0, "", "hosts", "web", "--json").Stdout), &list); err != nil || len(list) != len(want) {
		g.server.T.Fatalf("hosts --json: %v, %d hosts", err, len(list))
	}
	for i, h := range list {
		if h.Status.Current != g.path[want[i]-1] {
			g.server.T.Errorf("%s runs %s, and not release %d", h.Host, h.Status.Current, want[i])
		}
	}
}

// A real Prometheus lets a release through, and stops one; when it is away the roll-out halts at
// the end of the bake, and says why.
func TestPrometheusGate(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	prometheus, kill := startPrometheus(t, s)
	g := newGated(t, fmt.Sprintf(`
[[check]]
name = "error-rate"
prometheus = %q
query = "max by (till) (max_over_time(shop_error_rate[3s]))"
bound = "< 0.01"
interval = "1s"
`, prometheus))
	// It says nothing until it has scraped.
	ask := func(code int, says string) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
			if out := g.run("check", "ask", "error-rate"); out.Code == code && strings.Contains(out.Stdout, says) {
				return
			} else if time.Now().After(end) {
				t.Fatalf("want exit %d and %q\n%v", code, says, out)
			}
		}
	}
	ask(0, "yes: all 2 series are < 0.01, the nearest 0.001")
	g.policy(2, `the check "eror-rate" is not in this server's configuration: it has error-rate`, "4s", "eror-rate")
	g.policy(0, "", "4s", "error-rate")

	began := time.Now()
	g.release(0, "")
	kind, text := g.outcome(60 * time.Second)
	if kind != "rollout.completed" || time.Since(began) < 4*time.Second {
		t.Fatalf("%s after %s: %s", kind, time.Since(began), text)
	}
	g.runs(2, 2)

	s.set("0.25")
	ask(1, `no: one of 2 series: 0.25 {till="2"} is not < 0.01`)
	g.release(0, "")
	if kind, text := g.outcome(60 * time.Second); kind != "rollout.halted" || !strings.Contains(text, `the check error-rate says no: one of 2 series: 0.25 {till="2"} is not < 0.01`) {
		t.Fatalf("%s: %s", kind, text)
	}
	g.runs(3, 2)

	// Bad in the middle of a bake.
	s.set("0.001")
	ask(0, "yes")
	g.policy(0, "", "60s", "error-rate")
	g.release(0, "")
	time.Sleep(3 * time.Second)
	s.set("NaN")
	time.Sleep(3 * time.Second)
	s.set("1")
	if kind, text := g.outcome(30 * time.Second); kind != "rollout.halted" || !strings.Contains(text, `1 {till="2"} is not < 0.01`) {
		t.Fatalf("%s: %s", kind, text)
	}
	g.runs(4, 2)

	if testing.Short() {
		return // a minute
	}
	kill()
	ask(3, "no answer:")
	g.policy(0, "", "2s", "error-rate")
	g.release(0, "")
	if kind, text := g.outcome(90 * time.Second); kind != "rollout.halted" || !strings.Contains(text, "the check error-rate has not answered through the bake of canary") || !strings.Contains(text, "refused") {
		t.Fatalf("%s: %s", kind, text)
	}
	g.runs(5, 2)
}

// A URL and a command gate a roll-out; a check that is taken out of the configuration halts it.
func TestCommandGate(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	dir := scratch(t)
	g := newGated(t, fmt.Sprintf(`
[[check]]
name = "page"
url = "%s/healthz"
interval = "1s"
failures = 2

[[check]]
name = "smoke"
command = ["/bin/sh", "-c", "echo $NARWHARF_CHANNEL $NARWHARF_SEQ $NARWHARF_WAVE $NARWHARF_STORE_PATHS >>%s/asked; test ! -e %[2]s/bad"]
interval = "1s"
`, s.URL, dir))
	g.policy(0, "", "3s", "page", "smoke")
	g.release(0, "")
	if kind, text := g.outcome(60 * time.Second); kind != "rollout.completed" {
		t.Fatalf("%s: %s", kind, text)
	}
	asked, err := os.ReadFile(filepath.Join(dir, "asked"))
	if err != nil || !strings.HasPrefix(string(asked), "web 2 1 "+g.path[1]+"\n") || strings.Count(string(asked), "\n") < 2 {
		t.Errorf("the command was asked %q, %v", asked, err)
	}

	s.status.Store(503)
	g.release(0, "")
	if kind, text := g.outcome(60 * time.Second); kind != "rollout.halted" || !strings.Contains(text, "the check page says no: 503 Service Unavailable") {
		t.Fatalf("%s: %s", kind, text)
	}
	g.runs(3, 2)
	s.status.Store(200)
	g.server.writeFile(filepath.Join(dir, "bad"), "", 0o644)
	g.release(0, "")
	if kind, text := g.outcome(60 * time.Second); kind != "rollout.halted" || !strings.Contains(text, "the check smoke says no: exit status 1") {
		t.Fatalf("%s: %s", kind, text)
	}
	g.runs(4, 2)
	onlyLong(t)
	g.server.Reconfigure(func(c *Config) { c.More = nil })
	g.server.Stop()
	g.server.Start()
	g.release(0, "")
	if kind, text := g.outcome(90 * time.Second); kind != "rollout.halted" || !strings.Contains(text, "is not in this server's configuration any more") {
		t.Fatalf("%s: %s", kind, text)
	}
	g.runs(5, 2)
}
