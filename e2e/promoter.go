package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A promoter runs commands of one build against a server.
type promoter struct {
	server *Server
	bin    string
	token  string // text
	key    Key
	files  string // folder with its keys and token
}

func newPromoter(s *Server, bin, token string, key Key) *promoter {
	p := &promoter{server: s, bin: bin, token: token, key: key, files: scratch(s.T)}
	s.writeFile(filepath.Join(p.files, "token"), token+"\n", 0o600)
	s.writeFile(filepath.Join(p.files, "deploy.sec"), key.Secret()+"\n", 0o600)
	return p
}

func (p *promoter) run(args ...string) Output {
	p.server.T.Helper()
	return run(p.server.T, program{argv: append([]string{p.bin}, args...), dir: p.files, env: []string{
		"HOME=" + p.files, "PATH=" + os.Getenv("PATH"), "NARWHARF_SERVER=" + p.server.URL(), "NARWHARF_TOKEN_FILE=" + filepath.Join(p.files, "token"),
	}})
}

// must runs a command that has to end with a code and to say something.
func (p *promoter) must(code int, says string, args ...string) Output {
	p.server.T.Helper()
	out := p.run(args...)
	if out.Code != code || !strings.Contains(out.Stdout+out.Stderr, says) {
		p.server.T.Errorf("want exit %d and %q\n%v", code, says, out)
	}
	return out
}

func (p *promoter) promote(code int, says string, args ...string) Output {
	p.server.T.Helper()
	return p.must(code, says, append([]string{"promote", "web", "--key", "deploy.sec", "--from-cache", "--content-key", p.server.Key.Public(), "--kind", "path", "--origin", "127.0.0.1/web"}, args...)...)
}

func storePath(p *Path) string { return "/nix/store/" + p.Base }

// startWatch runs `narwharf watch web` until its return value is called, which returns what it said.
func startWatch(p *promoter) func() string {
	t := p.server.T
	t.Helper()
	cmd := exec.Command(p.bin, "watch", "web", "--server", p.server.URL(), "--token-file", filepath.Join(p.files, "token"))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir, cmd.SysProcAttr = &said, &said, p.files, ownGroup()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() string {
		t.Helper()
		if err := cmd.Process.Kill(); err != nil {
			t.Errorf("watch ended by itself: %v", err)
		}
		_ = cmd.Wait()
		return said.String()
	}
}
