// Package postgres is a state in a PostgreSQL database (15 or newer), which any
// number of servers share.
//
// # How it keeps the contract
//
// All keys are rows of one table, the records of logs are rows of another. An
// Update is READ COMMITTED. Before it reads it takes an advisory lock for the name of
// each of its locks, in the order of their numbers, so nobody waits in a circle; the
// database frees them after the commit can be seen. A View is REPEATABLE READ, which
// sees one moment.
//
// Writes are kept until the next read, or the commit, and are sent with it: an Update
// that reads once and writes is three messages to the database and back.
//
// The position of a record is the id of its transaction, 16 bits further up, and the
// number of the record within it. A reader sees positions below those of the oldest
// transaction at work, so none comes in behind it. docs/design/019 has why.
//
// # Notices
//
// The topics of an Update are a row that is committed with it. They are told to the
// others by NOTIFY after the commit, at most one each 20 ms for all Updates (a NOTIFY
// within a transaction takes a lock that the whole database has one of). Each server
// reads the rows once a second, too: a notice is late when its sender dies in between,
// or when a pooler swallows it, and is not lost.
package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"narwharf/cache/state"
)

// Options of Open.
type Options struct {
	// URL is a connection string as libpq has it, postgres://user@host/database, or
	// key=value. Several hosts with target_session_attrs=read-write follow a fail-over.
	// Through PgBouncer in transaction mode before 1.21 it has
	// default_query_exec_mode=exec.
	URL string
	// Listen goes to the database directly, since LISTEN does not get through a pooler
	// in transaction mode. "" is URL.
	Listen string
	// Password, if it is set and returns one, is asked at each connection.
	Password func() (string, error)
	// Stale is for how long what is in memory counts while the database is away: after that watchers
	// are told that all may have changed. 0: for ever.
	Stale time.Duration
	// Place is that of the server which opens it, for state.Freeze.
	Place string
	Log   *slog.Logger
}

// Time-outs that the database keeps.
const (
	statementTimeout = 30 * time.Second // also of waiting for a lock
	idleTimeout      = time.Minute      // of a transaction that does nothing
	maxConns         = 16
)

// Store is a state.Store.
type Store struct {
	pool *pgxpool.Pool
	// own is for notices, and for whether the database answers at all: transactions that wait for each other
	// must not look as if it did not.
	own   *pgxpool.Pool
	name  string
	place string
	log   *slog.Logger
	id    string // of this process in notices

	password func(ctx context.Context, c *pgx.ConnConfig) error // nil: the address has it, or there is none

	mu     sync.Mutex
	closed bool
	open   sync.WaitGroup // transactions that have begun

	stale time.Duration
	away  atomic.Int64 // since when the database does not answer, in Unix nanoseconds; 0: it does
	ahead atomic.Int64 // nanoseconds that the clock of the database is ahead of ours

	watchers state.Watchers
	notices  outbox
	stop     context.CancelFunc
	ended    sync.WaitGroup // what listens and tells
}

var _ state.Store = (*Store)(nil)

// Open connects, and makes the tables if they are not there: for that the role needs
// CREATE in the first schema of its search_path; later it needs SELECT, INSERT, UPDATE
// and DELETE on them. It returns state.ErrUnavailable, wrapped, where the database
// cannot be reached.
func Open(ctx context.Context, o Options) (*Store, error) {
	config, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		return nil, fmt.Errorf("the address of the database: %w", err)
	}
	if o.Listen == "" {
		o.Listen = o.URL
	}
	listen, err := pgx.ParseConfig(o.Listen)
	if err != nil {
		return nil, fmt.Errorf("the address to listen at: %w", err)
	}
	s := &Store{name: name(config.ConnConfig), place: o.Place, stale: o.Stale, log: o.Log, id: fmt.Sprintf("%016x", rand.Uint64())}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	tune(config)
	if o.Password != nil {
		s.password = func(_ context.Context, c *pgx.ConnConfig) error {
			word, err := o.Password()
			if word != "" {
				c.Password = word
			}
			return err
		}
		config.BeforeConnect = s.password
	}
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, s.problem(err)
	}
	own := config.Copy()
	own.MinConns, own.MinIdleConns, own.MaxConns = 0, 0, 2
	if s.own, err = pgxpool.NewWithConfig(ctx, own); err != nil {
		s.pool.Close()
		return nil, s.problem(err)
	}
	if err := s.start(ctx, listen); err != nil {
		s.pool.Close()
		s.own.Close()
		return nil, err
	}
	return s, nil
}

// tune sets what an address does not say.
func tune(config *pgxpool.Config) {
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	if p, err := url.Parse(config.ConnString()); err != nil || !p.Query().Has("pool_max_conns") {
		config.MaxConns = maxConns
	}
	config.ConnConfig.RuntimeParams["application_name"] = "narwharf"
	config.AfterConnect = afterConnect
}

// start brings the tables up to date and begins to listen.
func (s *Store) start(ctx context.Context, listen *pgx.ConnConfig) error {
	if err := s.migrate(ctx); err != nil {
		return s.problem(err)
	}
	background, stop := context.WithCancel(context.Background())
	s.stop = stop
	if err := s.listen(ctx, background, listen); err != nil {
		stop()
		return s.problem(err)
	}
	return nil
}

// name is where the database is, without the password.
func name(c *pgx.ConnConfig) string {
	u := url.URL{Scheme: "postgres", User: url.User(c.User), Path: "/" + c.Database}
	if len(c.Host) > 0 && c.Host[0] == '/' {
		u.RawQuery = "host=" + c.Host
	} else {
		u.Host = fmt.Sprintf("%s:%d", c.Host, c.Port)
	}
	return u.String()
}

// Clock is the time of the database as this process knows it, to a round trip: all servers that share it
// have the same, whatever their own clocks say. It is looked at once a second.
func (s *Store) Clock() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

// Away is since when the database does not answer, the zero time if it does.
func (s *Store) Away() time.Time {
	if at := s.away.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

// Ahead is by how much the clock of the database is ahead of that of this machine.
func (s *Store) Ahead() time.Duration { return time.Duration(s.ahead.Load()) }

// String implements state.Store.
func (s *Store) String() string { return s.name }

// Close implements state.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.open.Wait()
	s.stop() // what was not told yet is told first
	s.ended.Wait()
	s.pool.Close()
	s.own.Close()
	return nil
}

// begin counts a transaction, for Close to wait for.
func (s *Store) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return state.ErrClosed
	}
	s.open.Add(1)
	return nil
}

// Scan implements state.Store.
func (s *Store) Scan(ctx context.Context, bucket string, r state.Range, fn func(page []state.Entry) error) error {
	return state.Pages(ctx, s, bucket, r, fn)
}

// Replace implements state.Store.
func (s *Store) Replace(ctx context.Context, locks []string, bucket string, fill func(put state.PutFunc) error, flip func(tx state.Tx) error) error {
	return state.ReplaceByUpdate(ctx, s, locks, bucket, fill, flip)
}

// Watch implements state.Store.
func (s *Store) Watch(fn func(topics []string)) (stop func()) { return s.watchers.Add(fn) }
