package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"narwharf/hooks/api"
	"narwharf/signing"
)

// A server is the real program, in a folder of its own.
type server struct {
	binary, dir, url string
	key              signing.SecretKey // the promoter's
	cmd              *exec.Cmd
	gone             chan struct{} // closed when it has ended
}

// The tokens of the demo, by name.
var tokens = map[string]string{
	"ci":    "push",
	"hosts": "pull,follow:*",
	"alice": "pull,push,promote:*,read:*",
	"carol": "operate",
	"robot": "admin,operate",
	"you":   "admin,operate,pull,promote:*,metrics",
}

const config = `listen = ["%[1]s"]
public_url = "http://%[1]s"
data_dir = "data"

[signing]
secret_key_files = ["cache.sec"]
sign_uploads = true

[access]
anonymous = ["pull"]

[limits]
hosts_per_credential = 100000
connections_per_address = 100000
connections_per_token = 100000

[[check]]
name = "front-page"
url = "http://%[1]s/readyz"
interval = "5s"
`

// startServer starts one at an address, a free port of the loopback interface if that is "".
func startServer(ctx context.Context, binary, dir, addr string) (*server, error) {
	if addr == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		addr = l.Addr().String()
		_ = l.Close()
	}
	s := &server{binary: binary, dir: dir, url: "http://" + addr, gone: make(chan struct{})}
	if err := os.WriteFile(s.file("config.toml"), fmt.Appendf(nil, config, addr), 0o644); err != nil {
		return nil, err
	}
	for _, key := range []string{"demo-cache-1:cache", "demo-deploy-1:deploy"} {
		name, file, _ := strings.Cut(key, ":")
		if err := s.run("key", "generate", name, "--out", s.file(file+".sec")); err != nil {
			return nil, err
		}
	}
	text, err := os.ReadFile(s.file("deploy.sec"))
	if err != nil {
		return nil, err
	}
	if s.key, err = signing.ParseSecretKey(strings.TrimSpace(string(text))); err != nil {
		return nil, err
	}
	for name, scopes := range tokens {
		if err := s.run("token", "new", "--config", s.file("config.toml"), "--name", name, "--scope", scopes, "--out", s.file(name+".token")); err != nil {
			return nil, err
		}
	}
	return s, s.serve(ctx)
}

func (s *server) file(name string) string { return filepath.Join(s.dir, name) }

func (s *server) run(args ...string) error {
	out, err := exec.Command(s.binary, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("narwharf %s: %w\n%s", strings.Join(args[:2], " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// serve starts the program and waits until it answers.
func (s *server) serve(ctx context.Context) error {
	log, err := os.Create(s.file("log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(s.binary, "serve", "--config", s.file("config.toml"))
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.SysProcAttr = log, log, ownGroup()
	if err := s.cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = s.cmd.Wait()
		close(s.gone)
	}()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/readyz", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-s.gone:
			text, _ := os.ReadFile(s.file("log"))
			return fmt.Errorf("the server ended at once, having said:\n%s", text)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop ends the program.
func (s *server) stop() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.gone:
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.gone
	}
}

// token is the secret of one of the tokens.
func (s *server) token(name string) (string, error) {
	text, err := os.ReadFile(s.file(name + ".token"))
	return strings.TrimSpace(string(text)), err
}

// client speaks with the server as one of the tokens.
func (s *server) client(name string) (*api.Client, error) {
	return api.NewClient(api.ClientOptions{Servers: []string{s.url}, TokenFile: s.file(name + ".token"), UserAgent: "narwharf-demo"})
}
