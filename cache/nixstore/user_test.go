package nixstore

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"narwharf/narinfo"
)

const (
	nobody    = 65534
	helperEnv = "NIXSTORE_TEST_HELPER"
)

// TestMain makes the test binary a second program when it is told to: a reader
// in a process of its own, which can belong to another user.
func TestMain(m *testing.M) {
	if o := os.Getenv(helperEnv); o != "" {
		helper(o)
		return
	}
	os.Exit(m.Run())
}

// answer is what the helper prints for one question.
type answer struct {
	Error       string
	Kind        string // of the error: a sentinel's text
	Backend     string
	Fingerprint string
	Paths       int
	Version     string
}

// helper answers "open", "info PATH", "closure PATH" and "version" lines.
func helper(options string) {
	var o Options
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		panic(err)
	}
	out := json.NewEncoder(os.Stdout)
	var s *Store
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		op, arg, _ := strings.Cut(in.Text(), " ")
		var a answer
		var err error
		switch op {
		case "open":
			s, err = Open(o)
		case "info":
			var i *narinfo.Info
			if i, err = s.Info(context.Background(), narinfo.Path(arg)); err == nil {
				a.Fingerprint = string(i.AppendFingerprint(nil))
			}
		case "closure":
			var all []*narinfo.Info
			all, err = s.Closure(context.Background(), narinfo.Path(arg))
			a.Paths = len(all)
		case "version":
			var v Version
			v, err = s.Version(context.Background())
			a.Version = fmt.Sprint(v)
		}
		if err != nil {
			a.Error = err.Error()
			for _, kind := range []error{ErrNotValid, ErrUnavailable, ErrLocked} {
				if errors.Is(err, kind) {
					a.Kind = kind.Error()
				}
			}
		}
		if s != nil {
			a.Backend = s.Backend()
		}
		if err := out.Encode(a); err != nil {
			break
		}
	}
	if s != nil {
		if err := s.Close(); err != nil {
			panic(err)
		}
	}
}

// reader is a helper process.
type reader struct {
	t   *testing.T
	mu  sync.Mutex
	in  io.WriteCloser
	out *json.Decoder
	cmd *exec.Cmd
}

// startReader starts a helper as a user, which needs root if it is another.
func startReader(t *testing.T, uid int, o Options) *reader {
	t.Helper()
	if uid != os.Getuid() && os.Getuid() != 0 {
		skip(t, "needs root, to be another user")
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		skip(t, "needs /proc, to start this test as another user")
	}
	defer self.Close()
	program := shortDir(t) + "/reader" // go test's own directory is closed to others
	copied, err := os.OpenFile(program, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(copied, self); err != nil {
		t.Fatal(err)
	}
	if err := copied.Close(); err != nil {
		t.Fatal(err)
	}
	options, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Dir = "/"
	cmd.Env = []string{helperEnv + "=" + string(options)}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := &reader{t: t, in: in, out: json.NewDecoder(out), cmd: cmd}
	t.Cleanup(r.stop)
	return r
}

// stop lets the reader close its store and end.
func (r *reader) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd == nil {
		return
	}
	_ = r.in.Close()
	if err := r.cmd.Wait(); err != nil {
		r.t.Errorf("reader: %v", err)
	}
	r.cmd = nil
}

func (r *reader) ask(question string) answer {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := fmt.Fprintln(r.in, question); err != nil {
		r.t.Fatal(err)
	}
	var a answer
	if err := r.out.Decode(&a); err != nil {
		r.t.Fatalf("%s: %v", question, err)
	}
	return a
}

// has asks for i and wants what is known of it, out of the database.
func (r *reader) has(i *PathInfo) {
	r.t.Helper()
	if a := r.ask("info " + string(i.Path)); a.Error != "" || a.Fingerprint != string(i.AppendFingerprint(nil)) || a.Backend != "database" {
		r.t.Errorf("info %s: %+v", i.Path, a)
	}
}

func (r *reader) hasNot(p narinfo.Path) {
	r.t.Helper()
	if a := r.ask("info " + string(p)); a.Kind != ErrNotValid.Error() || a.Backend != "database" {
		r.t.Errorf("info %s: %+v", p, a)
	}
}

// skip says what is missing, and fails where everything has to be there.
func skip(t testing.TB, missing string) {
	t.Helper()
	if os.Getenv("NARWHARF_CI") == "1" {
		t.Fatal(missing)
	}
	t.Skip(missing)
}

func (f *fixture) options() Options {
	return Options{StoreDir: f.storeDir, StateDir: f.state, Timeout: 2 * time.Second}
}

// users are who reads: the owner of the store, and somebody else.
func users(t *testing.T, run func(t *testing.T, uid int)) {
	t.Run("owner", func(t *testing.T) { run(t, os.Getuid()) })
	t.Run("other", func(t *testing.T) { run(t, nobody) })
}

func TestReaderBesideWriter(t *testing.T) {
	users(t, func(t *testing.T, uid int) {
		f := newFixture(t, "/nix/store")
		infos := pathInfos("/nix/store", 50, 3)
		f.put(infos...)
		r := startReader(t, uid, f.options())
		if a := r.ask("open"); a.Error != "" {
			t.Fatal(a.Error)
		}
		last := r.ask("version").Version
		for n := range 30 {
			i := pathInfo("/nix/store", fmt.Sprint("new-", n), infos[n].Path)
			r.hasNot(i.Path)
			f.put(i)
			r.has(i)
			if a := r.ask("closure " + string(i.Path)); a.Paths != 1+len(closureOf(infos, infos[n].Path)) {
				t.Errorf("%+v", a)
			}
			if n%3 == 0 {
				f.exec("pragma wal_checkpoint(truncate)")
				r.has(i)
			}
			f.remove(i.Path)
			r.hasNot(i.Path)
			v := r.ask("version").Version
			if v == "" || v == last {
				t.Errorf("version %s", v)
			}
			last = v
		}
	})
}

// TestFirstCommit is a WAL that nobody has read: the one process that has it
// open wrote once and does nothing more. Only a reader that may write to the
// -shm file can mark what it reads there (SQLITE_READONLY_CANTLOCK).
func TestFirstCommit(t *testing.T) {
	users(t, func(t *testing.T, uid int) {
		f := newFixture(t, "/nix/store")
		i := pathInfo("/nix/store", "x")
		i.References = nil
		f.exec("pragma wal_checkpoint(truncate)")
		if err := f.w.Close(); err != nil { // takes the -wal and -shm files away
			t.Fatal(err)
		}
		f.connect("wal")
		f.put(i)
		r := startReader(t, uid, f.options())
		if a := r.ask("open"); a.Error != "" {
			t.Fatal(a.Error)
		}
		r.has(i)
	})
}

// TestNobodyHasItOpen is a store that Nix 2.22 or later has left.
func TestNobodyHasItOpen(t *testing.T) {
	users(t, func(t *testing.T, uid int) {
		f := newFixture(t, "/nix/store")
		infos := pathInfos("/nix/store", 50, 3)
		f.put(infos...)
		f.leaveWAL()
		before := f.snapshot()
		r := startReader(t, uid, f.options())
		if a := r.ask("open"); a.Error != "" {
			t.Fatal(a.Error)
		}
		for _, i := range infos {
			r.has(i)
		}
		if a := r.ask("closure " + string(infos[49].Path)); a.Paths != len(closureOf(infos, infos[49].Path)) {
			t.Errorf("%+v", a)
		}
		second := startReader(t, uid, f.options())
		second.ask("open")
		second.has(infos[7])
		second.stop()
		if after := f.snapshot(); after != before {
			t.Errorf("the state directory is\n%s\nand was\n%s", after, before)
		}
		// And Nix comes back.
		f.connect("wal")
		i := pathInfo("/nix/store", "x")
		f.put(i)
		r.has(i)
		f.remove(i.Path)
		r.hasNot(i.Path)
	})
}

// TestWriterDied leaves commits in the WAL that are not in the database file,
// and a WAL index that nobody vouches for.
func TestWriterDied(t *testing.T) {
	users(t, func(t *testing.T, uid int) {
		f := newFixture(t, "/nix/store")
		f.exec("pragma wal_checkpoint(truncate)")
		infos := pathInfos("/nix/store", 50, 3)
		f.put(infos...)
		// A copy is what is on disk at this moment, as after kill -9.
		died := &fixture{t: t, storeDir: f.storeDir, state: shortDir(t)}
		if out, err := exec.Command("cp", "-a", f.state+"/.", died.state).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		before := died.snapshot()
		r := startReader(t, uid, died.options())
		if a := r.ask("open"); a.Error != "" {
			t.Fatal(a.Error)
		}
		for _, i := range infos {
			r.has(i)
		}
		r.stop()
		if after := died.snapshot(); after != before {
			t.Errorf("the state directory is\n%s\nand was\n%s", after, before)
		}
	})
}

// TestNoWAL is a store that Nix before 2.22 has left. Nobody, not even the
// owner, may make the files that are missing.
func TestNoWAL(t *testing.T) {
	users(t, func(t *testing.T, uid int) {
		f := newFixture(t, "/nix/store")
		f.put(pathInfos("/nix/store", 50, 3)...)
		if err := f.w.Close(); err != nil {
			t.Fatal(err)
		}
		before := f.snapshot()
		r := startReader(t, uid, f.options())
		a := r.ask("open")
		db, socket := databaseIn(f.state), f.state+"/daemon-socket/socket"
		if want := "the local Nix store cannot be read: the database " + db +
			" has no -wal file beside it, which only Nix may create; nix-daemon does not answer on " + socket +
			": there is no such socket: start nix-daemon, or use Nix 2.22 or later, which leaves that file in place"; a.Error != want || a.Kind != ErrUnavailable.Error() {
			t.Errorf("%s\n%s", a.Kind, a.Error)
		}
		if after := f.snapshot(); after != before {
			t.Errorf("the state directory is\n%s\nand was\n%s", after, before)
		}
	})
}

func TestPermissions(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"db.sqlite", "/db/db.sqlite cannot be opened: "},
		{"db.sqlite-wal", "/db/db.sqlite cannot be opened: "},
		{"db.sqlite-shm", "/db/db.sqlite cannot be opened: "},
		{"schema", "/db/schema, which says how to read the database, may not be read by this user; "},
		{".", "/db/db.sqlite may not be read by this user; "},
	} {
		f := newFixture(t, "/nix/store")
		f.put(pathInfos("/nix/store", 10, 3)...)
		file := f.state + "/db/" + c.file
		if err := os.Chmod(file, 0); err != nil {
			t.Fatal(err)
		}
		r := startReader(t, nobody, f.options())
		if a := r.ask("open"); a.Kind != ErrUnavailable.Error() || !strings.Contains(a.Error, f.state+c.want) {
			t.Errorf("%s: %s", c.file, a.Error)
		}
		if err := os.Chmod(file, 0o755); err != nil {
			t.Fatal(err)
		}
		if a := r.ask("open"); a.Error != "" {
			t.Error(a.Error)
		}
	}
}
