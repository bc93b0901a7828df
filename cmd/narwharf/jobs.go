package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cache/state"
	"narwharf/hooks"
)

// A job is what a command does to data_dir. If a server has it open, the job
// runs inside that server, asked for over the admin socket; else it runs here.
// Either way the same function runs and the same lines come out.
type job func(ctx context.Context, d place, args json.RawMessage, out io.Writer) (exit int, err error)

// place is where a job runs: an open data_dir, and what a server has open of it.
type place struct {
	*dataDir
	cache    *cacheDir     // nil outside of a server: the job opens it
	channels *hooks.Server // likewise
}

// jobs are all jobs by name.
var jobs = map[string]job{
	"token-new":    tokenNew,
	"token-list":   tokenList,
	"token-revoke": tokenRevoke,
	"fsck":         fsckJob,
	"rebuild":      rebuildJob,
}

// A jobEvent is one line of the answer on the admin socket.
type jobEvent struct {
	Out   string `json:"out,omitempty"`
	Error string `json:"error,omitempty"`
	Exit  int    `json:"exit,omitempty"`
	Done  bool   `json:"done,omitempty"`
}

func socketPath(dir string) string { return filepath.Join(dir, "admin.sock") }

// configFlag adds --config to a command.
func configFlag(c *cobra.Command) *string {
	return c.Flags().String("config", "", "the configuration `FILE` (else $NARWHARF_CONFIG, data/config.toml, /etc/narwharf/config.toml)")
}

// startPatience is how long a command waits for a server that is starting: one
// that was killed makes its index agree with the files first.
const startPatience = 30 * time.Second

// runJob runs a job wherever data_dir is open.
func runJob(c *cobra.Command, configPath, name string, args any) error {
	cfg, err := loadConfig(configPath)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(args)
	if err != nil {
		return err
	}
	ctx, out := c.Context(), c.OutOrStdout()
	log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	var d *dataDir
	for begun := time.Now(); d == nil; {
		conn, err := dialAdmin(cfg.DataDir)
		if err == nil {
			return runRemote(ctx, conn, name, raw, out)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("ask the running server: %w", err)
		}
		d, err = openDataDir(cfg, log)
		// A server that has data_dir open and no socket yet is just starting.
		if errors.Is(err, state.ErrInUse) && time.Since(begun) < startPatience && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
	}
	exit, err := jobs[name](ctx, place{dataDir: d}, raw, out)
	if err := errors.Join(err, d.Close()); err != nil {
		return err
	}
	if exit != 0 {
		return exitError{code: exit}
	}
	return nil
}

// dialAdmin connects to the server that has dir open. A socket's path must
// be shorter than 108 bytes, so it is reached through the folder's descriptor.
func dialAdmin(dir string) (net.Conn, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.DialTimeout("unix", fmt.Sprintf("/proc/self/fd/%d/admin.sock", f.Fd()), 3*time.Second)
}

func runRemote(ctx context.Context, conn net.Conn, name string, args []byte, out io.Writer) error {
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://admin/jobs/"+name, bytes.NewReader(args))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the running server: %w", err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e jobEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("the running server answers %s: %q", resp.Status, lines.Text())
		}
		if _, err := io.WriteString(out, e.Out); err != nil {
			return err
		}
		if !e.Done {
			continue
		}
		if e.Error != "" {
			return exitError{code: max(e.Exit, 2), err: errors.New(e.Error)}
		}
		if e.Exit != 0 {
			return exitError{code: e.Exit}
		}
		return nil
	}
	return fmt.Errorf("the running server stopped before the job ended: %w", errors.Join(lines.Err(), io.ErrUnexpectedEOF))
}

// serveAdmin answers on the admin socket until the listener is closed.
func serveAdmin(d place) (*http.Server, error) {
	f, err := os.Open(d.cfg.DataDir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	short := fmt.Sprintf("/proc/self/fd/%d/admin.sock", f.Fd())
	// Whoever made it is gone: we have the database.
	if err := os.Remove(short); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", short)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	if ul, ok := l.(*net.UnixListener); ok {
		ul.SetUnlinkOnClose(false) // by then the descriptor in its name is closed
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /jobs/{name}", func(w http.ResponseWriter, r *http.Request) { answerJob(d, w, r) })
	running, stop := context.WithCancel(context.Background())
	srv := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return running },
	}
	srv.RegisterOnShutdown(stop)
	go func() {
		if err := srv.Serve(&peerListener{l, d.log}); !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("admin socket", "error", err)
		}
	}()
	return srv, nil
}

// stopAdmin tells jobs under way to stop and waits for them: they work on the
// database that is closed next.
func stopAdmin(srv *http.Server, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		log.Warn("a job on the admin socket did not stop", "error", err)
		srv.Close()
	}
}

func answerJob(d place, w http.ResponseWriter, r *http.Request) {
	run, ok := jobs[r.PathValue("name")]
	if !ok {
		http.Error(w, "unknown job: the server may be older than this command", http.StatusNotFound)
		return
	}
	args, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, "arguments: "+err.Error(), http.StatusBadRequest)
		return
	}
	events := &eventWriter{enc: json.NewEncoder(w), flush: http.NewResponseController(w).Flush}
	exit, err := run(r.Context(), d, args, events)
	last := jobEvent{Done: true, Exit: exit}
	if err != nil {
		last.Error = err.Error()
	}
	_ = events.send(last) // whoever asked has gone if this fails
}

// eventWriter sends each write as one event.
type eventWriter struct {
	mu    sync.Mutex
	enc   *json.Encoder
	flush func() error
}

func (e *eventWriter) Write(p []byte) (int, error) {
	if err := e.send(jobEvent{Out: string(p)}); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (e *eventWriter) send(ev jobEvent) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return errors.Join(e.enc.Encode(ev), e.flush())
}

// peerListener lets in root and the user that the server runs as, by what the
// kernel says of the peer; the socket's mode says the same.
type peerListener struct {
	net.Listener
	log *slog.Logger
}

// Accept implements net.Listener.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(conn)
		if err == nil && (uid == 0 || int(uid) == os.Geteuid()) {
			return conn, nil
		}
		l.log.Warn("refused a caller on the admin socket", "uid", uid, "error", err)
		conn.Close()
	}
}

func peerUID(conn net.Conn) (uint32, error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("not a unix socket")
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
