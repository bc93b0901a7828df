package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/signing/access/oidc/oidctest"
)

// joinByShell is what a machine without our binary needs to join: curl and ssh-keygen. It prints the
// answer of the server.
const joinByShell = `set -eu
nonce=$(curl -fsS -d "{\"host\":\"$host\",\"instance\":\"$instance\"}" "$server/api/v1/challenge" | sed -n 's/.*"nonce":"\([A-Za-z0-9_-]*\)".*/\1/p')
signature=$(printf 'narwharf host 1\nnonce %s\nurl %s\nhost %s\ninstance %s\n' "$nonce" "$url" "$host" "$instance" |
  ssh-keygen -Y sign -f "$key" -n host@narwharf 2> /dev/null | sed 's/$/\\n/' | tr -d '\n')
curl -sS -d "{\"host\":\"$host\",\"channel\":\"web\",\"instance\":\"$instance\",\"proof\":{\"type\":\"ssh\",\"nonce\":\"$nonce\",\"signature\":\"$signature\"}}" "$server/api/v1/join"
`

// TestJoinByShell: a host joins by its SSH host key with OpenSSH's tools alone, once an operator has
// approved the key or it stands in known_hosts, and is cut off when it is taken out there.
func TestJoinByShell(t *testing.T) {
	t.Parallel()
	needTool(t, "curl", "curl")
	needTool(t, "ssh-keygen", "openssh-client")
	dir := scratch(t)
	known := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(known, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const url = "https://cache.example.org"
	s := NewServer(t, func(c *Config) {
		c.PublicURL = url
		c.More = append(c.More, fmt.Sprintf("[access.ssh]\nknown_hosts = %q\nscopes = [\"follow:web\"]\n", known))
	})
	for _, kind := range []string{"ed25519", "rsa", "ecdsa"} {
		key := filepath.Join(dir, kind)
		if out, err := exec.Command("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", key).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		host, instance := "web-"+kind, strings.Repeat(map[string]string{"ed25519": "1", "rsa": "2", "ecdsa": "3"}[kind], 32)
		join := func() (a struct{ Kind, Message, Token, Host string }) {
			t.Helper()
			c := exec.Command("sh", "-c", joinByShell)
			c.Env = append(os.Environ(), "host="+host, "instance="+instance, "server="+s.URL(), "url="+url, "key="+key)
			out, err := c.Output()
			if err == nil {
				err = json.Unmarshal(out, &a)
			}
			if err != nil {
				t.Fatalf("%s: %v: %s", kind, err, out)
			}
			return a
		}
		status := func(token string) int {
			return NewUploader(t, s.URL(), token).Do("GET", "/api/v1/hosts/"+host+"/desired?channel=web&instance="+instance, "", nil).Status
		}
		public, err := os.ReadFile(key + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		a := join()
		_, fingerprint, ok := strings.Cut(a.Message, "narwharf host approve "+host+" --key ")
		if a.Kind != "forbidden" || !ok {
			t.Fatalf("%s: %+v", kind, a)
		}
		token := s.Token("op-"+kind, "operate")
		op, file := NewUploader(t, s.URL(), token), filepath.Join(dir, "op-"+kind)
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		approve := func(args ...string) Output {
			return run(t, program{argv: s.argv(append([]string{"host", "approve", host, "--server", s.URL(), "--token-file", file}, args...)...)})
		}
		if out := approve(); !strings.Contains(out.Stderr, fingerprint) {
			t.Errorf("%s: it does not say who asks: %v", kind, out)
		}
		if out := approve("--key", fingerprint); out.Code != 0 {
			t.Fatalf("%s: %v", kind, out)
		}
		if a = join(); a.Host != host || status(a.Token) != 200 {
			t.Errorf("%s: approved: %+v", kind, a)
		}
		if r := op.Do("DELETE", "/api/v1/hosts/"+host, "", nil); r.Status != 204 || status(a.Token) != 401 {
			t.Errorf("%s: removed: %v", kind, r)
		}
		if err := os.WriteFile(known, append([]byte(host+" "), public...), 0o600); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			if a = join(); a.Token != "" || time.Now().After(end) {
				break
			}
		}
		if status(a.Token) != 200 {
			t.Errorf("%s: listed: %+v", kind, a)
		}
		if err := os.WriteFile(known, []byte("@revoked * "+string(public)), 0o600); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for status(a.Token) != 401 && time.Since(began) < 10*time.Second {
			time.Sleep(20 * time.Millisecond)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: cut off after %s", kind, took)
		}
	}
}

// TestMachinesComeAndGo is story 20 in one process: 200 machines of a group speak as agents do, join at once by the
// JWT of a pretended cloud, report, wait in a poll, and are gone. Each is in service within a minute, and none
// leaves a host behind. (That its tokens and roots go with it, hooks' TestMachinesAreForgotten shows.)
func TestMachinesComeAndGo(t *testing.T) {
	onlyLong(t)
	is := oidctest.New(t, oidctest.Options{})
	t.Setenv("SSL_CERT_FILE", is.RootsFile()) // of the server
	const url = "https://cache.example.org"
	s := NewServer(t, func(c *Config) {
		c.PublicURL = url
		c.More = append(c.More, fmt.Sprintf(`[[access.oidc]]
name = "cloud"
issuer = %q
private_addresses = true
[[access.oidc.rules]]
name = "group"
claims = { group = "asg" }
scopes = ["follow:web"]
hosts = "asg-*"
ttl = "10m"
forget_after = "15s"`, is.URL))
	})
	op := NewUploader(t, s.URL(), s.Token("op", "operate"))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 200}}
	defer client.CloseIdleConnections()
	type reply struct {
		status int
		tag    string
	}
	do := func(ctx context.Context, method, path, token string, body any, header ...string) (reply, []byte, error) {
		text, err := json.Marshal(body)
		if err != nil {
			return reply{}, nil, err
		}
		req, err := http.NewRequestWithContext(ctx, method, s.URL()+path, bytes.NewReader(text))
		if err != nil {
			return reply{}, nil, err
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		if method == http.MethodGet {
			req.Body, req.ContentLength = http.NoBody, 0
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			return reply{}, nil, err
		}
		defer resp.Body.Close()
		text, err = io.ReadAll(resp.Body)
		return reply{resp.StatusCode, resp.Header.Get("ETag")}, text, err
	}
	const machines = 200
	var wg sync.WaitGroup
	begun := time.Now()
	var slowest sync.Map
	names := make([]string, machines)
	for i := range machines {
		wg.Go(func() {
			instance := fmt.Sprintf("%032x", i+1)
			jwt := is.Token(map[string]any{"aud": url, "sub": "group", "group": "asg", "instance": fmt.Sprint(i)})
			var j struct{ Host, Token string }
			for try := 0; j.Token == "" && try < 60; try++ { // as agents do
				resp, text, err := do(t.Context(), "POST", "/api/v1/join", "", map[string]any{"host": "", "channel": "web", "instance": instance, "proof": map[string]string{"type": "oidc", "token": jwt}})
				if err == nil && resp.status == 201 {
					err = json.Unmarshal(text, &j)
				} else if err == nil && resp.status < 500 {
					t.Errorf("machine %d: %d %s", i, resp.status, text)
					return
				}
				if err != nil || j.Token == "" {
					time.Sleep(time.Second)
				}
			}
			names[i] = j.Host
			path := "/nix/store/" + strings.Repeat("a", 32) + "-system"
			resp, text, err := do(t.Context(), "PUT", "/api/v1/hosts/"+j.Host+"/status", j.Token, map[string]any{
				"agent": "0", "start_id": 1, "counter": 1, "channel": "web", "target": "*", "system": "x86_64-linux", "boot_id": "b", "instance": instance, "state": "idle",
				"current": path, "booted": path, "profile": path, "transitions": []any{},
			})
			if err != nil || resp.status != 204 {
				t.Errorf("machine %d: %v %s", i, err, text)
				return
			}
			slowest.Store(i, time.Since(begun))
			poll := "/api/v1/hosts/" + j.Host + "/desired?channel=web&target=group&boot=b&instance=" + instance
			if resp, text, err = do(t.Context(), "GET", poll, j.Token, nil); err != nil || resp.status != 200 {
				t.Errorf("machine %d: %v %s", i, err, text)
				return
			}
			ctx, gone := context.WithTimeout(t.Context(), time.Second)
			defer gone()
			_, _, _ = do(ctx, "GET", poll, j.Token, nil, "If-None-Match", resp.tag, "Prefer", "wait=50")
		})
	}
	wg.Wait()
	var most time.Duration
	slowest.Range(func(_, took any) bool { most = max(most, took.(time.Duration)); return true })
	seen := map[string]bool{}
	for _, name := range names {
		if !strings.HasPrefix(name, "asg-") || seen[name] {
			t.Errorf("a machine is called %q", name)
		}
		seen[name] = true
	}
	t.Logf("%d machines are in service after %s", machines, most)
	if most > time.Minute {
		t.Errorf("the slowest of %d is in service after %s", machines, most)
	}
	hosts := func() int { return strings.Count(op.Get("/api/v1/hosts?channel=web").Body, `"host":"asg-`) }
	if n := hosts(); n != machines {
		t.Errorf("%d hosts are there", n)
	}
	for end := time.Now().Add(2 * time.Minute); hosts() > 0 && time.Now().Before(end); {
		time.Sleep(time.Second)
	}
	if n := hosts(); n != 0 {
		t.Errorf("%d of %d hosts stay", n, machines)
	}
}
