package nixstore

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"narwharf/cache/nixstore/daemon"
)

const (
	// maxConns bounds the statements that run at once: SQLite here is pure
	// computing, more than there are processors gain nothing.
	maxConns = 4
	// busyTimeout is how long SQLite itself waits for a lock before a look at
	// the context.
	busyTimeout = "100"
)

// database is one opened db.sqlite and what the files were when it was opened.
type database struct {
	file, storeDir string
	timeout        time.Duration
	files          files
	epoch          uint64 // no other database of the Store has it

	sql                     *sql.DB
	byPath, byHash, closure *sql.Stmt

	index  atomic.Pointer[indexFile] // nil when all is closed; changed under mu
	looked atomic.Int64              // when the files were last seen in place, since the process began

	mu      sync.Mutex
	users   int // questions under way
	retired bool
}

// openDatabase checks the files, opens one connection and prepares its
// statements, so that a database of another making is found here.
func openDatabase(ctx context.Context, state, storeDir string, timeout time.Duration, epoch uint64) (*database, error) {
	file := databaseIn(state)
	dsn := (&url.URL{Scheme: "file", Path: file, RawQuery: url.Values{
		"mode":    {"ro"},
		"_pragma": {"busy_timeout(" + busyTimeout + ")", "query_only(1)", "cache_size(-8000)"},
	}.Encode()}).String()
	for range 3 {
		db := &database{file: file, storeDir: storeDir, timeout: timeout, epoch: epoch, files: filesIn(state)}
		if err := db.files.check(state); err != nil {
			return nil, err
		}
		index, err := openIndex(file+"-shm", db.files.shm)
		if err != nil {
			return nil, cannotOpen(file, err)
		}
		if index == nil {
			continue
		}
		if db.sql, err = sql.Open("sqlite", dsn); err != nil {
			index.release()
			return nil, err
		}
		db.sql.SetMaxOpenConns(maxConns)
		db.sql.SetMaxIdleConns(maxConns)
		db.index.Store(index)
		err = db.with(ctx, db.prepare)
		// What was opened must be what was looked at.
		if err == nil && filesIn(state) == db.files {
			return db, nil
		}
		db.retire()
		if err != nil && filesIn(state) == db.files {
			return nil, err
		}
	}
	return nil, &databaseError{words: "the database " + file + " was replaced again and again while it was opened"}
}

// with runs ask while the database is held open, and again as long as another
// process has it for itself.
func (db *database) with(ctx context.Context, ask func(context.Context) error) error {
	db.mu.Lock()
	if db.index.Load() == nil { // retired, and all is closed
		db.mu.Unlock()
		return &databaseError{words: "the database " + db.file + " was closed"}
	}
	db.users++
	db.mu.Unlock()
	defer db.leave()
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := ask(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !locked(err):
			return explain(db.file, err)
		case time.Since(start) >= db.timeout:
			return ErrLocked
		}
	}
}

// head is that of the WAL-index. One that is being written, or was left by half
// by a writer that died, is put right by a connection, as SQLite does before
// every reading.
func (db *database) head(ctx context.Context) (h head, ok bool, err error) {
	for range 3 {
		if h, ok = db.glance(); ok {
			return h, true, nil
		}
		if err := db.with(ctx, db.touch); err != nil {
			return h, false, err
		}
	}
	return h, false, nil
}

// lookEvery is how long Still trusts that the files are in place. Looking costs
// four times as much as reading the head.
const lookEvery = 10 * time.Millisecond

var began = time.Now()

func (db *database) inPlace() bool {
	now := int64(time.Since(began))
	if now-db.looked.Load() < int64(lookEvery) {
		return true
	}
	if !db.files.inPlace(db.file) {
		return false
	}
	db.looked.Store(now)
	return true
}

// glance is head without any effort.
func (db *database) glance() (head, bool) {
	if index := db.index.Load(); index != nil {
		return index.head()
	}
	return head{}, false
}

// retire closes the database when nobody asks it anything any more.
func (db *database) retire() {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.retired = true
	db.closeUnused()
}

func (db *database) leave() {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.users--
	db.closeUnused()
}

// closeUnused closes all of a retired database that nobody uses. It needs mu.
func (db *database) closeUnused() {
	index := db.index.Load()
	if !db.retired || db.users > 0 || index == nil {
		return
	}
	db.index.Store(nil)
	_ = db.sql.Close() // nothing was written
	index.release()
}

// ask puts a question to the database, or to the daemon if the database cannot
// be read. A database that fails in the middle (replaced, damaged, an I/O error)
// is opened once more before it is given up. Questions may be put twice.
func ask[T any](ctx context.Context, s *Store, base func(context.Context, *database) (T, error), remote func() (T, error)) (answer T, err error) {
	var lost *databaseError
	for range 2 {
		db, err := s.database(ctx)
		if err == nil {
			err = db.with(ctx, func(ctx context.Context) (err error) { answer, err = base(ctx, db); return err })
			if !errors.As(err, &lost) {
				s.byDaemon.Store(false)
				return answer, err
			}
			s.drop(db)
			continue
		}
		if !errors.As(err, &lost) {
			return answer, err
		}
		break
	}
	if answer, err = remote(); errors.Is(err, daemon.ErrNoAnswer) {
		return answer, unavailable(lost, err)
	}
	s.byDaemon.Store(true)
	return answer, err
}

// database is the open database, opened first if there is none or if its files
// are no longer the ones that were opened.
func (s *Store) database(ctx context.Context) (*database, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	files := filesIn(s.state)
	if db := s.db.Load(); db != nil && db.files == files {
		return db, nil
	}
	start := time.Now()
	select {
	case s.opening <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.opening }()
	if s.closed.Load() {
		return nil, errClosed
	}
	files = filesIn(s.state)
	if db := s.db.Load(); db != nil {
		if db.files == files {
			return db, nil
		}
		s.db.Store(nil)
		db.retire()
	}
	// Who waited for another's attempt takes its result: a lock would else be
	// waited for once after the other.
	var bad *databaseError
	if s.failed.files == files && (s.failed.at.After(start) || errors.As(s.failed.err, &bad) && time.Since(s.failed.at) < retryOpen) {
		return nil, s.failed.err
	}
	db, err := openDatabase(ctx, s.state, s.storeDir, s.timeout, s.epochs.Add(1))
	if err != nil {
		if ctx.Err() == nil {
			s.failed = failure{time.Now(), files, err}
		}
		return nil, err
	}
	s.db.Store(db)
	return db, nil
}

// drop closes db, unless somebody already has.
func (s *Store) drop(db *database) {
	s.db.CompareAndSwap(db, nil)
	db.retire()
}
