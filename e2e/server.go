package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A Server is one narwharf with a folder of its own: config.toml, keys, data/, log. It listens on
// 127.0.0.1 on one port for its whole life, restarts included, and on a unix socket in its folder.
type Server struct {
	metricsToken string

	T    testing.TB
	Dir  string // holds config.toml
	Data string // its data_dir
	Port int
	Key  Key    // the signing key it starts with
	Log  string // file with all it wrote, over all starts

	config Config
	bin    string
	prefix []string // put before the program, to run it in another namespace
	files  func(string) string
	cmd    *exec.Cmd
	exited chan struct{}
	client http.Client
}

// NewServer writes a configuration and starts the binary. edit may change the configuration and be
// nil. When the test ends the server is stopped and the invariants of [Server.Check] are asked.
func NewServer(t testing.TB, edit func(*Config)) *Server {
	t.Helper()
	s := newServer(t, scratch(t), edit)
	s.Start()
	return s
}

func newServer(t testing.TB, dir string, edit func(*Config)) *Server {
	t.Helper()
	s := &Server{
		T: t, Dir: dir, Data: filepath.Join(dir, "data"), Port: freePort(t), Log: filepath.Join(dir, "log"),
		bin: narwharfBin(t), files: func(name string) string { return name },
		client: http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	s.Key = NewKey(fmt.Sprintf("e2e-%d", s.Port)) // to a client two keys of one name are one
	s.config = Config{
		Listen:         []string{fmt.Sprintf("127.0.0.1:%d", s.Port), "unix:" + filepath.Join(dir, "http.sock")},
		DataDir:        "data", // relative to the file
		SecretKeyFiles: []string{s.WriteKey(s.Key)},
		Anonymous:      []string{"pull"},
	}
	if edit != nil {
		edit(&s.config)
	}
	if a := s.config.TLS; a != nil {
		s.client.Transport = &http.Transport{DisableKeepAlives: true, TLSClientConfig: a.Client()}
	}
	s.WriteConfig()
	t.Cleanup(s.close)
	return s
}

// URL is the base of the cache, without a slash at its end.
func (s *Server) URL() string {
	if s.config.TLS != nil {
		return fmt.Sprintf("https://127.0.0.1:%d", s.Port)
	}
	return fmt.Sprintf("http://127.0.0.1:%d", s.Port)
}

// Addr is host:port.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }

func (s *Server) configFile() string { return filepath.Join(s.Dir, "config.toml") }

// WriteConfig writes the configuration as it stands in s; a running server does not see it before
// SIGHUP or restart.
func (s *Server) WriteConfig() {
	s.T.Helper()
	c := s.config
	if c.FastPath == nil && FastPathOff() && s.bin == narwharfBin(s.T) {
		c.FastPath = new(bool)
	}
	s.writeFile(s.configFile(), c.TOML(), 0o644)
}

// Reconfigure changes the configuration file.
func (s *Server) Reconfigure(edit func(*Config)) {
	s.T.Helper()
	edit(&s.config)
	s.WriteConfig()
}

// WriteKey puts a secret key into the server's folder and returns its file name relative to it.
func (s *Server) WriteKey(k Key) string {
	s.T.Helper()
	name := k.Name + ".sec"
	s.writeFile(filepath.Join(s.Dir, name), k.Secret()+"\n", 0o600)
	return name
}

func (s *Server) writeFile(name, text string, mode os.FileMode) {
	s.T.Helper()
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		s.T.Fatal(err)
	}
}

// Start starts the binary and waits until /readyz says 200.
func (s *Server) Start() {
	s.T.Helper()
	if s.cmd != nil {
		s.T.Fatal("the server runs already")
	}
	log, err := os.OpenFile(s.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		s.T.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	argv := s.argv("serve", "--config", s.configFile())
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, ownGroup()
	if err := cmd.Start(); err != nil {
		s.T.Fatalf("start %s: %v", s.bin, err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	s.cmd, s.exited = cmd, exited
	if !s.waitReady(20 * time.Second) {
		s.T.Fatalf("the server did not become ready\n%s", s.LogTail())
	}
}

func (s *Server) waitReady(limit time.Duration) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(15 * time.Millisecond) {
		if !s.Running() {
			return false
		}
		res, err := s.client.Get(s.URL() + "/readyz")
		if err != nil {
			continue
		}
		_ = res.Body.Close()
		if res.StatusCode == http.StatusOK {
			return true
		}
	}
	return false
}

// Running reports whether the process has not ended.
func (s *Server) Running() bool {
	if s.cmd == nil {
		return false
	}
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// Signal sends a signal to the server.
func (s *Server) Signal(sig os.Signal) {
	s.T.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.T.Fatalf("send %v to the server: %v\n%s", sig, err, s.LogTail())
	}
}

// Stop ends the server with SIGTERM and expects exit code 0.
func (s *Server) Stop() {
	s.T.Helper()
	if s.cmd == nil {
		return
	}
	if s.Running() {
		s.Signal(syscall.SIGTERM)
	}
	s.waitExit(30 * time.Second)
}

// waitExit waits for the end of a server that was told to stop, and expects exit code 0.
func (s *Server) waitExit(limit time.Duration) {
	s.T.Helper()
	select {
	case <-s.exited:
	case <-time.After(limit):
		_ = s.cmd.Process.Kill()
		<-s.exited
		s.cmd = nil
		s.T.Errorf("the server did not stop within %v of SIGTERM\n%s", limit, s.LogTail())
		return
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		s.T.Errorf("the server ended with %v\n%s", s.cmd.ProcessState, s.LogTail())
	}
	s.cmd = nil
}

// Kill ends the server with SIGKILL.
func (s *Server) Kill() {
	s.T.Helper()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
	s.cmd = nil
}

// argv is the binary with arguments, as it is run for this server.
func (s *Server) argv(args ...string) []string {
	return append(append(append([]string(nil), s.prefix...), s.bin), args...)
}

// CLI runs a command of the binary that takes --config, whether or not the server runs.
func (s *Server) CLI(args ...string) Output {
	s.T.Helper()
	return run(s.T, program{argv: s.argv(append(args, "--config", s.configFile())...), dir: s.Dir})
}

// Token makes a token of some scopes and returns it.
func (s *Server) Token(name string, scopes ...string) string {
	s.T.Helper()
	args := []string{"token", "new", "--name", name}
	for _, scope := range scopes {
		args = append(args, "--scope", scope)
	}
	out := s.CLI(args...)
	token := out.Line()
	if out.Code != 0 || token == "" || strings.ContainsAny(token, " \n\t:") {
		s.T.Fatalf("token new: not one token alone on standard output\n%v", out)
	}
	return token
}

// Metrics is the page of /metrics.
func (s *Server) Metrics() string {
	s.T.Helper()
	if s.metricsToken == "" {
		s.metricsToken = s.Token("metrics-page", "admin") // the previous build has no scope of that name
	}
	u := NewUploader(s.T, s.URL(), s.metricsToken)
	if a := s.config.TLS; a != nil {
		u.Client.Transport = &http.Transport{DisableKeepAlives: true, TLSClientConfig: a.Client()}
	}
	return u.Get("/metrics").Body
}

// Fsck runs `narwharf fsck` and fails the test unless it finds nothing.
func (s *Server) Fsck() {
	s.T.Helper()
	if out := s.CLI("fsck"); out.Code != 0 {
		s.T.Errorf("fsck finds damage\n%v\n%s", out, s.LogTail())
	}
}

// Files is a snapshot of data_dir without the database, the copy of its tokens and the admin socket.
func (s *Server) Files() snapshot {
	s.T.Helper()
	s.settled()
	return takeSnapshot(s.T, s.files(s.Data), "narwharf.db", "tokens", "admin.sock")
}

// settled waits while an answered NAR gets its name, which takes no client's time (docs/design/084). What was
// left behind stays, for who looks for it.
func (s *Server) settled() {
	for range 100 {
		fresh, err := filepath.Glob(filepath.Join(s.files(s.Data), "tmp", ".new-*"))
		if err != nil || len(fresh) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Check asks the invariants of a stopped server: fsck is clean, no temporary file is left, the log
// tells of no panic and no data race.
func (s *Server) Check() {
	s.T.Helper()
	s.Fsck()
	for name := range s.Files() {
		if strings.HasPrefix(name, "tmp"+string(filepath.Separator)) {
			s.T.Errorf("left behind: %s", name)
		}
	}
	text, err := os.ReadFile(s.Log)
	if err != nil {
		s.T.Error(err)
	}
	for _, bad := range []string{"panic", "DATA RACE", "fatal error:", "goroutine 1 ["} {
		if at := strings.Index(string(text), bad); at >= 0 {
			from := max(0, strings.LastIndexByte(string(text[:at]), '\n'))
			s.T.Errorf("the log holds %q\n%s", bad, text[from:min(from+4000, len(text))])
		}
	}
}

func (s *Server) close() {
	s.T.Helper()
	if s.cmd != nil {
		s.Stop()
		s.Check()
	}
	if s.T.Failed() {
		s.T.Logf("end of the server's log:\n%s", s.LogTail())
	}
}

// LogTail is the end of what the server wrote.
func (s *Server) LogTail() string {
	text, err := os.ReadFile(s.Log)
	if err != nil {
		return err.Error()
	}
	return Tail(string(text), 6000)
}

// lastPort counts up through a range below the ephemeral ports, so that two servers of this run
// never share one and a restarted server finds its own free.
var lastPort atomic.Int32

func init() { lastPort.Store(20000 + int32(os.Getpid()%97)*100) }

func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := int(lastPort.Add(1))
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		_ = ln.Close()
		return port
	}
	t.Fatal("no free port")
	return 0
}
