// Package realised reads what a Nix store knows of its outputs beside their narinfos: which
// derivation of a floating content address became what, and what became valid lately.
// nix-daemon is not asked: where it alone can be, nothing is known.
package realised

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"narwharf/narinfo"
)

// Store is a Nix store whose database can be read.
type Store interface {
	StoreDir() string
	// Read has fn read the database, perhaps twice.
	Read(ctx context.Context, fn func(context.Context, *sql.DB) error) error
}

// ErrNone is for an output that the store knows nothing of.
var ErrNone = errors.New("has no realisation")

// Realised is where an output of a content-addressed derivation is.
type Realised struct {
	Path       narinfo.Path
	Signatures []string
	// Dependent are the realisations that it stands on, by id. Nix before 2.27 keeps them,
	// and signatures cover them.
	Dependent map[string]narinfo.Path
}

// Each version of the experiment ca-derivations has tables of its own
// (src/libstore/ca-specific-schema.sql), all of which may lie in one database.
const (
	selectRealisation = `select v.path, r.signatures, (select group_concat(d.drvPath || '!' || d.outputName || ' ' || p.path, char(10))
		from RealisationsRefs f join Realisations d on d.id = f.realisationReference join ValidPaths p on p.id = d.outputPath where f.referrer = r.id)
		from Realisations r join ValidPaths v on v.id = r.outputPath where r.drvPath = ?1 and r.outputName = ?2`
	// Of a derivation: its base name. The newest table has the output's path, the older
	// ones its number.
	selectTrace = `select v.path, t.signatures, null from %s t join ValidPaths v on v.%s where t.drvPath in (?1, ?3 || '/' || ?1) and t.outputName = ?2`
	joinPath    = "path in (t.outputPath, ?3 || '/' || t.outputPath)"
	joinNumber  = "id = t.outputPath"
)

// Realisation returns what Nix before 2.35 knows of an output, by the hash of its
// derivation as in "sha256:…".
func Realisation(ctx context.Context, s Store, drvHash, output string) (*Realised, error) {
	return find(ctx, s, map[string]string{"Realisations": selectRealisation}, drvHash, output)
}

// BuildTrace returns the same of Nix 2.35 and later, by the derivation's base name.
func BuildTrace(ctx context.Context, s Store, drv, output string) (*Realised, error) {
	return find(ctx, s, map[string]string{
		"BuildTraceV3": fmt.Sprintf(selectTrace, "BuildTraceV3", joinPath),
		"BuildTraceV2": fmt.Sprintf(selectTrace, "BuildTraceV2", joinNumber),
		"BuildTrace":   fmt.Sprintf(selectTrace, "BuildTrace", joinNumber),
	}, drv, output)
}

// find asks those of the tables that there are.
func find(ctx context.Context, s Store, tables map[string]string, drv, output string) (r *Realised, err error) {
	err = s.Read(ctx, func(ctx context.Context, db *sql.DB) error {
		for table, query := range tables {
			var one int
			err := db.QueryRowContext(ctx, "select 1 from sqlite_master where type = 'table' and name = ?", table).Scan(&one)
			if err == nil {
				r, err = read(ctx, db, s.StoreDir(), query, drv, output)
			}
			if !errors.Is(err, sql.ErrNoRows) {
				return err
			}
		}
		return nil
	})
	if err == nil && r == nil {
		err = ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("%s!%s: %w", drv, output, err)
	}
	return r, nil
}

func read(ctx context.Context, db *sql.DB, storeDir, query, drv, output string) (*Realised, error) {
	var path string
	var sigs, dependent sql.NullString
	if err := db.QueryRowContext(ctx, query+" order by 1 limit 1", drv, output, storeDir).Scan(&path, &sigs, &dependent); err != nil {
		return nil, err
	}
	p, err := narinfo.ParsePath(storeDir, path)
	if err != nil {
		return nil, fmt.Errorf("the realisation of %s: %w", drv, err)
	}
	r := &Realised{Path: p, Signatures: strings.Fields(sigs.String), Dependent: make(map[string]narinfo.Path)}
	for line := range strings.Lines(dependent.String) {
		id, path, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if r.Dependent[id], err = narinfo.ParsePath(storeDir, path); err != nil {
			return nil, fmt.Errorf("a realisation that %s stands on: %w", drv, err)
		}
	}
	return r, nil
}

// LastPath returns the number of the path that became valid last, 0 if there is none.
func LastPath(ctx context.Context, s Store) (last int64, err error) {
	err = s.Read(ctx, func(ctx context.Context, db *sql.DB) error {
		return db.QueryRowContext(ctx, "select coalesce(max(id), 0) from ValidPaths").Scan(&last)
	})
	return last, err
}

// PathsSince returns the paths that became valid after the one with a number, 0 for all, if built
// those alone that were built here and not fetched, and the last one's number, which is smaller than the given one if the database is another.
func PathsSince(ctx context.Context, s Store, number int64, built bool) (paths []narinfo.Path, last int64, err error) {
	err = s.Read(ctx, func(ctx context.Context, db *sql.DB) error {
		paths = nil
		if err := db.QueryRowContext(ctx, "select coalesce(max(id), 0) from ValidPaths").Scan(&last); err != nil {
			return err
		}
		if last < number {
			number = 0
		}
		rows, err := db.QueryContext(ctx, "select path from ValidPaths where id > ? and id <= ? and (ultimate = 1 or not ?)", number, last, built)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // what it has to say, Err says
		for rows.Next() {
			var path string
			if err := rows.Scan(&path); err != nil {
				return err
			}
			if p, err := narinfo.ParsePath(s.StoreDir(), path); err == nil {
				paths = append(paths, p)
			}
		}
		return rows.Err()
	})
	return paths, last, err
}
