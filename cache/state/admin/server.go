package admin

import (
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

	"narwharf/cache/state/progress"
)

// A Server runs jobs for others.
type Server struct {
	dir  string
	jobs map[string]Job
	log  *slog.Logger
	http *http.Server
}

// Serve answers on the admin socket of dir, whose state this process has open.
func Serve(dir string, jobs map[string]Job, log *slog.Logger) (*Server, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	short := path(f)
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
	s := &Server{dir: dir, jobs: jobs, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /jobs/{name}", s.answer)
	running, stop := context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return running },
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			uid, err := peerUID(conn)
			if err != nil {
				return ctx
			}
			return context.WithValue(ctx, peerKey{}, uid)
		},
	}
	s.http.RegisterOnShutdown(stop)
	go func() {
		if err := s.http.Serve(&peerListener{l, log}); !errors.Is(err, http.ErrServerClosed) {
			log.Error("admin socket", "error", err)
		}
	}()
	return s, nil
}

type peerKey struct{}

// Peer is the user who has a job run, as the kernel says.
func Peer(ctx context.Context) (uid uint32, ok bool) {
	uid, ok = ctx.Value(peerKey{}).(uint32)
	return uid, ok
}

// Close tells jobs under way to stop and waits for them: they work on the state
// that is closed next.
func (s *Server) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		s.log.Warn("a job on the admin socket did not stop", "error", err)
		s.http.Close()
	}
	_ = os.Remove(filepath.Join(s.dir, socket))
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	run, ok := s.jobs[r.PathValue("name")]
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
	ctx := progress.With(r.Context(), func(s progress.Step) { _ = events.send(event{Progress: &s}) }) // as of the last one
	exit, err := run(ctx, args, events)
	last := event{Done: true, Exit: exit}
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
	if err := e.send(event{Out: string(p)}); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (e *eventWriter) send(ev event) error {
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
