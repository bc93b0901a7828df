package nixstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"path"

	"modernc.org/sqlite"

	"narwharf/narinfo"
)

const (
	columns = "v.hash, v.deriver, v.narSize, v.registrationTime, v.ultimate, v.sigs, v.ca"

	// One statement is one state of the store. Were the references asked for
	// afterwards, a path deleted in between would seem to have none.
	selectInfo = "select v.path, " + columns + `,
		(select group_concat(coalesce(r.path, '#' || f.reference), ' ')
		from Refs f left join ValidPaths r on r.id = f.reference where f.referrer = v.id)
		from ValidPaths v where `
	selectByPath = selectInfo + "v.path = ?1"
	// "-" is what follows the hash part of every path, "." the next character:
	// a range, so that SQLite uses the index.
	selectByHash = selectInfo + "v.path >= ?1 || '-' and v.path < ?1 || '.' limit 1"

	// A path, if there are some but none directly in the store directory: "0" is
	// the character after "/".
	selectOther = `select path from ValidPaths where not exists (select 1 from ValidPaths
		where path >= ?1 || '/' and path < ?1 || '0' and instr(substr(path, length(?1) + 2), '/') = 0) limit 1`

	// References come as numbers here: the paths they stand for are all in the
	// result. A number without one is left out by the join, and missed later.
	selectClosure = `with recursive c(id) as (
		select id from ValidPaths where path in (select value from json_each(?1))
		union select reference from c join Refs on referrer = c.id)
		select v.id, v.path, ` + columns + `,
		(select group_concat(f.reference, ' ') from Refs f where f.referrer = v.id)
		from c join ValidPaths v on v.id = c.id`
)

// conn is one connection to the database, for one user at a time. It goes to
// the driver without database/sql, which adds a quarter to the time of a look-up
// and needs a goroutine for every context.
type conn struct {
	c          driver.Conn
	statements map[string]driver.StmtQueryContext
	dest       []driver.Value
}

func openConn(dsn string) (*conn, error) {
	c, err := (&sqlite.Driver{}).Open(dsn)
	if err != nil {
		return nil, err
	}
	return &conn{c: c, statements: map[string]driver.StmtQueryContext{}}, nil
}

// close ignores errors: nothing was written.
func (c *conn) close() {
	for _, st := range c.statements {
		_ = st.(driver.Stmt).Close()
	}
	_ = c.c.Close()
}

// check reads the head of the database and prepares what will be asked. All
// paths of a database are of one store; if it is not ours, every question would
// have the wrong answer that there is no such path.
func (c *conn) check(file, storeDir string) error {
	var mode string
	err := c.query("pragma journal_mode", nil, func(row []driver.Value) error {
		mode = text(row[0])
		return nil
	})
	if err != nil {
		return err
	}
	if mode != "wal" {
		return &databaseError{words: "the database is in journal mode " + mode + " (use-sqlite-wal = false in nix.conf), in which nobody can read it beside Nix"}
	}
	for _, q := range []string{selectByPath, selectByHash, selectClosure} {
		if _, err := c.statement(q); err != nil {
			return err
		}
	}
	return c.query(selectOther, []driver.NamedValue{{Ordinal: 1, Value: storeDir}}, func(row []driver.Value) error {
		return &otherStoreError{file: file, has: path.Dir(text(row[0])), wanted: storeDir}
	})
}

func (c *conn) statement(q string) (driver.StmtQueryContext, error) {
	if st := c.statements[q]; st != nil {
		return st, nil
	}
	st, err := c.c.(driver.ConnPrepareContext).PrepareContext(context.Background(), q)
	if err != nil {
		return nil, err
	}
	s := st.(driver.StmtQueryContext)
	c.statements[q] = s
	return s, nil
}

// query calls each with every row, which is good until each returns.
func (c *conn) query(q string, args []driver.NamedValue, each func(row []driver.Value) error) (err error) {
	st, err := c.statement(q)
	if err != nil {
		return err
	}
	rows, err := st.QueryContext(context.Background(), args)
	if err != nil {
		return err
	}
	defer func() {
		if e := rows.Close(); err == nil {
			err = e
		}
	}()
	if n := len(rows.Columns()); cap(c.dest) < n {
		c.dest = make([]driver.Value, n)
	} else {
		c.dest = c.dest[:n]
	}
	for {
		err := rows.Next(c.dest)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := each(c.dest); err != nil {
			return err
		}
	}
}

func (c *conn) info(storeDir string, p narinfo.Path) (*PathInfo, error) {
	return c.one(storeDir, selectByPath, p.In(storeDir))
}

func (c *conn) infoByHash(storeDir, hashPart string) (*PathInfo, error) {
	return c.one(storeDir, selectByHash, storeDir+"/"+hashPart)
}

func (c *conn) one(storeDir, q, arg string) (*PathInfo, error) {
	var found *PathInfo
	err := c.query(q, []driver.NamedValue{{Ordinal: 1, Value: arg}}, func(row []driver.Value) error {
		i, refs, err := scan(storeDir, row)
		if err != nil {
			return err
		}
		if err := i.refer(storeDir, refs); err != nil {
			return err
		}
		found = i
		return nil
	})
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, ErrNotValid
	}
	return found, nil
}

// touch begins a reading, and so lets SQLite look at the WAL-index.
func (c *conn) touch() error {
	return c.query("select 1 from ValidPaths limit 1", nil, func([]driver.Value) error { return nil })
}

// scan reads a row of path, columns and references, and returns the last as
// they are.
func scan(storeDir string, row []driver.Value) (*PathInfo, string, error) {
	full := text(row[0])
	p, err := narinfo.ParsePath(storeDir, full)
	if err != nil {
		return nil, "", fmt.Errorf("the database has a row for what is no store path: %w", err)
	}
	i, err := known{
		path:       p,
		narHash:    text(row[1]),
		deriver:    text(row[2]),
		narSize:    number(row[3]),
		registered: number(row[4]),
		ultimate:   number(row[5]) == 1,
		sigs:       fields(text(row[6])),
		ca:         text(row[7]),
	}.info(storeDir)
	return i, text(row[8]), err
}

// text is a column as text, empty if it is null.
func text(v driver.Value) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case nil:
		return ""
	}
	return fmt.Sprint(v)
}

// number is a column as number, 0 if it is null or something else.
func number(v driver.Value) int64 {
	n, _ := v.(int64)
	return n
}
