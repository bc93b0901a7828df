package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"narwharf/cache/state"
)

var _ state.Movable = (*Store)(nil)

const frozenSQL = `select coalesce((select value from narwharf_meta where key = 'frozen'), '')`

// Freeze implements state.Movable. An Update reads the row behind its locks, so those that begin later fail; the
// transactions that were at work then are waited for, as CREATE INDEX CONCURRENTLY does.
func (s *Store) Freeze(ctx context.Context, f *state.Freeze) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.open.Done()
	sql, args := `delete from narwharf_meta where key = 'frozen'`, []any(nil)
	if f != nil {
		sql, args = `insert into narwharf_meta values ('frozen', $1) on conflict (key) do update set value = excluded.value`, []any{string(f.Text())}
	}
	if _, err := s.pool.Exec(ctx, sql, args...); err != nil {
		return s.problem(err)
	}
	var at []string
	err := s.pool.QueryRow(ctx, `select coalesce(array_agg(l.virtualxid), '{}') from pg_locks l join pg_stat_activity a using (pid)
	where l.locktype = 'virtualxid' and l.granted and a.datname = current_database() and a.pid <> pg_backend_pid()`).Scan(&at)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for left := len(at); err == nil && left > 0; {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d transactions of %s do not end: %w", left, s.name, ctx.Err())
		case <-tick.C:
		}
		err = s.pool.QueryRow(ctx, `select count(*) from pg_locks where locktype = 'virtualxid' and granted and virtualxid = any($1)`, at).Scan(&left)
	}
	if err != nil {
		return s.problem(err)
	}
	return nil
}

// Frozen implements state.Movable.
func (s *Store) Frozen(ctx context.Context) (*state.Frozen, error) {
	var text string
	err := s.again(ctx, func() error {
		return s.run(ctx, `begin isolation level read committed read only`, nil, func(x *tx) error {
			return x.query(frozenSQL, nil, func(rows pgx.Rows) error { return rows.Scan(&text) })
		})
	})
	if err != nil {
		return nil, err
	}
	return state.FrozenFor([]byte(text), s.place), nil
}

// mayWrite reads the clock, and whether this Store may write.
func (x *tx) mayWrite() error {
	var text string
	err := x.query(`select clock_timestamp(), (`+frozenSQL+`)`, nil, func(rows pgx.Rows) error { return rows.Scan(&x.now, &text) })
	if err != nil {
		return err
	}
	return x.refusal(text)
}

// refusal is the error of an Update where writes are frozen.
func (x *tx) refusal(frozen string) error {
	if f := state.FrozenFor([]byte(frozen), x.s.place); f != nil {
		return f
	}
	return nil
}

// Names implements state.Movable. It goes from name to name in the index.
func (s *Store) Names(ctx context.Context) (buckets, logs []string, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, nil, err
	}
	defer s.open.Done()
	for _, t := range []struct {
		sql string
		to  *[]string
	}{
		{`with recursive n as (select min(bucket) as b from narwharf_state union all
	select (select min(bucket) from narwharf_state where bucket > n.b) from n where n.b is not null)
	select b from n where b is not null order by b`, &buckets},
		{`select distinct log as l from narwharf_log order by l`, &logs},
	} {
		rows, err := s.pool.Query(ctx, t.sql)
		if err == nil {
			*t.to, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		if err != nil {
			return nil, nil, s.problem(err)
		}
	}
	return buckets, logs, nil
}

// Records implements state.Movable.
func (s *Store) Records(ctx context.Context, log string, from uint64, limit int) (list []state.Record, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.open.Done()
	rows, err := s.pool.Query(ctx, `select position, value from narwharf_log where log = $1 and position >= $2 order by position limit $3`,
		log, int64(min(from, last)), state.PageSize(limit))
	if err == nil {
		list, err = pgx.CollectRows(rows, pgx.RowToStructByPos[state.Record])
	}
	if err != nil {
		return nil, s.problem(err)
	}
	return list, nil
}

// last is above all positions. slack is how many transactions may be at work that are older than the one
// that restores: readers see nothing of them and of what comes behind.
const (
	last  = 1 << 62
	slack = 1 << 20
)

// Restore implements state.Movable.
func (s *Store) Restore(ctx context.Context, log string, from, to uint64, records []state.Record) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.open.Done()
	positions, values := make([]int64, len(records)), make([][]byte, len(records))
	var top int64
	for i, r := range records {
		positions[i], values[i] = int64(r.Position), r.Value
		top = max(top, positions[i])
	}
	if to == 0 {
		to = last
	}
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `delete from narwharf_log where log = $1 and position >= $2 and position < $3 and position <> all($4::bigint[])`, log, int64(from), int64(to), positions)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `insert into narwharf_log select $1, * from unnest($2::bigint[], $3::bytea[])
	on conflict (log, position) do update set value = excluded.value`, log, positions, values)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `update narwharf_meta set value = greatest(value::bigint, ($1::bigint >> 16) + $2::bigint - pg_current_xact_id()::text::bigint)::text where key = 'offset'`, top, slack)
		return err
	})
	if err != nil {
		return s.problem(err)
	}
	return nil
}
