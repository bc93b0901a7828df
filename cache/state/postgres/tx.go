package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"narwharf/cache/state"
)

// tx is a state.Tx, and a state.Reader. What it is to write is sent with the next
// query, or with the commit.
type tx struct {
	s    *Store
	ctx  context.Context
	conn *pgx.Conn

	batch  *pgx.Batch // what is to be sent
	sent   bool       // something was
	err    error      // the first
	keys   map[entry][]byte
	known  map[entry][]byte // what was expected to be read, and was not written since
	record []record
	wrote  bool
	topics []string

	now      time.Time
	position uint64 // of the next record; 0: not known yet
}

var _ state.Tx = (*tx)(nil)

type entry struct{ bucket, key string }

type record struct {
	log      string
	position uint64
	value    []byte
}

func (x *tx) fail(err error) error {
	if x.err == nil {
		x.err = &failure{err: err}
	}
	return x.err
}

// exec adds a statement whose rows nobody wants.
func (x *tx) exec(sql string, args ...any) { x.batch.Queue(sql, args...) }

// query sends what there is to send and a query, and calls row for each of its rows.
func (x *tx) query(sql string, args []any, row func(rows pgx.Rows) error) error {
	if x.err != nil {
		return x.err
	}
	x.flush()
	x.batch.Queue(sql, args...).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			if err := row(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	return x.send(x.ctx)
}

func (x *tx) send(ctx context.Context) error {
	batch := x.batch
	x.batch, x.sent = &pgx.Batch{}, true
	if err := x.conn.SendBatch(ctx, batch).Close(); err != nil {
		return x.fail(err)
	}
	return nil
}

// flush turns what was written into statements.
func (x *tx) flush() {
	var put, gone struct {
		buckets []string
		keys    [][]byte
		values  [][]byte
	}
	order := func(a, b entry) int {
		if c := strings.Compare(a.bucket, b.bucket); c != 0 {
			return c
		}
		return strings.Compare(a.key, b.key)
	}
	for _, e := range slices.SortedFunc(maps.Keys(x.keys), order) {
		to := &put
		if x.keys[e] == nil {
			to = &gone
		}
		to.buckets, to.keys, to.values = append(to.buckets, e.bucket), append(to.keys, []byte(e.key)), append(to.values, x.keys[e])
	}
	x.keys = nil
	if len(put.keys) > 0 {
		x.exec(`
insert into narwharf_state select * from unnest($1::text[], $2::bytea[], $3::bytea[])
	on conflict (bucket, key) do update set value = excluded.value`, put.buckets, put.keys, put.values)
	}
	if len(gone.keys) > 0 {
		x.exec(`delete from narwharf_state s using unnest($1::text[], $2::bytea[]) as t (b, k) where s.bucket = t.b and s.key = t.k`, gone.buckets, gone.keys)
	}
	if len(x.record) > 0 {
		logs, positions, values := make([]string, len(x.record)), make([]int64, len(x.record)), make([][]byte, len(x.record))
		for i, r := range x.record {
			logs[i], positions[i], values[i] = r.log, int64(r.position), r.value
		}
		x.exec(`insert into narwharf_log select * from unnest($1::text[], $2::bigint[], $3::bytea[])`, logs, positions, values)
	}
	x.record = nil
}

// lock takes advisory locks, in the order of their numbers, and reads the clock, and whether anything may
// be written, when it has them.
func (x *tx) lock(numbers []int32, shared []bool) error {
	if len(numbers) > 0 {
		x.exec(`
select case when shared then pg_advisory_xact_lock_shared($1::int, n)::text else pg_advisory_xact_lock($1::int, n)::text end
	from unnest($2::int[], $3::bool[]) with ordinality as t (n, shared, i) order by i`, lockNames, numbers, shared)
	}
	return x.look(state.ExpectedBy(x.ctx))
}

// look reads the clock, whether anything may be written, and what is going to be read.
func (x *tx) look(e state.Expected) error {
	if len(e.Keys) == 0 {
		return x.mayWrite()
	}
	buckets, keys, position := make([]string, len(e.Keys)), make([][]byte, len(e.Keys)), `0::bigint`
	for i, k := range e.Keys {
		buckets[i], keys[i] = k.Bucket, []byte(k.Key)
	}
	if e.Append {
		position = ownPosition
	}
	x.known = make(map[entry][]byte, len(e.Keys))
	var frozen string
	err := x.query(`
select clock_timestamp(), (`+frozenSQL+`), `+position+`, t.b, t.k, s.value
	from unnest($1::text[], $2::bytea[]) as t (b, k) left join narwharf_state s on s.bucket = t.b and s.key = t.k`, []any{buckets, keys}, func(rows pgx.Rows) error {
		var bucket string
		var key, value []byte
		err := rows.Scan(&x.now, &frozen, &x.position, &bucket, &key, &value)
		x.known[entry{bucket, string(key)}] = value
		return err
	})
	if err != nil {
		return err
	}
	return x.refusal(frozen)
}

// commit sends what is left. It is uncertain what became of it if there is no answer.
func (x *tx) commit() error {
	if len(x.topics) > 0 {
		slices.Sort(x.topics)
		x.topics = slices.Compact(x.topics)
		x.exec(`insert into narwharf_notice (position, sender, topics) values (`+ownPosition+`, $1, $2)`, x.s.id, x.topics)
		x.wrote = true
	}
	x.flush()
	if !x.sent && !x.wrote {
		return nil // nobody read or wrote
	}
	x.exec(`commit`)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.ctx), statementTimeout)
	defer cancel()
	err := x.send(ctx)
	var answer *pgconn.PgError
	if err == nil || !x.wrote || pgconn.SafeToRetry(err) || errors.As(err, &answer) && answer.Severity == "ERROR" {
		return err
	}
	return &failure{err: err, uncertain: true}
}

// rollback ends a transaction that failed. A connection that cannot do that is closed, and
// one to a server that has become a standby, too.
func (x *tx) rollback(err error) {
	if !x.sent || x.conn.IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.ctx), time.Second)
	defer cancel()
	var answer *pgconn.PgError
	if errors.As(err, &answer) && answer.Code == "25006" {
		_ = x.conn.Close(ctx)
		return
	}
	_, _ = x.conn.Exec(ctx, `rollback`)
}

// Get implements state.Reader.
func (x *tx) Get(bucket, key string) (value []byte, err error) {
	if v, written := x.keys[entry{bucket, key}]; written {
		return slices.Clone(v), x.err
	}
	if v, known := x.known[entry{bucket, key}]; known {
		return slices.Clone(v), x.err
	}
	err = x.query(`select value from narwharf_state where bucket = $1 and key = $2`, []any{bucket, []byte(key)}, func(rows pgx.Rows) error {
		return rows.Scan(&value)
	})
	return value, err
}

// List implements state.Reader.
func (x *tx) List(bucket string, r state.Range) (list []state.Entry, err error) {
	sql, args := `select key, value from narwharf_state where bucket = $1 and key >= $2`, []any{bucket, []byte(r.From), state.PageSize(r.Limit)}
	if r.To != "" {
		sql, args = sql+` and key < $4`, append(args, []byte(r.To))
	}
	direction := ""
	if r.Reverse {
		direction = ` desc`
	}
	err = x.query(sql+` order by key`+direction+` limit $3`, args, func(rows pgx.Rows) error {
		var key, value []byte
		err := rows.Scan(&key, &value)
		list = append(list, state.Entry{Key: string(key), Value: value})
		return err
	})
	return list, err
}

// What positions are made of. See the package.
const (
	offset      = `(select value::bigint from narwharf_meta where key = 'offset')`
	ownPosition = `(pg_current_xact_id()::text::bigint + ` + offset + `) << 16`
	oldestWork  = `(pg_snapshot_xmin(pg_current_snapshot())::text::bigint + ` + offset + `) << 16`
)

// ReadLog implements state.Reader.
func (x *tx) ReadLog(log string, from uint64, limit int) (list []state.Record, err error) {
	err = x.query(`select position, value from narwharf_log where log = $1 and position >= $2 and position < `+oldestWork+` order by position limit $3`,
		[]any{log, int64(min(from, 1<<62)), state.PageSize(limit)}, func(rows pgx.Rows) error {
			var r state.Record
			err := rows.Scan(&r.Position, &r.Value)
			list = append(list, r)
			return err
		})
	return list, err
}

// Now implements state.Reader: of an Update it is when it had its locks.
func (x *tx) Now() (time.Time, error) {
	if !x.now.IsZero() {
		return x.now, x.err
	}
	err := x.query(`select clock_timestamp()`, nil, func(rows pgx.Rows) error { return rows.Scan(&x.now) })
	return x.now, err
}

// Put implements state.Tx.
func (x *tx) Put(bucket, key string, value []byte) error {
	if err := state.CheckEntry(bucket, key, value); err != nil {
		return err
	}
	x.write(bucket, key, append([]byte{}, value...))
	return x.err
}

// Delete implements state.Tx.
func (x *tx) Delete(bucket, key string) error {
	x.write(bucket, key, nil)
	return x.err
}

func (x *tx) write(bucket, key string, value []byte) {
	if x.keys == nil {
		x.keys = make(map[entry][]byte)
	}
	x.keys[entry{bucket, key}] = value
	delete(x.known, entry{bucket, key})
	x.wrote = true
}

// Clear implements state.Tx.
func (x *tx) Clear(bucket string) error {
	x.flush()
	x.known = nil
	x.exec(`delete from narwharf_state where bucket = $1 or bucket >= $1 || '/' and bucket < $1 || '0'`, bucket)
	x.wrote = true
	return x.err
}

// Append implements state.Tx.
func (x *tx) Append(log string, encode func(position uint64) ([]byte, error)) error {
	if x.position == 0 {
		err := x.query(`select `+ownPosition, nil, func(rows pgx.Rows) error { return rows.Scan(&x.position) })
		if err != nil {
			return err
		}
	}
	if x.position&0xffff == 0xffff {
		return x.fail(fmt.Errorf("more than %d records in one transaction: %w", 0xffff, state.ErrLimit))
	}
	x.position++
	value, err := encode(x.position)
	if err == nil {
		err = state.CheckEntry(log, "position", value)
	}
	if err != nil {
		return err
	}
	x.record = append(x.record, record{log, x.position, append([]byte{}, value...)})
	x.wrote = true
	return x.err
}

// Trim implements state.Tx.
func (x *tx) Trim(log string, below uint64) error {
	x.flush()
	x.exec(`delete from narwharf_log where log = $1 and position < $2`, log, int64(min(below, 1<<62)))
	x.wrote = true
	return x.err
}

// Notify implements state.Tx.
func (x *tx) Notify(topics ...string) { x.topics = append(x.topics, topics...) }

func isNetwork(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed)
}
