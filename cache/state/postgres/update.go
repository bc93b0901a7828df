package postgres

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"narwharf/cache/state"
)

// tries is how often a transaction begins that lost against another, or whose
// connection was dead. Nothing of it was written.
const tries = 5

// View implements state.Store.
func (s *Store) View(ctx context.Context, fn func(tx state.Reader) error) error {
	return s.again(ctx, func() error {
		return s.run(ctx, `begin isolation level repeatable read read only`, nil, func(x *tx) error { return fn(x) })
	})
}

// Update implements state.Store.
func (s *Store) Update(ctx context.Context, locks []string, fn func(tx state.Tx) error) error {
	numbers, shared := numbered(locks)
	var topics []string
	err := s.again(ctx, func() error {
		return s.run(ctx, `begin isolation level read committed`, func(x *tx) error { return x.lock(numbers, shared) }, func(x *tx) error {
			topics = nil
			err := fn(x)
			topics = x.topics
			return err
		})
	})
	switch {
	case errors.Is(err, state.ErrUncertain) && len(topics) > 0:
		s.watchers.Tell([]string{state.All}) // it may have been made
	case err == nil && len(topics) > 0:
		s.watchers.Tell(topics)
		s.notices.add(topics)
	}
	return err
}

// Merge implements state.Store.
func (s *Store) Merge(ctx context.Context, bucket string, values map[string]uint64) error {
	for keys := range slices.Chunk(slices.Sorted(maps.Keys(values)), state.MaxPage) {
		names, numbers := make([][]byte, len(keys)), make([][]byte, len(keys))
		for i, key := range keys {
			numbers[i] = []byte(state.Uint64Key(values[key]))
			if err := state.CheckEntry(bucket, key, numbers[i]); err != nil {
				return err
			}
			names[i] = []byte(key)
		}
		err := s.again(ctx, func() error {
			return s.run(ctx, `begin isolation level read committed`, (*tx).mayWrite, func(x *tx) error {
				x.exec(`
insert into narwharf_state as s (bucket, key, value)
	select $1, k, v from unnest($2::bytea[], $3::bytea[]) as t (k, v)
	on conflict (bucket, key) do update set value = excluded.value
	where length(s.value) <> 8 or s.value < excluded.value`, bucket, names, numbers)
				x.wrote = true
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// stripes is how many locks there are for all names: so many that two names are
// seldom one, and so few that the database has room for all (64 for each connection
// that it allows, by default).
const stripes = 4096

// numbered are locks as numbers, in order, each once. One that is asked for in both ways is
// not shared.
func numbered(locks []string) (numbers []int32, shared []bool) {
	all := make(map[int32]bool, len(locks))
	for _, lock := range locks {
		name, isShared := strings.CutPrefix(lock, state.Shared(""))
		h := fnv.New32a()
		_, _ = h.Write([]byte(name))
		n := int32(h.Sum32() % stripes)
		was, has := all[n]
		all[n] = isShared && (was || !has)
	}
	numbers = slices.Sorted(maps.Keys(all))
	for _, n := range numbers {
		shared = append(shared, all[n])
	}
	return numbers, shared
}

// again runs a transaction anew if it failed in a way that another try may not, and
// surely wrote nothing.
func (s *Store) again(ctx context.Context, once func() error) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.open.Done()
	if since := s.Away(); !since.IsZero() {
		return fmt.Errorf("%s: %w: it does not answer since %s", s.name, state.ErrUnavailable, since.UTC().Format(time.TimeOnly))
	}
	for try := 1; ; try++ {
		err := once()
		if err == nil || try == tries || ctx.Err() != nil || !mayHelp(err) {
			return s.outcome(ctx, err)
		}
		pause := time.Duration(rand.Int64N(int64(5*time.Millisecond) << try))
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// failure is an error of the database, not of the caller's function.
type failure struct {
	err       error
	uncertain bool
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// run is one try of a transaction.
func (s *Store) run(ctx context.Context, begin string, prepare, fn func(x *tx) error) (err error) {
	within, cancel := context.WithTimeout(ctx, statementTimeout)
	conn, err := s.pool.Acquire(within)
	cancel()
	if err != nil {
		return &failure{err: err}
	}
	defer conn.Release() // ends a connection that is in a transaction
	x := &tx{s: s, ctx: ctx, conn: conn.Conn(), batch: &pgx.Batch{}}
	x.exec(begin)
	x.exec(`select set_config('statement_timeout', $1, true), set_config('idle_in_transaction_session_timeout', $2, true)`,
		fmt.Sprint(statementTimeout.Milliseconds()), fmt.Sprint(idleTimeout.Milliseconds()))
	committed := false
	defer func() {
		if !committed {
			x.rollback(err)
		}
	}()
	if prepare != nil {
		err = prepare(x)
	}
	if err == nil {
		err = fn(x)
	}
	if err == nil {
		err = x.err
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = x.commit()
		committed = err == nil
	}
	return err
}

// mayHelp tells whether another try may end otherwise: the transaction lost against
// another, or its connection was one of a database that has gone since.
func mayHelp(err error) bool {
	var f *failure
	if !errors.As(err, &f) || f.uncertain {
		return false
	}
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		switch answer.Code {
		case "40001", "40P01", "53300", "25006", "57P01", "57P02", "25P03":
			return true
		}
		return false
	}
	var refused *pgconn.ConnectError
	return !errors.As(err, &refused) && !errors.Is(err, context.DeadlineExceeded)
}

// outcome is what a caller is told of an error.
func (s *Store) outcome(ctx context.Context, err error) error {
	var f *failure
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &f):
		return err
	case f.uncertain:
		return fmt.Errorf("%w: %s: %w", state.ErrUncertain, s.name, f.err)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return s.problem(f.err)
}

// problem sorts errors of the database.
func (s *Store) problem(err error) error {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		switch {
		case answer.Code == "57014":
			return fmt.Errorf("%s: %w: no answer within %s: %w", s.name, state.ErrUnavailable, statementTimeout, err)
		case strings.HasPrefix(answer.Code, "XX"):
			return fmt.Errorf("%s is %w: %w", s.name, state.ErrDamaged, err)
		// connections, resources, operators, read only, lost against others each time
		case slices.Contains([]string{"08", "53", "57", "58", "25", "40", "55"}, answer.Code[:2]):
		default:
			return fmt.Errorf("%s: %w", s.name, err)
		}
		return fmt.Errorf("%s: %w: %w", s.name, state.ErrUnavailable, err)
	}
	var refused *pgconn.ConnectError
	if errors.As(err, &refused) || pgconn.Timeout(err) || isNetwork(err) {
		return fmt.Errorf("%s: %w: %w", s.name, state.ErrUnavailable, err)
	}
	return err
}
