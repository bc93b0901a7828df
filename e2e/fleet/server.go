package fleet

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"narwharf/e2e"
)

const (
	configFile = "/srv/narwharf/config.toml"
)

// A server is the machine `cache`, or `edge`; its handle is [Server].
type server struct {
	*machine
	mu     sync.Mutex
	cmd    *exec.Cmd // nsenter around narwharf; nil when stopped
	exited chan struct{}
	ran    bool
}

// Server runs `narwharf serve` as http://cache (or http://edge), with its data in /srv/narwharf.
type Server struct {
	Machine
	s *server
}

// Server is the fleet's server.
func (f *Fleet) Server() *Server { return f.serverOf(f.server) }

// Edge is the server of a site, with [Options].Edge.
func (f *Fleet) Edge() *Server { return f.serverOf(f.edge) }

func (f *Fleet) serverOf(s *server) *Server {
	argv := func(args ...string) ([]string, error) { return s.chroot(args...), nil }
	return &Server{Machine: Machine{T: f.T, m: s.machine, argv: argv}, s: s}
}

// setUpServer makes a machine for a server, puts it into at, and starts it. edit may be nil.
func (f *Fleet) setUpServer(at **server, name, bin string, edit func(string) string) error {
	m, err := f.newMachine(name, environment("NARWHARF_CONFIG="+configFile), "proc=1")
	if err != nil {
		return err
	}
	*at = &server{machine: m}
	if err := m.layerFile(bin, "usr/local/bin/narwharf"); err != nil {
		return err
	}
	if err := m.mount(); err != nil {
		return err
	}
	s := f.serverOf(*at)
	s.Must("narwharf", "init", filepath.Dir(configFile), "--listen", m.address+":80", "--key-name", name+"-1")
	f.keys[name+"-1"] = s.Sh("cat /srv/narwharf/keys/*.pub")
	if edit != nil {
		s.Configure(edit)
	}
	if e2e.FastPathOff() {
		s.Configure(func(toml string) string { return toml + "\n[limits]\nfast_path = false\n" })
	}
	return s.start()
}

// URL is the base of the cache, without a slash at its end.
func (s *Server) URL() string { return "http://" + s.s.name }

// Configure edits config.toml; a running server sees it after [Server.Restart].
func (s *Server) Configure(edit func(toml string) string) {
	s.T.Helper()
	s.WriteFile(configFile, edit(s.ReadFile(configFile)), 0o644)
}

func (s *Server) logFile() string { return filepath.Join(s.s.dir(), "log") }

// Start starts the server and waits until it is ready.
func (s *Server) Start() {
	s.T.Helper()
	if err := s.start(); err != nil {
		s.T.Fatalf("start the server: %v\n%s", err, e2e.Tail(s.Log(), 3000))
	}
}

func (s *Server) start() error {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	if s.s.cmd != nil {
		return fmt.Errorf("it runs already")
	}
	log, err := os.OpenFile(s.logFile(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	argv := s.s.chroot("narwharf", "serve", "--config", configFile)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Dir = "/"
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	s.s.cmd, s.s.exited, s.s.ran = cmd, exited, true
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		select {
		case <-exited:
			s.s.cmd = nil
			return fmt.Errorf("it ended with %v\n%s", cmd.ProcessState, e2e.Tail(s.Log(), 3000))
		default:
		}
		if s.ready() {
			return nil
		}
	}
	return fmt.Errorf("not ready\n%s", e2e.Tail(s.Log(), 3000))
}

func (s *Server) ready() bool {
	res, err := s.HTTP().Get(s.URL() + "/readyz")
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// Pid is the server's process, 0 when it does not run.
func (s *Server) Pid() int {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	if s.s.cmd == nil {
		return 0
	}
	found, err := children(s.s.cmd.Process.Pid)
	if err != nil || len(found) != 1 {
		return 0
	}
	return found[0]
}

// Signal sends a signal to the server.
func (s *Server) Signal(sig syscall.Signal) {
	s.T.Helper()
	pid := s.Pid()
	if pid == 0 {
		s.T.Fatal("the server does not run")
	}
	if err := syscall.Kill(pid, sig); err != nil {
		s.T.Fatalf("send %v to the server: %v", sig, err)
	}
}

// Stop ends the server with SIGTERM and expects exit code 0.
func (s *Server) Stop() {
	s.T.Helper()
	s.Signal(syscall.SIGTERM)
	if !s.gone(30 * time.Second) {
		s.Signal(syscall.SIGKILL)
		s.T.Fatalf("the server does not stop\n%s", e2e.Tail(s.Log(), 3000))
	}
	if code := s.s.cmd.ProcessState.ExitCode(); code != 0 {
		s.T.Errorf("the server ended with %v\n%s", s.s.cmd.ProcessState, e2e.Tail(s.Log(), 3000))
	}
	s.forget()
}

// Kill ends the server with SIGKILL.
func (s *Server) Kill() {
	s.T.Helper()
	s.Signal(syscall.SIGKILL)
	if !s.gone(10 * time.Second) {
		s.T.Fatal("the server does not die")
	}
	s.forget()
}

// Restart stops and starts the server.
func (s *Server) Restart() {
	s.T.Helper()
	s.Stop()
	s.Start()
}

func (s *Server) gone(limit time.Duration) bool {
	select {
	case <-s.s.exited:
		return true
	case <-time.After(limit):
		return false
	}
}

func (s *Server) forget() {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	s.s.cmd = nil
}

// Token makes a token of some scopes and returns it.
func (s *Server) Token(name string, scopes ...string) string {
	s.T.Helper()
	args := []string{"narwharf", "token", "new", "--config", configFile, "--name", name}
	for _, scope := range scopes {
		args = append(args, "--scope", scope)
	}
	return s.Must(args...)
}

// Narwharf runs a command of the binary on the server's machine.
func (s *Server) Narwharf(args ...string) Output {
	s.T.Helper()
	return s.Exec(append([]string{"narwharf"}, args...)...)
}

// Log is what the server wrote, over all starts.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// close stops the server and asks what has to hold of every server after every test: no panic in
// its log, and fsck finds nothing.
func (s *Server) close() {
	s.T.Helper()
	if !s.s.ran {
		return
	}
	if s.Pid() != 0 {
		s.Stop()
	}
	if out := s.Narwharf("fsck", "--config", configFile); out.Code != 0 {
		s.T.Errorf("fsck finds damage: %v", out)
	}
	crashed(s.T, s.s.name, s.Log())
}

// crashed fails the test when a log tells of a Go program's unexpected end.
func crashed(t testing.TB, name, log string) {
	t.Helper()
	for _, bad := range []string{"panic:", "panic serving", "WARNING: DATA RACE", "fatal error:"} {
		if _, after, found := strings.Cut(log, bad); found {
			t.Errorf("the log of %s holds %q:\n%s%s", name, bad, bad, after[:min(len(after), 3000)])
		}
	}
}
