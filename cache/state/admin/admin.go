// Package admin is the socket by which a command works on a state that another
// process has open: that process runs the command's function, a [Job], and its lines
// come back as they are printed. If no process has the state open the command runs the
// same function itself, so that one thing is not said in two ways.
//
// The socket is admin.sock in the folder of the state, for root and for the user that
// the server runs as. docs/design/005-one-admin-socket.md says why.
package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"narwharf/cache/state/progress"
)

// A Job is what a command does. Its arguments are JSON, its lines go to out, and exit
// is the command's exit status.
type Job func(ctx context.Context, args json.RawMessage, out io.Writer) (exit int, err error)

const socket = "admin.sock"

// ErrNobody means that no process answers on the socket of a folder.
var ErrNobody = errors.New("nobody answers on the admin socket")

// An event is one line of the answer on the admin socket.
type event struct {
	Out   string `json:"out,omitempty"`
	Error string `json:"error,omitempty"`
	Exit  int    `json:"exit,omitempty"`
	Done  bool   `json:"done,omitempty"`

	Progress *progress.Step `json:"progress,omitempty"` // servers before it said none
}

// path is a name of the socket: that must be shorter than 108 bytes, and so it is
// reached through the folder's descriptor.
func path(dir *os.File) string { return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socket) }

// Dial connects to the process that has the state in dir open. The socket of a process
// that was killed is nobody.
func Dial(dir string) (net.Conn, error) {
	f, err := os.Open(dir)
	var conn net.Conn
	if err == nil {
		defer f.Close()
		conn, err = net.DialTimeout("unix", path(f), 3*time.Second)
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) {
		return nil, ErrNobody
	}
	return conn, err
}

// Run lets the process at the other end of conn run a job.
func Run(ctx context.Context, conn net.Conn, name string, args json.RawMessage, out io.Writer) (exit int, err error) {
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://admin/jobs/"+name, bytes.NewReader(args))
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("ask the running server: %w", err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return 0, fmt.Errorf("the running server answers %s: %q", resp.Status, lines.Text())
		}
		if e.Progress != nil {
			progress.Report(ctx, e.Progress.Name, e.Progress.Done, e.Progress.Total)
			continue
		}
		if _, err := io.WriteString(out, e.Out); err != nil {
			return 0, err
		}
		if !e.Done {
			continue
		}
		if e.Error != "" {
			return e.Exit, errors.New(e.Error)
		}
		return e.Exit, nil
	}
	return 0, fmt.Errorf("the running server stopped before the job ended: %w", errors.Join(lines.Err(), io.ErrUnexpectedEOF))
}
