package nixstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"narwharf/cache/nixstore/daemon"
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

// prepare reads the head of the database and prepares what will be asked. All
// paths of a database are of one store; if it is not ours, every question would
// have the wrong answer that there is no such path.
func (db *database) prepare(ctx context.Context) error {
	var mode string
	if err := db.sql.QueryRowContext(ctx, "pragma journal_mode").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return &databaseError{words: "the database is in journal mode " + mode + " (use-sqlite-wal = false in nix.conf), in which nobody can read it beside Nix"}
	}
	for q, st := range map[string]**sql.Stmt{selectByPath: &db.byPath, selectByHash: &db.byHash, selectClosure: &db.closure} {
		var err error
		if *st, err = db.sql.PrepareContext(ctx, q); err != nil {
			return err
		}
	}
	var other string
	err := db.sql.QueryRowContext(ctx, selectOther, db.storeDir).Scan(&other)
	if err == nil {
		return &otherStoreError{file: db.file, has: path.Dir(other), wanted: db.storeDir}
	}
	return noRows(err)
}

func noRows(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	return err
}

// touch begins a reading, and so lets SQLite look at the WAL-index.
func (db *database) touch(ctx context.Context) error {
	var one int
	return noRows(db.sql.QueryRowContext(ctx, "select 1 from ValidPaths limit 1").Scan(&one))
}

// rows calls each with every row that the statement has for arg.
func (db *database) rows(ctx context.Context, st *sql.Stmt, arg string, each func(row []any) error) error {
	rows, err := st.QueryContext(ctx, arg)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // what it has to say, Err says
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	row, to := make([]any, len(names)), make([]any, len(names))
	for i := range row {
		to[i] = &row[i]
	}
	for rows.Next() {
		if err := rows.Scan(to...); err != nil {
			return err
		}
		if err := each(row); err != nil {
			return err
		}
	}
	return rows.Err()
}

// one asks for the row of one path.
func (db *database) one(ctx context.Context, st *sql.Stmt, arg string) (found *PathInfo, err error) {
	err = db.rows(ctx, st, arg, func(row []any) error {
		k, err := known(db.storeDir, row)
		if err != nil {
			return err
		}
		k.References = strings.Fields(text(row[8]))
		for _, r := range k.References {
			if id, ok := strings.CutPrefix(r, "#"); ok {
				return missingRow(k.Path.In(db.storeDir), id)
			}
		}
		found, err = k.Info(db.storeDir)
		return err
	})
	if err == nil && found == nil {
		err = ErrNotValid
	}
	return found, err
}

// known reads the path and the columns of a row.
func known(storeDir string, row []any) (daemon.Known, error) {
	p, err := narinfo.ParsePath(storeDir, text(row[0]))
	if err != nil {
		err = &RowError{Err: fmt.Errorf("the database has a row for what is no store path: %w", err)}
	}
	return daemon.Known{
		Path:       p,
		NarHash:    text(row[1]),
		Deriver:    text(row[2]),
		NarSize:    number(row[3]),
		Registered: number(row[4]),
		Ultimate:   number(row[5]) == 1,
		Sigs:       strings.Fields(text(row[6])),
		CA:         text(row[7]),
	}, err
}

// text is a column as text, empty if it is null.
func text(v any) string {
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
func number(v any) int64 {
	n, _ := v.(int64)
	return n
}

// missingRow is for a reference to a row that Nix's own foreign keys should
// have kept.
func missingRow(path, id string) error {
	return &RowError{Err: fmt.Errorf("the Nix database is damaged: %s refers to row %s, which is not there; run nix-store --verify", path, id)}
}

// closureOf is one statement. It may take a second for 100,000 paths.
func (db *database) closureOf(ctx context.Context, roots []narinfo.Path) ([]*narinfo.Info, error) {
	storeDir := db.storeDir
	full := make([]string, len(roots))
	for i, r := range roots {
		full[i] = r.In(storeDir)
	}
	list, err := json.Marshal(full)
	if err != nil {
		return nil, err
	}
	type row struct {
		info *narinfo.Info
		refs string
	}
	var rows []row
	byID := map[int64]narinfo.Path{}
	err = db.rows(ctx, db.closure, string(list), func(r []any) error {
		k, err := known(storeDir, r[1:])
		if err != nil {
			return err
		}
		i, err := k.Info(storeDir)
		if err != nil {
			return err
		}
		byID[number(r[0])] = i.Path
		rows = append(rows, row{i.Info, text(r[9])})
		return nil
	})
	if err != nil {
		return nil, err
	}
	all := make([]*narinfo.Info, len(rows))
	for n, r := range rows {
		all[n] = r.info
		if r.refs == "" {
			continue
		}
		refs := make([]narinfo.Path, 0, strings.Count(r.refs, " ")+1)
		for digits := range strings.SplitSeq(r.refs, " ") {
			id, err := strconv.ParseInt(digits, 10, 64)
			p, ok := byID[id]
			if err != nil || !ok {
				return nil, missingRow(r.info.Path.In(storeDir), digits)
			}
			refs = append(refs, p)
		}
		slices.Sort(refs)
		r.info.References = slices.Compact(refs)
	}
	daemon.Sort(all)
	for _, r := range roots {
		if _, ok := slices.BinarySearchFunc(all, r, func(i *narinfo.Info, p narinfo.Path) int { return strings.Compare(string(i.Path), string(p)) }); !ok {
			return nil, fmt.Errorf("%s %w", r.In(storeDir), ErrNotValid)
		}
	}
	return all, nil
}
