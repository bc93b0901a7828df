package postgres

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// schema is what each version adds to the one before. A change that older programs
// cannot live with is a new version, which they refuse.
//
// Rows of keys are written often and are not indexed by value, so a page with room left
// takes the new row and no index changes (HOT).
var schema = []string{`
create table narwharf_state (
	bucket text collate "C" not null,
	key    bytea not null,
	value  bytea not null,
	primary key (bucket, key)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
create table narwharf_log (
	log      text collate "C" not null,
	position bigint not null,
	value    bytea not null,
	primary key (log, position)
);
create table narwharf_notice (
	position bigint primary key,
	sender   text not null,
	topics   text[] not null,
	at       timestamptz not null default clock_timestamp()
);
create table narwharf_meta (key text primary key, value text not null);
insert into narwharf_meta values ('offset', '0'), ('system', ''), ('channel', 'narwharf_' || substr(md5(random()::text), 1, 12));
`}

// Classes of our advisory locks; others may have their own in the same database.
const (
	lockNames   = 0x6e617277 // of Updates: the number of a name
	lockMigrate = 0x6e617278
)

// migrate makes the tables what this program knows.
func (s *Store) migrate(ctx context.Context) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock($1::int, 0)`, lockMigrate); err != nil {
			return err
		}
		var has bool
		if err := tx.QueryRow(ctx, `select to_regclass('narwharf_meta') is not null`).Scan(&has); err != nil {
			return err
		}
		version := 0
		if has {
			var text string
			if err := tx.QueryRow(ctx, `select value from narwharf_meta where key = 'schema'`).Scan(&text); err != nil {
				return err
			}
			var err error
			if version, err = strconv.Atoi(text); err != nil || version > len(schema) {
				return fmt.Errorf("%s has tables of version %s and this narwharf knows version %d: use the newer narwharf", s.name, text, len(schema))
			}
		}
		for _, change := range schema[version:] {
			if _, err := tx.Exec(ctx, change); err != nil {
				return fmt.Errorf("make the tables: %w", err)
			}
		}
		if version < len(schema) {
			_, err := tx.Exec(ctx, `insert into narwharf_meta values ('schema', $1) on conflict (key) do update set value = excluded.value`, strconv.Itoa(len(schema)))
			if err != nil {
				return err
			}
		}
		return aheadOf(ctx, tx)
	})
}

// afterConnect looks whether a connection goes to the database that was there before:
// one that was restored elsewhere begins its transactions' ids anew.
func afterConnect(ctx context.Context, conn *pgx.Conn) error {
	var another bool
	err := conn.QueryRow(ctx, `select to_regclass('narwharf_meta') is not null`).Scan(&another)
	if err != nil || !another {
		return err // migrate comes first
	}
	err = conn.QueryRow(ctx, `select value <> (select system_identifier::text from pg_control_system()) from narwharf_meta where key = 'system'`).Scan(&another)
	if err != nil || !another {
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock($1::int, 0)`, lockMigrate); err != nil {
			return err
		}
		return aheadOf(ctx, tx)
	})
}

// aheadOf sees to it that new positions are above all that are there: it moves the
// offset of transactions' ids if this is another database than before.
func aheadOf(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `
update narwharf_meta set value = greatest(value::bigint,
		(select greatest((select coalesce(max(position), 0) from narwharf_log), (select coalesce(max(position), 0) from narwharf_notice)) >> 16)
		+ 1 - pg_current_xact_id()::text::bigint)::text
	where key = 'offset' and (select m.value from narwharf_meta m where m.key = 'system') <> (select system_identifier::text from pg_control_system())`)
	if err != nil {
		return fmt.Errorf("look which database this is: %w", err)
	}
	_, err = tx.Exec(ctx, `
update narwharf_meta set value = (select system_identifier::text from pg_control_system())
	where key = 'system' and value <> (select system_identifier::text from pg_control_system())`)
	return err
}
