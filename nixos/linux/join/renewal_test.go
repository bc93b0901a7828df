package join

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/credential"
	"narwharf/nixos/config"
	"narwharf/nixos/identity"
	"narwharf/signing"
)

// cloud is a server that gives hosts short-lived tokens for JWTs, and names for nothing.
type cloud struct {
	*httptest.Server
	mu      sync.Mutex
	joins   []api.Join
	refuse  *api.Error // of joins
	lasts   int
	good    map[string]bool
	name    string
	n       int
	parting bool // it answers 503 to everything
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	c := &cloud{lasts: 3600, good: make(map[string]bool), name: "vm-drawn"}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		answer := func(status int, v any) {
			w.WriteHeader(status)
			if err := json.NewEncoder(w).Encode(v); err != nil {
				t.Error(err)
			}
		}
		switch {
		case c.parting:
			answer(503, api.Errorf(api.Unavailable, "stopping"))
		case r.URL.Path == "/api/v1/join":
			var j api.Join
			if err := json.NewDecoder(r.Body).Decode(&j); err != nil || r.Header.Get("Authorization") != "" {
				t.Errorf("%v, with %q", err, r.Header.Get("Authorization"))
			}
			c.joins = append(c.joins, j)
			if c.refuse != nil {
				answer(c.refuse.Status, c.refuse)
				return
			}
			c.n++
			token := "nwt_sh0rt" + string(rune('a'+c.n))
			c.good[token] = true
			answer(201, api.Joined{Host: c.name, Channel: j.Channel, Token: token, ExpiresIn: c.lasts})
		case c.good[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]:
			answer(200, struct{}{})
		default:
			answer(401, api.Errorf(api.Unauthorized, "the token is not known here"))
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// agentOf is the configuration of a host of the cloud.
func (c *cloud) agentOf(t *testing.T, lines ...string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	jwt := filepath.Join(dir, "jwt")
	if err := os.WriteFile(jwt, []byte("a.b.c"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "agent.toml")
	key, err := signing.GenerateKey("deploy-1")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(append(lines, `server = ["`+c.URL+`"]`, `channel = "web"`, `origin = "x/web"`, `keys = ["`+key.Public().String()+`"]`,
		`content_keys = ["`+key.Public().String()+`"]`, `state_dir = "state"`, "[identity]", `kind = "oidc"`, `from = "file"`, `file = "jwt"`), "\n")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func (c *cloud) with(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn()
}

// TestIdentityNames: the server says which host this is, and it stays that.
func TestIdentityNames(t *testing.T) {
	c := newCloud(t)
	cfg := c.agentOf(t)
	log := slog.New(slog.DiscardHandler)
	client, as, err := NewClient(t.Context(), cfg, "1", log)
	if err != nil {
		t.Fatal(err)
	}
	if as.Host != "vm-drawn" || as.Target != "vm-drawn" || cfg.Host == "vm-drawn" {
		t.Errorf("it is %s with the target %s", as.Host, as.Target)
	}
	if _, err := client.Host(t.Context(), "x"); err != nil {
		t.Error(err)
	}
	if c.joins[0].Host != "" || c.joins[0].Proof.Token != "a.b.c" || c.joins[0].Instance == "" {
		t.Errorf("%+v", c.joins[0])
	}
	if st, err := os.Stat(filepath.Join(cfg.StateDir, "identity.json")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	// The next agent of the host uses the same token, and a target of its own.
	_, as, err = NewClient(t.Context(), c.loadAgain(t, cfg, `target = "group"`), "1", log)
	if err != nil || len(c.joins) != 1 || as.Host != "vm-drawn" || as.Target != "group" {
		t.Errorf("%d joins, %s, %s, %v", len(c.joins), as.Host, as.Target, err)
	}
}

// loadAgain is a configuration of the same host with more lines.
func (c *cloud) loadAgain(t *testing.T, cfg *config.Config, lines ...string) *config.Config {
	t.Helper()
	text, err := os.ReadFile(cfg.Path())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.Path(), []byte(strings.Join(lines, "\n")+"\n"+string(text)), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := config.Load(cfg.Path())
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// TestRenewal: a token is renewed at half its time, and when the server does not know it any more.
func TestRenewal(t *testing.T) {
	c := newCloud(t)
	cfg := c.agentOf(t, `host = "web-1"`)
	c.name = "web-1"
	o := api.ClientOptions{Servers: cfg.Servers, Self: api.Self{Instance: strings.Repeat("a", 32)}}
	plain, err := api.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	r := &renewal{config: cfg, client: plain, source: identity.New(cfg.Identity, nil), self: o.Self, log: slog.New(slog.DiscardHandler), now: func() time.Time { return now }}
	o.Renew = credential.Renewal(r.token)
	client, err := api.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	call := func() error {
		_, err := client.Host(context.Background(), "x")
		return err
	}
	joins := func(n int) {
		t.Helper()
		if len(c.joins) != n || c.joins[n-1].Host != "web-1" {
			t.Errorf("%d joins, want %d: %+v", len(c.joins), n, c.joins)
		}
	}
	for range 3 {
		if err := call(); err != nil {
			t.Fatal(err)
		}
	}
	joins(1)
	now = now.Add(23 * time.Minute) // at 24 minutes at the earliest
	if err := call(); err != nil {
		t.Error(err)
	}
	joins(1)
	now = now.Add(8 * time.Minute)
	if err := call(); err != nil {
		t.Error(err)
	}
	joins(2)

	// The server restarts, and has lost its tokens.
	c.with(func() { clear(c.good) })
	if err := call(); err != nil {
		t.Error(err)
	}
	joins(3)

	// It cannot be asked when the next is due: the old one does.
	now = now.Add(40 * time.Minute)
	c.with(func() { c.refuse = api.Errorf(api.Unavailable, "the issuer is away") })
	if err := call(); err != nil {
		t.Error(err)
	}
	joins(4)
	if err := call(); err != nil { // and it is left alone for a while
		t.Error(err)
	}
	joins(4)
	now = now.Add(time.Minute)
	c.with(func() { c.refuse = nil })
	if err := call(); err != nil {
		t.Error(err)
	}
	joins(5)

	// It is cut off: what the server says of the join is what the agent hears.
	c.with(func() { clear(c.good); c.refuse = api.Errorf(api.Forbidden, "the key is revoked") })
	if err := call(); err == nil || err.Error() != "the key is revoked" {
		t.Errorf("cut off: %v", err)
	}
	c.with(func() { c.parting = true })
	if err := call(); err == nil {
		t.Error("a server that is away answers")
	}
	c.with(func() { c.parting, c.refuse = false, nil })
	if err := call(); err != nil {
		t.Error(err)
	}
}

// TestWaitsForApproval: an agent that is refused tries on until somebody has approved it, or its
// time is over.
func TestWaitsForApproval(t *testing.T) {
	c := newCloud(t)
	cfg := c.agentOf(t)
	c.refuse = api.Errorf(api.Forbidden, "nobody has said yet")
	var log strings.Builder
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := NewClient(short, cfg, "1", slog.New(slog.NewTextHandler(&log, nil))); err == nil || !strings.Contains(err.Error(), "nobody has said yet") || !strings.Contains(log.String(), "nobody has said yet") {
		t.Errorf("%v; log %s", err, &log)
	}
	time.AfterFunc(200*time.Millisecond, func() { c.with(func() { c.refuse = nil }) })
	if _, _, err := NewClient(t.Context(), cfg, "1", slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
}

// TestServerURL: a server that says that it is another gets no proof over its name.
func TestServerURL(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/challenge" {
			t.Errorf("asked %s", r.URL)
		}
		_, _ = w.Write([]byte(`{"nonce":"n","expires_in":60,"url":"https://other.example.org"}`))
	}))
	defer server.Close()
	c := &cloud{Server: server}
	cfg := c.agentOf(t)
	cfg.Identity = identity.Config{Kind: "ssh", SSHKey: "/nonexistent"}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := NewClient(short, cfg, "1", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), `set server_url = "https://other.example.org"`) {
		t.Error(err)
	}
}
