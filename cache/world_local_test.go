package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	_ "modernc.org/sqlite"

	"narwharf/cache/local"
	"narwharf/cache/local/compress"
	"narwharf/cache/nar/dump"
	"narwharf/cache/nixstore"
	"narwharf/narinfo"
)

// machine is a Nix store on the disk: files, a database as Nix makes it, and a
// writer that stays connected as a running Nix does.
type machine struct {
	t      testing.TB
	root   string
	packed string // the folder of packed copies, of the last serve
	db     *sql.DB
}

const nixTables = `
create table ValidPaths (id integer primary key autoincrement not null, path text unique not null,
	hash text not null, registrationTime integer not null, deriver text, narSize integer,
	ultimate integer, sigs text, ca text);
create table Refs (referrer integer not null, reference integer not null,
	primary key (referrer, reference),
	foreign key (referrer) references ValidPaths(id) on delete cascade,
	foreign key (reference) references ValidPaths(id) on delete restrict);
create index IndexReference on Refs(reference);`

func newMachine(t testing.TB) *machine {
	t.Helper()
	t.Setenv("NIX_DAEMON_SOCKET_PATH", "")
	m := &machine{t: t, root: t.TempDir()}
	for _, dir := range []string{"nix/store", "nix/var/nix/db", "nix/var/nix/gcroots", "nix/var/log/nix/drvs"} {
		if err := os.MkdirAll(filepath.Join(m.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(m.root+"/nix/var/nix/db/schema", []byte("10"), 0o644); err != nil {
		t.Fatal(err)
	}
	dsn := url.URL{Scheme: "file", Path: m.root + "/nix/var/nix/db/db.sqlite", RawQuery: url.Values{"_pragma": {
		"journal_mode(wal)", "foreign_keys(1)", "synchronous(off)", "busy_timeout(5000)"}}.Encode()}
	var err error
	if m.db, err = sql.Open("sqlite", dsn.String()); err != nil {
		t.Fatal(err)
	}
	m.db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = m.db.Close() })
	m.exec(nixTables)
	return m
}

func (m *machine) exec(q string, args ...any) {
	m.t.Helper()
	if _, err := m.db.Exec(q, args...); err != nil {
		m.t.Fatalf("%s: %v", q, err)
	}
}

func (m *machine) real(p narinfo.Path) string { return m.root + p.In("/nix/store") }

// build makes a path with files and registers it. nar and info of what it
// returns are set; info has no URL.
func (m *machine) build(name string, files map[string]string, refs ...*testPath) *testPath {
	m.t.Helper()
	p := &testPath{info: &narinfo.Info{StoreDir: "/nix/store", Path: pathNamed(name)}}
	root := m.real(p.info.Path)
	for file, text := range files {
		full := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			m.t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			m.t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if _, err := dump.Write(context.Background(), &out, root); err != nil {
		m.t.Fatal(err)
	}
	p.nar = out.Bytes()
	p.info.NarHash, p.info.NarSize = sha256.Sum256(p.nar), int64(len(p.nar))
	for _, r := range refs {
		p.info.References = append(p.info.References, r.info.Path)
	}
	m.register(p)
	return p
}

// register makes a path valid, in one transaction as Nix does.
func (m *machine) register(p *testPath) {
	m.t.Helper()
	tx, err := m.db.Begin()
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	sigs := any(nil)
	if len(p.info.Sigs) > 0 {
		sigs = strings.Join(p.info.Sigs, " ")
	}
	_, err = tx.Exec("insert into ValidPaths (path, hash, registrationTime, narSize, sigs) values (?,?,?,?,?)",
		p.info.Path.In("/nix/store"), fmt.Sprintf("sha256:%x", p.info.NarHash[:]), time.Now().Unix(), p.info.NarSize, sigs)
	for _, r := range p.info.References {
		if err == nil {
			_, err = tx.Exec("insert into Refs select a.id, b.id from ValidPaths a, ValidPaths b where a.path = ? and b.path = ?",
				p.info.Path.In("/nix/store"), r.In("/nix/store"))
		}
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// remove deletes paths as the garbage collector does.
func (m *machine) remove(paths ...*testPath) {
	m.t.Helper()
	for _, p := range paths {
		m.exec("delete from ValidPaths where path = ?", p.info.Path.In("/nix/store"))
		if err := os.RemoveAll(m.real(p.info.Path)); err != nil {
			m.t.Fatal(err)
		}
	}
}

// serve makes a world serve the machine's store.
func (m *machine) serve(s *setup) { m.serveLogging(s, slog.New(slog.DiscardHandler)) }

func (m *machine) serveLogging(s *setup, log *slog.Logger) {
	m.t.Helper()
	store, err := nixstore.Open(nixstore.Options{Root: m.root, Timeout: 3 * time.Second})
	if err != nil {
		m.t.Fatal(err)
	}
	m.packed = m.t.TempDir()
	packed, err := compress.Open(compress.Options{Dir: m.packed, Limit: 1 << 30, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		if err := packed.Close(); err != nil {
			m.t.Error(err)
		}
		_ = store.Close()
	})
	s.local = local.New(store, packed, m.root+"/nix/var/log/nix", log)
}

// localWorld is a world with a machine below it.
func localWorld(t *testing.T, choose ...func(*setup)) (*world, *machine) {
	t.Helper()
	m := newMachine(t)
	return newWorld(t, append(choose, m.serve)...), m
}

// urls are those of both forms of a local path's NAR.
func (p *testPath) urls() (packed, plain string) {
	base := "/nar/" + p.info.Path.Hash() + "-" + p.info.NarHash.Base32()
	return base + local.CompressedSuffix, base + local.PlainSuffix
}

// mustSubstitute fetches a path as a client does and compares the NAR.
func (w *world) mustSubstitute(p *testPath) *narinfo.Info {
	w.t.Helper()
	a := w.must(w.get(p.infoURL()), 200)
	info, err := narinfo.Parse([]byte(a.body))
	if err != nil || info.Path != p.info.Path || info.NarHash != p.info.NarHash {
		w.t.Fatalf("%s came back as %v (%v)", p.info.Path, a, err)
	}
	file := w.must(w.get("/"+info.URL), 200)
	if got := unzstd(w.t, file.body); !bytes.Equal(got, p.nar) {
		w.t.Errorf("%s: the NAR has %d bytes and another content, want %d", info.URL, len(got), len(p.nar))
	}
	if !info.FileHash.IsZero() && (narinfo.Hash(sha256.Sum256([]byte(file.body))) != info.FileHash || int64(len(file.body)) != info.FileSize) {
		w.t.Errorf("%s has %d bytes and not the FileHash of its narinfo", info.URL, len(file.body))
	}
	return info
}

func unzstd(t testing.TB, text string) []byte {
	t.Helper()
	plain, err := zstd.NewReader(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	out, err := io.ReadAll(plain)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// metric returns the line of a metric, without its value.
func (w *world) counted(line string, want int) {
	w.t.Helper()
	full := fmt.Sprintf("%s %d\n", line, want)
	for range 200 { // what was cut is counted after the client has seen it
		if strings.Contains(w.get("/metrics").body, full) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Errorf("the metrics have no %q", full)
}
