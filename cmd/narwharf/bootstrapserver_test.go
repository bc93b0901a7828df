package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cmd/narwharf/server"
	"narwharf/hooks/api"
	"narwharf/nixos/config"
	"narwharf/signing"
	"narwharf/signing/access"
	"narwharf/signing/keyring"
)

const someAgent = "/nix/store/0c0vbw3cxnvd6dpyvnp8y4s5j9zcwg0m-narwharf-1"

// Where the server may, it makes a script with its own keys in it, for whoever
// has a join token; the first line says what that means.
func TestBootstrapByTheServer(t *testing.T) {
	s := newAPIServer(t) // has no such thing
	const pattern, path = apiChannel + "/bootstrap", "/api/v1/channels/web/bootstrap"
	secret, tok, err := access.NewJoin("j", "web", "web-7", 1, time.Now(), time.Now().Add(time.Hour))
	if err == nil {
		err = s.dir.Tokens.Add(t.Context(), tok)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.wantAPI(200, "PUT", apiChannel, "/api/v1/channels/web", s.promotion(5, nil), s.admin, `If-Match: "0"`)
	s.wantAPI(404, "GET", pattern, path+"?trust=server", "", secret)
	s.wantAPI(401, "GET", pattern, path+"?trust=server", "", "")
	s.wantAPI(403, "GET", pattern, path+"?trust=server", "", s.push)

	own, err := signing.GenerateKey("cache-1")
	if err != nil {
		t.Fatal(err)
	}
	s.dir.Config.PublicURL = "https://cache.example.org"
	s.dir.Config.Bootstrap.Trust, s.dir.Config.Bootstrap.Agents = "server", []string{someAgent}
	keys := func() []signing.PublicKey { return []signing.PublicKey{own.Public()} }
	channels, err := s.dir.OpenChannels(s.cache, access.NewAuthenticator(access.Options{Tokens: s.dir.Tokens}), keys, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(channels.Stop)
	srv := httptest.NewServer(server.Web(nil, http.NotFoundHandler(), channels, http.NotFoundHandler()))
	t.Cleanup(srv.Close)
	s.url = srv.URL

	s.wantAPI(400, "GET", pattern, path, "", secret)
	s.wantAPI(400, "GET", pattern, path+"?trust=server&action=test", "", secret)
	s.wantAPI(400, "GET", pattern, path+"?trust=server&format=yaml", "", secret)
	s.wantAPI(400, "GET", pattern, path+"?trust=server&host=a+b", "", secret)
	s.wantAPI(404, "GET", pattern, "/api/v1/channels/none/bootstrap?trust=server", "", s.admin)
	s.wantAPI(400, "GET", pattern, path+"?trust=server", "", s.admin) // whose token would be in the script
	s.wantAPI(200, "HEAD", pattern, path+"?trust=server", "", secret)
	s.wantAPI(200, "GET", pattern, path+"?trust=server&format=cloud-config&host=web-7&target=t&action=boot", "", secret)
	if h := s.wantAPI(200, "GET", pattern, path+"?trust=server", "", secret); h.Get("Cache-Control") != "no-store" {
		t.Errorf("a script with a token may be kept: %v", h)
	}

	// Keys that came by a statement are of its version: a host would not follow others from there.
	b := keyring.Base{Origin: "cache.example.org/web", Channel: "web", Keys: []signing.PublicKey{s.key.Public()}, Threshold: 1}
	next := keyring.Walk(b, nil, nil).Next(b, b.Keys, 1)
	next.Created = time.Now()
	statement, err := next.Seal()
	if err != nil {
		t.Fatal(err)
	}
	statement.Sign(keyring.KeysKind, s.key)
	change, err := json.Marshal(api.KeysChange{Statement: statement})
	if err != nil {
		t.Fatal(err)
	}
	s.wantAPI(200, "PUT", apiChannel+"/keys", "/api/v1/channels/web/keys", string(change), s.admin)

	req, err := http.NewRequest(http.MethodGet, s.url+path+"?trust=server", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	script, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if first, _, _ := strings.Cut(string(script), "\n"); !strings.HasPrefix(first, "# TRUST = SERVER: ") || !strings.Contains(first, "whoever controls https://cache.example.org") {
		t.Errorf("the first line is %q", first)
	}
	head, _, _ := strings.Cut(string(script), "\n# agent_for")
	c := exec.Command("sh", "-s")
	name := t.TempDir() + "/agent.toml"
	c.Stdin = strings.NewReader(head + "\nprintf '%s' \"$config\" > " + "'" + name + "'" + "\nprintf '%s %s' \"$join_token\" \"$content_keys\"")
	out, err := c.Output()
	if err != nil || string(out) != secret+" "+own.Public().String() {
		t.Errorf("it holds %q, %v", out, err)
	}
	cfg, err := config.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Trust != config.TrustServer || cfg.MinSeq != 5 || cfg.KeysVersion != 1 || cfg.Host != "web-7" || cfg.Origin != "cache.example.org/web" ||
		len(cfg.Keys) != 1 || cfg.Keys[0] != s.key.Public().String() || cfg.ServerKeys[0] != own.Public().String() {
		t.Errorf("%+v", cfg)
	}
}
