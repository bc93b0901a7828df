package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A job's lines, end and error come through the socket; a job that is under way when
// the server closes is told to stop.
func TestJobs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40)) // longer than a socket's name may be
	if _, err := Dial(dir); !errors.Is(err, ErrNobody) {
		t.Fatalf("no folder: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(dir); !errors.Is(err, ErrNobody) {
		t.Fatalf("no socket: %v", err)
	}
	started := make(chan struct{})
	jobs := map[string]Job{
		"echo": func(_ context.Context, args json.RawMessage, out io.Writer) (int, error) {
			fmt.Fprintf(out, "first\n")
			fmt.Fprintf(out, "%s\n", args)
			return 1, nil
		},
		"fail": func(context.Context, json.RawMessage, io.Writer) (int, error) { return 2, errors.New("no disk") },
		"wait": func(ctx context.Context, _ json.RawMessage, _ io.Writer) (int, error) {
			close(started)
			<-ctx.Done()
			return 0, ctx.Err()
		},
	}
	s, err := Serve(dir, jobs, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, socket)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	run := func(name string) (string, int, error) {
		conn, err := Dial(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		var out strings.Builder
		exit, err := Run(context.Background(), conn, name, json.RawMessage(`{"a":1}`), &out)
		return out.String(), exit, err
	}
	if out, exit, err := run("echo"); out != "first\n{\"a\":1}\n" || exit != 1 || err != nil {
		t.Errorf("%q, %d, %v", out, exit, err)
	}
	if out, exit, err := run("fail"); out != "" || exit != 2 || err == nil || err.Error() != "no disk" {
		t.Errorf("%q, %d, %v", out, exit, err)
	}
	if _, _, err := run("none"); err == nil || !strings.Contains(err.Error(), "unknown job: the server may be older") {
		t.Error(err)
	}
	done := make(chan error)
	go func() {
		_, _, err := run("wait")
		done <- err
	}()
	<-started
	s.Close()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Error(err)
	}
	if _, err := Dial(dir); !errors.Is(err, ErrNobody) {
		t.Errorf("after the end: %v", err)
	}
}

// The socket of a process that was killed is in nobody's way.
func TestLeftSocket(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		s, err := Serve(dir, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := Dial(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Run(t.Context(), conn, "none", nil, io.Discard); err == nil {
			t.Fatal("there are no jobs")
		}
		s.http.Close() // the file stays
		if _, err := Dial(dir); !errors.Is(err, ErrNobody) {
			t.Fatal(err)
		}
	}
}
