package nixstore

import (
	"context"
	"errors"
	"net/url"
	"sync"
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

	versions sync.Mutex // held by who asks for the version

	mu      sync.Mutex
	idle    []*conn
	watcher *conn // the one connection that is asked for data_version; nil while it is
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
		err := db.with(ctx, (*conn).check)
		// What was opened must be what was looked at.
		if filesIn(state) == db.files {
			if err != nil {
				db.retire()
				return nil, err
			}
			return db, nil
		}
		db.mu.Lock()
		db.closeIdle()
		db.mu.Unlock()
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
	var c *conn
	if n := len(db.idle); n > 0 {
		c, db.idle = db.idle[n-1], db.idle[:n-1]
	}
	db.mu.Unlock()

	c, err := db.run(ctx, c, f)
	db.mu.Lock()
	defer db.mu.Unlock()
	if c != nil && db.retired {
		c.close()
	} else if c != nil {
		db.idle = append(db.idle, c)
	}
	return err
}

// version is data_version of one connection: it changes when another commits.
func (db *database) version(ctx context.Context) (v int64, err error) {
	db.versions.Lock()
	defer db.versions.Unlock()
	db.mu.Lock()
	c := db.watcher
	db.watcher = nil
	db.mu.Unlock()

	c, err = db.run(ctx, c, func(c *conn) (err error) {
		v, err = c.dataVersion()
		return err
	})
	db.mu.Lock()
	defer db.mu.Unlock()
	if c != nil && db.retired {
		c.close()
	} else {
		db.watcher = c
	}
	return v, err
}

// run runs f with c, which is opened if it is nil, and waits while the database
// is locked. It returns the connection to go on with, nil if it is closed.
func (db *database) run(ctx context.Context, c *conn, f func(*conn) error) (*conn, error) {
	start := time.Now()
	for {
		var err error
		if c == nil {
			c, err = openConn(db.dsn)
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
			c = nil
		}
		return c, err
	}
}

// retire closes the connections that are idle now, and the others as they
// become so.
func (db *database) retire() {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.retired = true
	db.closeIdle()
}

// closeIdle needs mu.
func (db *database) closeIdle() {
	for _, c := range db.idle {
		c.close()
	}
	db.idle = nil
	if db.watcher != nil {
		db.watcher.close()
		db.watcher = nil
	}
}
