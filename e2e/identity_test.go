package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
