package nixstore

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"modernc.org/sqlite"

	"narwharf/narinfo"
)

// nixTables are what a database of schema 10 has of interest, as Nix makes it:
// the columns and keys, not the words, of src/libstore/schema.sql.
const nixTables = `
create table ValidPaths (id integer primary key autoincrement not null, path text unique not null,
	hash text not null, registrationTime integer not null, deriver text, narSize integer,
	ultimate integer, sigs text, ca text);
create table Refs (referrer integer not null, reference integer not null,
	primary key (referrer, reference),
	foreign key (referrer) references ValidPaths(id) on delete cascade,
	foreign key (reference) references ValidPaths(id) on delete restrict);
create index IndexReference on Refs(reference);
create trigger DeleteSelfRefs before delete on ValidPaths begin
	delete from Refs where referrer = old.id and reference = old.id; end;`

// fixture is a store without files: a database as Nix leaves it, and its
// writer, which stays connected as a running Nix does.
type fixture struct {
	t        testing.TB
	storeDir string
	state    string
	w        *sql.DB
}

func newFixture(t testing.TB, storeDir string) *fixture {
	t.Helper()
	t.Setenv("NIX_DAEMON_SOCKET_PATH", "")
	return newFixtureIn(t, storeDir, shortDir(t))
}

func newFixtureIn(t testing.TB, storeDir, state string) *fixture {
	t.Helper()
	if err := os.MkdirAll(state+"/db", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(state+"/db/schema", []byte("10"), 0o644); err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, storeDir: storeDir, state: state}
	f.connect("wal")
	f.exec(nixTables)
	return f
}

func (f *fixture) connect(mode string) {
	f.t.Helper()
	dsn := url.URL{Scheme: "file", Path: databaseIn(f.state), RawQuery: url.Values{"_pragma": {
		"journal_mode(" + mode + ")", "foreign_keys(1)", "synchronous(off)", "busy_timeout(5000)"}}.Encode()}
	w, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		f.t.Fatal(err)
	}
	w.SetMaxOpenConns(1)
	f.w = w
	f.t.Cleanup(func() { _ = w.Close() })
}

func (f *fixture) exec(q string, args ...any) {
	f.t.Helper()
	if _, err := f.w.Exec(q, args...); err != nil {
		f.t.Fatalf("%s: %v", q, err)
	}
}

// open is a Store on the fixture, without a daemon.
func (f *fixture) open() *Store {
	f.t.Helper()
	s, err := Open(Options{StoreDir: f.storeDir, StateDir: f.state, Timeout: 3 * time.Second})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = s.Close() })
	return s
}

// put registers a path as Nix does: rows and references in one transaction.
func (f *fixture) put(infos ...*PathInfo) {
	f.t.Helper()
	tx, err := f.w.Begin()
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	prepare := func(q string) *sql.Stmt {
		st, err := tx.Prepare(q)
		if err != nil {
			f.t.Fatalf("%s: %v", q, err)
		}
		return st
	}
	addPath := prepare("insert into ValidPaths (path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca) values (?,?,?,?,?,?,?,?)")
	addRef := prepare("insert or replace into Refs values (?, (select id from ValidPaths where path = ?))")
	ids := map[narinfo.Path]int64{}
	null := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	for _, i := range infos {
		deriver, ultimate := any(nil), any(nil)
		if i.Deriver != "" {
			deriver = i.Deriver.In(f.storeDir)
		}
		if i.Ultimate {
			ultimate = 1
		}
		res, err := addPath.Exec(i.Path.In(f.storeDir), fmt.Sprintf("sha256:%x", i.NarHash[:]), i.Registered.Unix(), deriver, i.NarSize, ultimate,
			null(strings.Join(i.Sigs, " ")), null(i.CA))
		if err != nil {
			f.t.Fatalf("%s: %v", i.Path, err)
		}
		ids[i.Path], _ = res.LastInsertId()
	}
	for _, i := range infos {
		for _, r := range i.References {
			if _, err := addRef.Exec(ids[i.Path], r.In(f.storeDir)); err != nil {
				f.t.Fatalf("%s to %s: %v", i.Path, r, err)
			}
		}
	}
	if err := tx.Commit(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) remove(p narinfo.Path) {
	f.t.Helper()
	f.exec("delete from ValidPaths where path = ?", p.In(f.storeDir))
}

// pathInfo is a made-up path with every field that follows from its name.
func pathInfo(storeDir, name string, refs ...narinfo.Path) *PathInfo {
	sum := sha256.Sum256([]byte(name))
	const digits = "0123456789abcdfghijklmnpqrsvwxyz"
	hash := make([]byte, 32)
	for i := range hash {
		hash[i] = digits[sum[i]&31]
	}
	p := narinfo.Path(string(hash) + "-" + name)
	refs = slices.Clone(refs)
	slices.Sort(refs)
	return &PathInfo{
		Info: &narinfo.Info{
			StoreDir: storeDir, Path: p, NarHash: sum, NarSize: int64(sum[0])<<8 + 100,
			References: slices.Compact(refs), Deriver: p + ".drv",
			Sigs: []string{"cache-1:" + base64.StdEncoding.EncodeToString(append(sum[:], sum[:]...))},
		},
		Registered: time.Unix(1700000000+int64(sum[1]), 0),
	}
}

// pathInfos are n paths, each of which refers to up to refs earlier ones.
func pathInfos(storeDir string, n, refs int) []*PathInfo {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	infos := make([]*PathInfo, n)
	for i := range infos {
		var to []narinfo.Path
		for range min(i, refs) {
			to = append(to, infos[r.IntN(i)].Path)
		}
		infos[i] = pathInfo(storeDir, fmt.Sprintf("package-%d-1.2.3", i), to...)
	}
	return infos
}

// closureOf is the oracle: names of the closure in a model of the store.
func closureOf(infos []*PathInfo, roots ...narinfo.Path) []narinfo.Path {
	refs := map[narinfo.Path][]narinfo.Path{}
	for _, i := range infos {
		refs[i.Path] = i.References
	}
	seen := map[narinfo.Path]bool{}
	var visit func(narinfo.Path)
	visit = func(p narinfo.Path) {
		if !seen[p] {
			seen[p] = true
			for _, r := range refs[p] {
				visit(r)
			}
		}
	}
	for _, r := range roots {
		visit(r)
	}
	var all []narinfo.Path
	for p := range seen {
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}

func names(infos []*narinfo.Info) []narinfo.Path {
	var all []narinfo.Path
	for _, i := range infos {
		all = append(all, i.Path)
	}
	return all
}

// shortDir is a directory that other users can enter and whose name leaves
// room for a socket; testing's own is neither.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ns")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Nix takes away the write permission of what it puts into a store. A
		// daemon's child may outlive it by a moment, and write.
		_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				return os.Chmod(p, 0o755)
			}
			return nil
		})
		err := os.RemoveAll(dir)
		for n := 0; err != nil && n < 50; n++ {
			time.Sleep(50 * time.Millisecond)
			err = os.RemoveAll(dir)
		}
		if err != nil {
			t.Error(err)
		}
	})
	return dir
}

func mustInfo(t testing.TB, s *Store, p narinfo.Path) *PathInfo {
	t.Helper()
	i, err := s.PathInfo(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// leaveWAL closes the writer as Nix 2.22 and later do: the -wal file stays,
// empty, and the -shm file too.
func (f *fixture) leaveWAL() {
	f.t.Helper()
	c, err := f.w.Conn(context.Background())
	if err != nil {
		f.t.Fatal(err)
	}
	err = c.Raw(func(c any) error {
		_, err := c.(sqlite.FileControl).FileControlPersistWAL("main", 1)
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := c.ExecContext(context.Background(), "pragma journal_size_limit = 1099511627776"); err != nil {
		f.t.Fatal(err)
	}
	if err := errors.Join(c.Close(), f.w.Close()); err != nil {
		f.t.Fatal(err)
	}
}

// snapshot is all there is in the state directory, but for what is in -shm.
func (f *fixture) snapshot() string {
	f.t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(f.state, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %s %d", p[len(f.state):], info.Mode(), info.Size())
		if d.Type().IsRegular() && !strings.HasSuffix(p, "-shm") {
			content, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %s %x", info.ModTime(), sha256.Sum256(content))
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return b.String()
}
