package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/e2e/repository"
)

// receiver is a target of notify.
type receiver struct {
	*httptest.Server
	secret []byte

	mu    sync.Mutex
	away  bool
	seen  map[string]bool // ids
	texts []string        // "kind: text", each event once
	bad   []string        // requests whose signature is not good
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{secret: []byte(strings.Repeat("s", 32)), seen: make(map[string]bool)}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	text, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away {
		http.Error(w, "come again", http.StatusServiceUnavailable)
		return
	}
	id := req.Header.Get("Webhook-Id")
	mac := hmac.New(sha256.New, r.secret)
	fmt.Fprintf(mac, "%s.%s.%s", id, req.Header.Get("Webhook-Timestamp"), text)
	if req.Header.Get("Webhook-Signature") != "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
		r.bad = append(r.bad, id)
	}
	var body struct {
		Type string
		Data struct{ Text string }
	}
	if err := json.Unmarshal(text, &body); err != nil {
		r.bad = append(r.bad, string(text))
	}
	if !r.seen[id] {
		r.seen[id] = true
		r.texts = append(r.texts, body.Type+": "+body.Data.Text)
	}
}

func (r *receiver) stay(away bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = away
}

// wait waits until an event was told.
func (r *receiver) wait(t *testing.T, pattern string) {
	t.Helper()
	re := regexp.MustCompile("(?m)^" + pattern)
	var all string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		r.mu.Lock()
		all = strings.Join(r.texts, "\n")
		r.mu.Unlock()
		if re.MatchString(all) {
			return
		}
	}
	t.Fatalf("nobody was told %s, but\n%s", pattern, all)
}

// aPrometheus scrapes a server, with our rules.
type aPrometheus struct {
	t   *testing.T
	url string
}

func newPrometheus(t *testing.T, s *Server) *aPrometheus {
	needTool(t, "prometheus", "prometheus")
	dir, port := scratch(t), freePort(t)
	token := filepath.Join(dir, "token")
	s.writeFile(token, s.Token("prometheus", "metrics"), 0o600)
	config := filepath.Join(dir, "prometheus.yml")
	s.writeFile(config, fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: narwharf
    authorization: {credentials_file: %q}
    static_configs: [{targets: [%q]}]
`, filepath.Join(repository.Root, "docs/monitoring/*.rules.yml"), token, s.Addr()), 0o644)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	p := &aPrometheus{t: t, url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	cmd := exec.Command("prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), fmt.Sprintf("--web.listen-address=127.0.0.1:%d", port))
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, ownGroup()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		log.Close()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("prometheus says\n%s", Tail(string(text), 4000))
		}
	})
	return p
}

// ask asks its API, until it answers and done says yes.
func (p *aPrometheus) ask(path string, v any, done func() bool) {
	p.t.Helper()
	var said string
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		resp, err := http.Get(p.url + path)
		if err != nil {
			continue
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			continue
		}
		said = string(text)
		if json.Unmarshal(text, v) == nil && done() {
			return
		}
	}
	p.t.Fatalf("%s: %s", path, Tail(said, 4000))
}

// shows waits until an alert is there, or is not.
func (p *aPrometheus) shows(alert, label, value string, want bool) {
	p.t.Helper()
	var list struct {
		Data struct {
			Alerts []struct{ Labels map[string]string }
		}
	}
	p.ask("/api/v1/alerts", &list, func() bool {
		for _, a := range list.Data.Alerts {
			if a.Labels["alertname"] == alert && a.Labels[label] == value {
				return want
			}
		}
		return !want
	})
}

// rulesWork waits until each rule was evaluated, and wants no error of one.
func (p *aPrometheus) rulesWork(least int) {
	p.t.Helper()
	var list struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	n := 0
	p.ask("/api/v1/rules", &list, func() bool {
		n = 0
		for _, g := range list.Data.Groups {
			for _, r := range g.Rules {
				if n++; r.Health == "unknown" {
					return false
				}
			}
		}
		return n > 0
	})
	for _, g := range list.Data.Groups {
		for _, r := range g.Rules {
			if r.Health != "ok" {
				p.t.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if n < least {
		p.t.Errorf("%d rules", n)
	}
}

// seldom are metrics of which a server shows nothing before something has gone wrong, or that are of
// what this one has not. Other tests hold them against docs/metrics.md.
var seldom = regexp.MustCompile(`^narwharf_(check_\w+|local_broken_total|tls_certificate_ends_seconds|oidc_\w+|verify_failures_total|upload_refusals_total|upstream_\w+|hosts_converged|hosts_held|reboot_slots_\w+|gc_bytes|pack_\w+|mirror_\w+|replica_\w+|state_away_seconds)$`)

// TestMonitoring: a real Prometheus reads what a server shows, finds our rules good, and shows an alarm for as
// long as it is open and nobody has taken it. Who is told by the server hears of it as well, also of what happened
// while he was away or the server was killed.
func TestMonitoring(t *testing.T) {
	t.Parallel()
	told := newReceiver(t)
	dir := scratch(t)
	s := NewServer(t, func(c *Config) {
		secret := filepath.Join(dir, "secret")
		if err := os.WriteFile(secret, []byte("whsec_"+base64.StdEncoding.EncodeToString(told.secret)), 0o600); err != nil {
			t.Fatal(err)
		}
		c.ServeStore, c.StoreDir = false, "/nix/store"
		c.More = []string{"[metrics]\nhosts = true", fmt.Sprintf("[[notify]]\nname = \"ops\"\nurl = %q\nalarms = true\nevents = [\"channel.*\", \"rollout.*\"]\nsecret_file = %q\nprivate_addresses = true", told.URL+"/hook", secret)}
	})
	p := newPrometheus(t, s)
	op := newPromoter(s, s.bin, s.Token("op", "push", "promote:*", "operate"), NewKey("deploy-1"))
	paths := []*Path{NewPath("zero", RandomNAR(900, 100)), NewPath("one", RandomNAR(901, 100))}
	NewUploader(t, s.URL(), s.Token("ci", "push")).Upload(paths...)
	zero, one := storePath(paths[0]), storePath(paths[1])
	op.promote(0, "promoted web to seq 1", zero)
	told.wait(t, "channel.promoted: ")
	host := newFollower(s, s.Token("hosts", "follow:web", "pull"), "h1", zero).today()
	host.more["confirmed"] = zero // else it is a machine that has to have some system first
	host.report("ok", 1, zero)
	s.setPolicy(s.Token("policy", "operate"), "web", `{"rollout": {"waves": [{"max": "100%"}]}}`)
	op.promote(0, "promoted web to seq 2", one)
	told.wait(t, `rollout\.running: release 2 of web`)

	// A host fails: the server tells, and Prometheus shows it until somebody has taken it.
	host.report("failed", 2, one)
	told.wait(t, "host.state: h1 is failed")
	p.shows("NarwharfUrgentAlarm", "kind", "host.state", true)
	p.rulesWork(20)
	page := s.Metrics()
	for _, file := range []string{"narwharf.rules.yml", "grafana.json"} {
		text, err := os.ReadFile(filepath.Join(repository.Root, "docs/monitoring", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\bnarwharf_\w+`).FindAllString(string(text), -1) {
			if !regexp.MustCompile(`(?m)^`+name+`[ {]`).MatchString(page) && !seldom.MatchString(name) {
				t.Errorf("%s has %s, and the server shows no such metric", file, name)
			}
		}
	}
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(page)
	if out, err := check.CombinedOutput(); err != nil && strings.Contains(string(out), "error") {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	var open []struct {
		ID   int64
		Kind string
	}
	if err := json.Unmarshal([]byte(op.must(0, "host.state", "alarm", "list", "--json").Stdout), &open); err != nil || len(open) == 0 {
		t.Fatalf("%v, %+v", err, open)
	}
	for _, a := range open {
		if a.Kind == "host.state" {
			op.must(0, "is yours", "alarm", "take", fmt.Sprint(a.ID), "--reason", "on it")
		}
	}
	p.shows("NarwharfUrgentAlarm", "kind", "host.state", false)
	told.wait(t, "alarm.taken: op took the alarm host.state of h1: on it")

	// What happens while nobody listens is told later, also by a server that was killed meanwhile.
	told.stay(true)
	host.current = one
	host.report("ok", 2, one)
	op.must(0, "rollout.halted", "alarm", "list", "web")
	s.Kill()
	s.Start()
	told.stay(false)
	told.wait(t, "alarm.closed: the alarm host.state of h1 is over: h1 is ok")
	op.must(0, "ops", "notify", "list")
	op.must(0, "ops took it: 200", "notify", "test", "ops")
	told.wait(t, "notify.test: a test")

	// A server that stops while a target is away stops at once.
	told.stay(true)
	op.promote(0, "promoted web to seq 3", zero)
	began := time.Now()
	s.Stop()
	if d := time.Since(began); d > 15*time.Second {
		t.Errorf("it took %s to stop", d)
	}
	told.stay(false)
	s.Start()
	told.wait(t, "channel.promoted: .*seq 3")
	told.wait(t, "alarm.closed: the alarm rollout.halted of web is over")
	told.mu.Lock()
	defer told.mu.Unlock()
	if len(told.bad) > 0 {
		t.Errorf("not signed: %q", told.bad)
	}
}
