package nixstore

import (
	"context"
	"errors"
	"time"

	"narwharf/cache/nixstore/daemon"
)

// ask puts a question to the database, or to the daemon if the database cannot
// be read. A database that fails in the middle (replaced, damaged, an I/O error)
// is opened once more before it is given up. Questions may be put twice.
func (s *Store) ask(ctx context.Context, base func(*database) error, remote func() error) error {
	var lost *databaseError
	for range 2 {
		db, err := s.database(ctx)
		if err == nil {
			if err = base(db); !errors.As(err, &lost) {
				s.byDaemon.Store(false)
				return err
			}
			s.drop(db)
			continue
		}
		if !errors.As(err, &lost) {
			return err
		}
		break
	}
	err := remote()
	if errors.Is(err, daemon.ErrNoAnswer) {
		return unavailable(lost, err)
	}
	s.byDaemon.Store(true)
	return err
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
