package main

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// program runs the real program, as a person does: this test's binary is narwharf when
// it is called so.
type program struct {
	t    *testing.T
	bin  string
	dir  string
	user *uint32 // to run as
	env  []string
}

func newProgram(t *testing.T) *program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "nw-errors-") // t.TempDir is root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &program{t: t, dir: dir, bin: filepath.Join(dir, "narwharf")}
	text, err := os.ReadFile(self)
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.WriteFile(p.bin, text, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *program) write(name, text string) string {
	p.t.Helper()
	mode := os.FileMode(0o600) // secrets are
	if strings.HasSuffix(name, ".toml") {
		mode = 0o644
	}
	name = filepath.Join(p.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), mode)); err != nil {
		p.t.Fatal(err)
	}
	return name
}

// run returns what a command printed, and its exit status; -1 if it did not end.
func (p *program) run(args ...string) (stdout, stderr string, exit int) {
	p.t.Helper()
	c := exec.Command(p.bin, args...)
	c.Dir = p.dir
	c.Env = append([]string{"HOME=" + p.dir, "PATH=" + os.Getenv("PATH"), "TZ=UTC"}, p.env...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	runAs(c, p.user)
	if err := c.Start(); err != nil {
		p.t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { _ = c.Process.Kill() })
	defer late.Stop()
	err := c.Wait()
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		p.t.Fatal(err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// start runs `narwharf serve` until the test ends and returns its URL.
func (p *program) start(config string) (url string) {
	p.t.Helper()
	out, err := os.Create(filepath.Join(p.dir, "serve.log"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer out.Close()
	c := exec.Command(p.bin, "serve", "--config", config)
	c.Dir, c.Stdout, c.Stderr = p.dir, out, out
	if err := c.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		text, _ := os.ReadFile(out.Name())
		if _, rest, ok := strings.Cut(string(text), "Narwharf serves "); ok && strings.Contains(rest, "\n") {
			url, _, _ = strings.Cut(rest, "\n")
			return url
		}
	}
	p.t.Fatal("the server does not start")
	return ""
}

// secret makes a token with scopes.
func (p *program) secret(name string, scopes ...string) string {
	p.t.Helper()
	args := []string{"token", "new", "--config", "d/config.toml"}
	for _, s := range scopes {
		args = append(args, "--scope", s)
	}
	out, errs, exit := p.run(args...)
	if exit != 0 {
		p.t.Fatal(errs)
	}
	return p.write(name, out)
}

// Every error that a newcomer makes comes with what to do next, on stderr, with 2.
func TestErrorsSayWhatToDo(t *testing.T) {
	p := newProgram(t)
	if _, errs, exit := p.run("init", "d", "--key-name", "cache-1", "--listen", "127.0.0.1:0"); exit != 0 {
		t.Fatal(errs)
	}
	url := p.start("d/config.toml")
	port := url[strings.LastIndexByte(url, ':')+1:]
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	defer tls.Close()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }))
	defer page.Close()
	ssh, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ssh.Close()
	go func() {
		for {
			conn, err := ssh.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("SSH-2.0-OpenSSH_9.2\r\n"))
			conn.Close()
		}
	}()
	pull, promote, follow := p.secret("pull", "pull"), p.secret("promote", "promote:web", "pull"), p.secret("follow", "follow:web")
	key, _, _ := p.run("key", "generate", "alice-1")
	keyFile := p.write("alice.sec", key)
	p.write("store.list", "")
	p.write("listen.toml", "listen = \"127.0.0.1:8080\"\ndata_dir = \"q\"\n")
	p.write("number.toml", "listen = [\"8080\"]\ndata_dir = \"q\"\n")
	p.write("keys.toml", "data_dir = \"q\"\n[signing]\nsecret_key_files = \"a.sec\"\n")
	p.write("priority.toml", "data_dir = \"q\"\n[cache]\npriority = \"high\"\n")
	p.write("file.toml", "listen = [\"127.0.0.1:0\"]\ndata_dir = \"alice.sec\"\n")
	p.write("damaged/narwharf.db", "no database")
	p.write("damaged/config.toml", "listen = [\"127.0.0.1:0\"]\ndata_dir = \".\"\n")
	for _, row := range []struct {
		name string
		args []string
		says []string
	}{
		{"server down", []string{"hosts", "--server", "http://127.0.0.1:1"}, []string{"server http://127.0.0.1:1: ", "connection refused", "does narwharf serve run there", "listen on that port?"}},
		{"server down, promote", []string{"promote", "web", "/nix/store/x", "--key", keyFile, "--server", "http://127.0.0.1:1"}, []string{"does narwharf serve run there"}},
		{"no such name", []string{"hosts", "--server", "http://cache.invalid"}, []string{"http://cache.invalid", "look at"}},
		{"wrong port: another HTTP server", []string{"hosts", "--server", other.URL}, []string{"404", "no Narwharf", "port"}},
		{"wrong port: a page", []string{"channel", "list", "--server", page.URL}, []string{"no Narwharf", "port"}},
		{"wrong port: no HTTP", []string{"hosts", "--server", "http://" + ssh.Addr().String()}, []string{"speaks no HTTP", "port"}},
		{"https for http", []string{"hosts", "--server", "https://127.0.0.1:" + port}, []string{"http://", "speaks no TLS"}},
		{"http for https", []string{"hosts", "--server", strings.Replace(tls.URL, "https", "http", 1)}, []string{"https://"}},
		{"unknown certificate", []string{"hosts", "--server", tls.URL}, []string{"--ca-file"}},
		{"no scheme", []string{"hosts", "--server", "127.0.0.1:" + port}, []string{"is not a URL like"}},
		{"no server", []string{"hosts"}, []string{"--server URL", "NARWHARF_SERVER"}},
		{"promote without a token", []string{"promote", "web", "/nix/store/00000000000000000000000000000000-x", "--store-root", "none", "--from-cache", "--content-key", "d/keys/cache-1.pub", "--key", keyFile, "--server", url},
			[]string{"not in the cache", "nix copy"}},
		{"hosts without a token", []string{"hosts", "web", "--server", url}, []string{"this needs the scope read:web", "--token-file FILE", "NARWHARF_TOKEN_FILE"}},
		{"missing scope", []string{"hosts", "web", "--server", url, "--token-file", pull}, []string{"has pull only", "narwharf token new --scope "}},
		{"missing scope of a channel", []string{"hosts", "db", "--server", url, "--token-file", promote}, []string{"pull, promote:web only", "narwharf token new --scope "}},
		{"a host's token", []string{"hosts", "web", "--server", url, "--token-file", follow}, []string{"narwharf token new --scope "}},
		{"no token file", []string{"hosts", "--server", url, "--token-file", "none"}, []string{"none: no such file"}},
		{"listen is no list", []string{"serve", "--config", "listen.toml"}, []string{"listen.toml: line 1", `listen is a list: put the value in brackets, as listen = ["…"]`}},
		{"another list", []string{"serve", "--config", "keys.toml"}, []string{"line 3", "signing.secret_key_files is a list"}},
		{"a text for a number", []string{"serve", "--config", "priority.toml"}, []string{"line 3", "cache.priority is a number"}},
		{"listen is a port", []string{"serve", "--config", "number.toml"}, []string{`"8080" is neither host:port nor unix:PATH`, "127.0.0.1:8080"}},
		{"init --listen 8080", []string{"init", "e", "--listen", "8080"}, []string{"--listen: ", "127.0.0.1:8080"}},
		{"init --listen with a scheme", []string{"init", "e", "--listen", "http://127.0.0.1:8080"}, []string{"write it as 127.0.0.1:8080"}},
		{"init --listen without a port", []string{"init", "e", "--listen", "localhost"}, []string{"write it as localhost:8080"}},
		{"init --listen of a socket", []string{"init", "e", "--listen", "/run/nw.sock"}, []string{"unix:/run/nw.sock"}},
		{"init --listen with no port that there is", []string{"init", "e", "--listen", "127.0.0.1:808080"}, []string{"no port"}},
		{"serve --listen", []string{"serve", "--listen", "8080"}, []string{"unknown flag: --listen", "listen = [", "config.toml"}},
		{"serve FILE", []string{"serve", "d/config.toml"}, []string{"serve --config d/config.toml"}},
		{"fsck FILE", []string{"fsck", "d/config.toml"}, []string{"fsck --config d/config.toml"}},
		{"serve without a configuration", []string{"serve", "--config", "none.toml"}, []string{"none.toml: no such file"}},
		{"missing argument", []string{"host", "show"}, []string{"HOST is missing", "narwharf host show HOST", "--help"}},
		{"missing argument of promote", []string{"promote"}, []string{"CHANNEL is missing"}},
		{"missing second argument", []string{"host", "label", "web-1"}, []string{"NAME=VALUE… is missing"}},
		{"an argument too much", []string{"hosts", "a", "b"}, []string{`"b" is too much`}},
		{"unknown command", []string{"foo"}, []string{`unknown command "foo"`, "narwharf --help"}},
		{"nearly a command", []string{"promot"}, []string{"did you mean narwharf promote?"}},
		{"unknown member", []string{"host", "foo"}, []string{`unknown command "foo" for "narwharf host"`, "narwharf host --help"}},
		{"nearly a member", []string{"token", "nwe"}, []string{"did you mean narwharf token new?"}},
		{"unknown member with flags", []string{"channel", "--json", "lst"}, []string{""}},
		{"unknown member, help", []string{"agent", "foo", "--help"}, []string{`unknown command "foo"`}},
		{"help of what is not there", []string{"help", "foo"}, []string{`unknown command "foo"`}},
		{"help of a member that is not there", []string{"help", "key", "foo"}, []string{`unknown command "foo"`}},
		{"only a flag behind a group", []string{"budget", "--server", "http://127.0.0.1:1"}, []string{"a command is missing", "narwharf budget --help"}},
		{"a flag of no command", []string{"--bogus"}, []string{"narwharf: unknown flag: --bogus: narwharf --help"}},
		{"no truth", []string{"gc", "--early=perhaps"}, []string{"neither true nor false"}},
		{"a roll-out without a channel", []string{"rollout", "show", "@3", "--server", url}, []string{`"@3" is neither a channel nor CHANNEL@SEQ`}},
		{"missing second argument of deploy", []string{"deploy", "web"}, []string{"[TARGET=]INSTALLABLE… is missing"}},
		{"unknown flag", []string{"hosts", "--jsno"}, []string{"unknown flag: --jsno", "narwharf hosts --help"}},
		{"damaged database", []string{"serve", "--config", "damaged/config.toml"}, []string{"damaged", "mv ", "narwharf rebuild --config "}},
		{"damaged database, other commands", []string{"token", "list", "--config", "damaged/config.toml"}, []string{"narwharf rebuild --config "}},
		{"data_dir is a file", []string{"serve", "--config", "file.toml"}, []string{"data_dir", "has to be a folder"}},
	} {
		out, errs, exit := p.run(row.args...)
		if exit != 2 || out != "" {
			t.Errorf("%s: exit %d, stdout %q", row.name, exit, out)
		}
		for _, words := range row.says {
			if !strings.Contains(errs, words) {
				t.Errorf("%s: no %q in %q", row.name, words, errs)
			}
		}
		if !strings.HasPrefix(errs, "narwharf: ") || strings.Contains(errs, "goroutine ") || strings.Contains(errs, "Usage:") {
			t.Errorf("%s: %q", row.name, errs)
		}
	}
	if _, err := os.Stat(filepath.Join(p.dir, "e")); err == nil {
		t.Error("init made a folder for an address that cannot be one")
	}
	if out, _, exit := p.run("--version"); exit != 0 || !strings.HasPrefix(out, "narwharf ") {
		t.Errorf("--version: %d, %q", exit, out)
	}
}
