package nixstore

import (
	"context"
	"errors"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxConns bounds the statements that run at once: SQLite here is pure
	// computing, more than there are processors gain nothing.
	maxConns = 4
	// busyTimeout is how long SQLite itself waits for a lock before a look at
	// the context.
	busyTimeout = "100"
)

// database is one opened db.sqlite: a few connections and what the files were
// when they were opened.
type database struct {
	file, dsn string
	storeDir  string
	timeout   time.Duration
	files     files
	epoch     uint64 // no other database of the Store has it

	slots chan struct{} // one token for each connection in use

	index  atomic.Pointer[indexFile] // nil when no connection is left; changed under mu
	looked atomic.Int64              // when the files were last seen in place, since the process began

	mu      sync.Mutex
	idle    []*conn
	open    int // connections, idle or in use
	retired bool
}

// openDatabase checks the files, opens one connection and prepares its
// statements, so that a database of another making is found here.
func openDatabase(ctx context.Context, state, storeDir string, timeout time.Duration, epoch uint64) (*database, error) {
	file := databaseIn(state)
	db := &database{
		file: file, storeDir: storeDir, timeout: timeout, epoch: epoch,
		slots: make(chan struct{}, maxConns),
		dsn: (&url.URL{Scheme: "file", Path: file, RawQuery: url.Values{
			"mode":    {"ro"},
			"_pragma": {"busy_timeout(" + busyTimeout + ")", "query_only(1)", "cache_size(-8000)"},
		}.Encode()}).String(),
	}
	for range 3 {
		db.files = filesIn(state)
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
		db.mu.Lock()
		db.retired = false
		db.index.Store(index)
		db.mu.Unlock()
		err = db.with(ctx, func(c *conn) error { return c.check(file, storeDir) })
		// What was opened must be what was looked at.
		if filesIn(state) == db.files {
			if err != nil {
				db.retire()
				return nil, err
			}
			return db, nil
		}
		db.retire() // nobody else has it: no connection is in use
	}
	return nil, &databaseError{words: "the database " + file + " was replaced again and again while it was opened"}
}

// with runs f with a connection of its own. f may be run more than once.
func (db *database) with(ctx context.Context, f func(*conn) error) error {
	select {
	case db.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-db.slots }()

	db.mu.Lock()
	if db.index.Load() == nil { // retired, and all is closed
		db.mu.Unlock()
		return &databaseError{words: "the database " + db.file + " was closed"}
	}
	var c *conn
	if n := len(db.idle); n > 0 {
		c, db.idle = db.idle[n-1], db.idle[:n-1]
	}
	db.mu.Unlock()

	c, err := db.run(ctx, c, f)
	db.mu.Lock()
	defer db.mu.Unlock()
	if c != nil {
		db.idle = append(db.idle, c)
	}
	if db.retired {
		db.closeIdle()
	}
	return err
}

// head is that of the WAL-index. One that is being written, or was left by half
// by a writer that died, is put right by a connection, as SQLite does before
// every reading.
func (db *database) head(ctx context.Context) (h head, ok bool, err error) {
	for range 3 {
		if h, ok = db.glance(); ok {
			return h, true, nil
		}
		if err := db.with(ctx, (*conn).touch); err != nil {
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

// run runs f with c, which is opened if it is nil, and waits while the database
// is locked. It returns the connection to go on with, nil if it is closed.
func (db *database) run(ctx context.Context, c *conn, f func(*conn) error) (*conn, error) {
	start := time.Now()
	for {
		var err error
		if c == nil {
			if c, err = openConn(db.dsn); err == nil {
				db.count(1)
			}
		}
		if err == nil {
			err = f(c)
		}
		switch {
		case err == nil:
			return c, nil
		case ctx.Err() != nil:
			return c, ctx.Err()
		case locked(err) && time.Since(start) >= db.timeout:
			return c, ErrLocked
		case locked(err):
			time.Sleep(5 * time.Millisecond)
			continue
		}
		var lost *databaseError
		if err = explain(db.file, err); errors.As(err, &lost) && c != nil {
			c.close()
			db.count(-1)
			c = nil
		}
		return c, err
	}
}

func (db *database) count(n int) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.open += n
}

// retire closes the connections that are idle now, and the others as they
// become so.
func (db *database) retire() {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.retired = true
	db.closeIdle()
}

// closeIdle closes what can be closed of a retired database. It needs mu.
func (db *database) closeIdle() {
	for _, c := range db.idle {
		c.close()
		db.open--
	}
	db.idle = nil
	if index := db.index.Load(); index != nil && db.open == 0 {
		db.index.Store(nil)
		index.release()
	}
}
