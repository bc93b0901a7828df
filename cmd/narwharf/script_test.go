package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.etcd.io/bbolt"
)

// scriptCommands are what scripts have beside testscript's own commands.
var scriptCommands = map[string]func(*testscript.TestScript, bool, []string){
	"serve":        cmdServe,
	"signal":       cmdSignal,
	"ended":        cmdEnded,
	"await":        cmdAwait,
	"http":         cmdHTTP,
	"upload":       cmdUpload,
	"upload-begin": cmdUploadBegin,
	"upload-end":   cmdUploadEnd,
	"damage":       cmdDamage,
	"bolt-put":     cmdBoltPut,
	"foreign":      cmdForeign,
	"owned-by":     cmdOwnedBy,
	"runs-as":      cmdRunsAs,
	"setenv":       cmdSetenv,
}

type serverKey struct{}

// scriptServer is the one server of a script, and its one slow upload.
type scriptServer struct {
	cmd    *exec.Cmd
	exited chan error
	slow   *slowUpload
}

func theServer(ts *testscript.TestScript) *scriptServer {
	s, ok := ts.Value(serverKey{}).(*scriptServer)
	if !ok {
		ts.Fatalf("Setup made no scriptServer")
	}
	return s
}

// patience bounds every wait of a script.
const patience = 20 * time.Second

// cmdServe: serve ARGUMENTS... starts `narwharf serve` in the background and
// waits for the READY=1 that systemd would get. What it prints goes to the
// files serve.out and serve.err. $URL is where it listens on TCP.
func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	s := theServer(ts)
	if neg || s.cmd != nil {
		ts.Fatalf("usage: serve ARGUMENTS..., one at a time")
	}
	notify, err := os.MkdirTemp("", "nw-notify-") // $WORK may be too long for a socket
	ts.Check(err)
	defer os.RemoveAll(notify)
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(notify, "s"), Net: "unixgram"})
	ts.Check(err)
	defer socket.Close()
	ts.Check(errors.Join(os.Chmod(notify, 0o755), os.Chmod(filepath.Join(notify, "s"), 0o666))) // it may change its user

	bin, err := lookPath(ts, "narwharf")
	ts.Check(err)
	out, err := os.Create(ts.MkAbs("serve.out"))
	ts.Check(err)
	defer out.Close()
	log, err := os.Create(ts.MkAbs("serve.err"))
	ts.Check(err)
	defer log.Close()
	cmd := exec.Command(bin, append([]string{"serve"}, args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), out, log
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(notify, "s"))
	ts.Check(cmd.Start())
	s.cmd, s.exited = cmd, make(chan error, 1)
	go func() { s.exited <- cmd.Wait() }()
	ts.Defer(func() {
		if s.cmd != nil {
			_ = s.cmd.Process.Kill()
			<-s.exited
			s.cmd = nil
		}
	})

	ready := make(chan error, 1)
	go func() {
		buf := make([]byte, 100)
		_ = socket.SetReadDeadline(time.Now().Add(patience))
		n, err := socket.Read(buf)
		if err == nil && string(buf[:n]) != "READY=1" {
			err = fmt.Errorf("it told systemd %q, not READY=1", buf[:n])
		}
		ready <- err
	}()
	select {
	case err = <-ready:
	case err = <-s.exited:
		s.exited <- err
		err = fmt.Errorf("it ended: %w", err)
	}
	if err != nil {
		ts.Fatalf("serve: %v\n%s", err, ts.ReadFile("serve.err"))
	}
	if m := regexp.MustCompile(`address=(\d+\.[\d.]+:\d+)`).FindStringSubmatch(ts.ReadFile("serve.err")); m != nil {
		ts.Setenv("URL", "http://"+m[1])
	}
}

// lookPath finds a program in the script's PATH, not in ours.
func lookPath(ts *testscript.TestScript, name string) (string, error) {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if p := filepath.Join(dir, name); isExecutable(p) {
			return p, nil
		}
	}
	return "", fmt.Errorf("no %s in the script's PATH", name)
}

func isExecutable(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

var scriptSignals = map[string]syscall.Signal{
	"TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL, "HUP": syscall.SIGHUP, "INT": syscall.SIGINT,
}

// cmdSignal: signal TERM|KILL|HUP|INT sends it to the server.
func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	s := theServer(ts)
	if neg || len(args) != 1 || s.cmd == nil || scriptSignals[args[0]] == 0 {
		ts.Fatalf("usage: signal TERM|KILL|HUP|INT, after serve")
	}
	ts.Check(s.cmd.Process.Signal(scriptSignals[args[0]]))
}

// cmdEnded: ended waits for the server's end, with exit status 0; with ! it
// has to be another end. `ended -not` says that it still runs.
func cmdEnded(ts *testscript.TestScript, neg bool, args []string) {
	s := theServer(ts)
	if s.cmd == nil {
		ts.Fatalf("no server runs")
	}
	if len(args) == 1 && args[0] == "-not" {
		select {
		case err := <-s.exited:
			ts.Fatalf("the server ended: %v\n%s", err, ts.ReadFile("serve.err"))
		case <-time.After(300 * time.Millisecond):
		}
		return
	}
	select {
	case err := <-s.exited:
		s.cmd = nil
		if (err != nil) != neg {
			ts.Fatalf("the server ended: %v\n%s", err, ts.ReadFile("serve.err"))
		}
	case <-time.After(patience):
		ts.Fatalf("the server does not end\n%s", ts.ReadFile("serve.err"))
	}
}

// cmdAwait: await FILE REGEXP waits until the file has a line like that.
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE REGEXP")
	}
	want := regexp.MustCompile("(?m)" + args[1])
	for end := time.Now().Add(patience); !want.MatchString(ts.ReadFile(args[0])); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("%s never has %q:\n%s", args[0], args[1], ts.ReadFile(args[0]))
		}
	}
}

// cmdHTTP: http [-unix SOCKET] [-auth FILE] [-header LINE] [-status N] METHOD PATH [FILE]
// asks the server and prints the body to stdout; 200 is expected, and 201 of
// a PUT. FILE is the body to send.
func cmdHTTP(ts *testscript.TestScript, neg bool, args []string) {
	socket, auth, header, want := "", "", "", 0
	for len(args) > 1 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-unix":
			socket = args[1]
		case "-auth":
			auth = args[1]
		case "-header":
			header = args[1]
		case "-status":
			n, err := strconv.Atoi(args[1])
			ts.Check(err)
			want = n
		default:
			ts.Fatalf("http: unknown flag %s", args[0])
		}
		args = args[2:]
	}
	if neg || len(args) < 2 {
		ts.Fatalf("usage: http [-unix SOCKET] [-auth FILE] [-header LINE] [-status N] METHOD PATH [FILE]")
	}
	var body []byte
	if len(args) > 2 {
		body = []byte(ts.ReadFile(args[2]))
	}
	status, text, err := request(ts, socket, auth, header, args[0], args[1], body)
	ts.Check(err)
	if want == 0 {
		if want = http.StatusOK; args[0] == http.MethodPut {
			want = http.StatusCreated
		}
	}
	if status != want {
		ts.Fatalf("%s %s: status %d, want %d: %s", args[0], args[1], status, want, text)
	}
	_, err = ts.Stdout().Write(text)
	ts.Check(err)
}

func request(ts *testscript.TestScript, socket, auth, header, method, path string, body []byte) (int, []byte, error) {
	base, transport := ts.Getenv("URL"), &http.Transport{DisableKeepAlives: true}
	if socket != "" {
		base = "http://localhost"
		transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", ts.MkAbs(socket))
		}
	}
	req, err := http.NewRequest(method, base+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if auth != "" {
		req.SetBasicAuth("any", strings.TrimSpace(ts.ReadFile(auth)))
	}
	if name, value, ok := strings.Cut(header, ": "); ok {
		req.Header.Set(name, value)
	}
	resp, err := (&http.Client{Transport: transport, Timeout: patience}).Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, text, err
}

// cmdDamage: damage FILE flips a bit in the middle of a file.
func cmdDamage(ts *testscript.TestScript, _ bool, args []string) {
	name := ts.MkAbs(args[0])
	text, err := os.ReadFile(name)
	ts.Check(err)
	text[len(text)/2] ^= 1
	ts.Check(os.WriteFile(name, text, 0o644))
}

// cmdBoltPut: bolt-put FILE BUCKET[/BUCKET] KEY VALUE changes a database.
func cmdBoltPut(ts *testscript.TestScript, _ bool, args []string) {
	db, err := bbolt.Open(ts.MkAbs(args[0]), 0o600, &bbolt.Options{Timeout: time.Second})
	ts.Check(err)
	defer db.Close()
	ts.Check(db.Update(func(tx *bbolt.Tx) error {
		names := strings.Split(args[1], "/")
		b := tx.Bucket([]byte(names[0]))
		for _, name := range names[1:] {
			b = b.Bucket([]byte(name))
		}
		return b.Put([]byte(args[2]), []byte(args[3]))
	}))
}

// cmdForeign: foreign VARIABLE UID makes a folder of that user that everybody
// can reach, and sets the variable to it. $WORK is root's alone.
func cmdForeign(ts *testscript.TestScript, _ bool, args []string) {
	uid, err := strconv.Atoi(args[1])
	ts.Check(err)
	dir, err := os.MkdirTemp("", "nw-foreign-")
	ts.Check(err)
	ts.Defer(func() { _ = os.RemoveAll(dir) })
	ts.Check(errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, uid, uid)))
	ts.Setenv(args[0], dir)
}

// cmdOwnedBy: owned-by UID DIR sees that all in DIR belongs to that user.
func cmdOwnedBy(ts *testscript.TestScript, _ bool, args []string) {
	uid, err := strconv.Atoi(args[0])
	ts.Check(err)
	files := 0
	ts.Check(filepath.WalkDir(ts.MkAbs(args[1]), func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Lstat(name)
		if err != nil {
			return err
		}
		files++
		if owner, ok := st.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != uid || int(owner.Gid) != uid {
			return fmt.Errorf("%s belongs to %d:%d", name, owner.Uid, owner.Gid)
		}
		return nil
	}))
	ts.Logf("%d files of uid %d", files, uid)
}

// cmdRunsAs: runs-as UID sees that the server runs as that user, in all its
// four identities.
func cmdRunsAs(ts *testscript.TestScript, _ bool, args []string) {
	status := ts.ReadFile(fmt.Sprintf("/proc/%d/status", theServer(ts).cmd.Process.Pid))
	for _, want := range []string{"\nUid:", "\nGid:"} {
		want += strings.Repeat("\t"+args[0], 4) + "\n"
		if !strings.Contains(status, want) {
			ts.Fatalf("no %q in %s", want, status)
		}
	}
}

// cmdSetenv: setenv NAME FILE sets a variable to what the file holds, without
// the newline at its end.
func cmdSetenv(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSuffix(ts.ReadFile(args[1]), "\n"))
}
