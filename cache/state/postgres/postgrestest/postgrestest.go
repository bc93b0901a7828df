// Package postgrestest runs a PostgreSQL server for tests: Debian's programs, a folder
// of its own, a socket in it and no port.
package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrMissing is returned where there is no PostgreSQL on the machine.
var ErrMissing = errors.New("no PostgreSQL is here: apt-get install postgresql")

// Server is a running server.
type Server struct {
	Dir      string // its socket is in here
	bin      string
	settings []string
	cmd      *exec.Cmd
	left     chan error
	count    atomic.Int64
}

// Start makes a database cluster and starts it, with settings as "name=value". Without
// any it syncs nothing, which tests of crashes set otherwise.
func Start(settings ...string) (*Server, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return nil, ErrMissing
	}
	slices.Sort(found)
	if len(settings) == 0 {
		settings = []string{"fsync=off"}
	}
	return create(filepath.Dir(found[len(found)-1]), settings, "initdb", "-U", "narwharf", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
}

// Need is Start for a test, which ends the server. Where PostgreSQL is missing the test is skipped, and fails in CI.
func Need(t testing.TB, settings ...string) *Server {
	t.Helper()
	s, err := Start(settings...)
	if errors.Is(err, ErrMissing) && os.Getenv("NARWHARF_CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// create starts a server whose data a program of PostgreSQL makes.
func create(bin string, settings []string, program string, args ...string) (*Server, error) {
	dir, err := os.MkdirTemp("", "postgres")
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, bin: bin, settings: settings}
	if err := s.own(); err != nil {
		return nil, err
	}
	made := s.command(program, append(args, "-D", filepath.Join(dir, "data"))...)
	if out, err := made.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", program, err, out)
	}
	return s, s.Up()
}

// Standby starts a server that streams from this one what it writes. With synchronous a commit of this one
// waits for it, from now on.
func (s *Server) Standby(synchronous bool) (*Server, error) {
	standby, err := create(s.bin, s.settings, "pg_basebackup", "-h", s.Dir, "-U", "narwharf", "-R", "-X", "stream", "--checkpoint=fast")
	if err != nil || !synchronous {
		return standby, err
	}
	err = s.Exec("postgres", `alter system set synchronous_standby_names = '*'`)
	return standby, errors.Join(err, s.Exec("postgres", `select pg_reload_conf()`))
}

// Promote makes a standby one that writes.
func (s *Server) Promote() error { return s.Exec("postgres", `select pg_promote()`) }

// Socket is where it listens.
func (s *Server) Socket() string { return filepath.Join(s.Dir, ".s.PGSQL.5432") }

// Exhaust takes all connections that a database allows, from whoever has them, until it is told to give
// them back.
func (s *Server) Exhaust(database string) (release func(), err error) {
	var all []*pgx.Conn
	release = func() {
		for _, c := range all {
			_ = c.Close(context.Background())
		}
	}
	for range 10 {
		for {
			conn, err := s.connect(database)
			if err != nil {
				break // it has no more
			}
			all = append(all, conn)
		}
		if len(all) == 0 {
			return release, errors.New("not one connection is left to end the others by")
		}
		_, err = all[0].Exec(context.Background(), `
select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and application_name like 'narwharf%'`, database)
		if err != nil {
			return release, err
		}
	}
	return release, nil
}

// own gives the folder to the account that the server runs as: it refuses root.
func (s *Server) own() error {
	if os.Getuid() != 0 {
		return nil
	}
	id := credential()
	if id == nil {
		return errors.New("PostgreSQL does not run as root, and there is no account postgres")
	}
	return os.Chown(s.Dir, int(id.Uid), int(id.Gid))
}

func credential() *syscall.Credential {
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.Dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential()}
	}
	return cmd
}

// Up starts the server and waits until it answers.
func (s *Server) Up() error {
	args := []string{"-D", filepath.Join(s.Dir, "data"), "-k", s.Dir, "-c", "listen_addresses="}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	s.cmd = s.command("postgres", args...)
	log, err := os.OpenFile(filepath.Join(s.Dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.left = make(chan error, 1)
	go func() { s.left <- s.cmd.Wait() }()
	for {
		select {
		case err := <-s.left:
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("PostgreSQL has ended: %w: %s", err, text)
		case <-time.After(50 * time.Millisecond):
		}
		conn, err := s.connect("postgres")
		if err == nil {
			return conn.Close(context.Background())
		}
	}
}

// Down stops the server: at once, without a last word to its clients, if it is to crash.
func (s *Server) Down(crash bool) {
	if s.cmd == nil {
		return
	}
	how := syscall.SIGINT
	if crash {
		how = syscall.SIGQUIT
	}
	_ = s.cmd.Process.Signal(how)
	<-s.left
	s.cmd = nil
}

// Close stops the server and removes its folder.
func (s *Server) Close() {
	s.Down(true)
	_ = os.RemoveAll(s.Dir)
}

// URL is the address of a database.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://narwharf@/%s?host=%s", database, s.Dir)
}

func (s *Server) connect(database string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return pgx.Connect(ctx, s.URL(database))
}

// Exec runs a statement in a database.
func (s *Server) Exec(database, sql string) error {
	conn, err := s.connect(database)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.Exec(context.Background(), sql)
	return err
}

// Statements are how often each statement ran in a database, since the server was started with
// shared_preload_libraries=pg_stat_statements.
func (s *Server) Statements(database string) (map[string]int64, error) {
	conn, err := s.connect(database)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(context.Background(), `create extension if not exists pg_stat_statements`); err != nil {
		return nil, err
	}
	rows, err := conn.Query(context.Background(), `
select query, sum(calls)::bigint from pg_stat_statements where dbid = (select oid from pg_database where datname = $1) group by query`, database)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[string]int64{}
	for rows.Next() {
		var query string
		var calls int64
		if err := rows.Scan(&query, &calls); err != nil {
			return nil, err
		}
		all[query] = calls
	}
	return all, rows.Err()
}

// Number is the one number that a query of a database answers.
func (s *Server) Number(database, sql string) (n float64, err error) {
	conn, err := s.connect(database)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(context.Background()) }()
	err = conn.QueryRow(context.Background(), sql).Scan(&n)
	return n, err
}

// Database makes an empty database and returns its name.
func (s *Server) Database() (string, error) {
	name := fmt.Sprintf("t%d", s.count.Add(1))
	return name, s.Exec("postgres", `create database `+name+` template template0`)
}
