package shortlived

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/signing/access"
)

const (
	tokensBucket = "short-tokens"
	indexBucket  = "short-index"
	countBucket  = "short-count"
)

// Store is the tokens of a state. Lookups are answered from memory, which notices of changes keep true.
type Store struct {
	state state.Store
	set   *mirror.Set
	table *mirror.Table[Token]
}

// Open opens the tokens of a state.
func Open(st state.Store, log *slog.Logger) (*Store, error) {
	s := &Store{state: st, set: mirror.NewSet(st, log)}
	st.Watch(s.set.Noticed)
	var err error
	if s.table, err = mirror.Open[Token](s.set, tokensBucket, "short-lived token", nil); err != nil {
		return nil, fmt.Errorf("open the short-lived tokens of %s: %w", st, err)
	}
	return s, nil
}

// Lookup returns what is known of an id, also of a token that has ended: the grant's Ends says when.
// ErrNotFound.
func (s *Store) Lookup(ctx context.Context, id string) (access.Hash, access.Grant, error) {
	t := s.table.Get(id)
	if t == nil { // another process may just have made it
		err := s.state.View(ctx, func(tx state.Reader) (err error) {
			t, err = state.GetJSON[Token](tx, tokensBucket, id)
			return err
		})
		if err != nil {
			return access.Hash{}, access.Grant{}, fmt.Errorf("look up short-lived token %s: %w", id, err)
		}
	}
	if t == nil || t.closed {
		return access.Hash{}, access.Grant{}, fmt.Errorf("look up short-lived token %s: %w", id, ErrNotFound)
	}
	g := t.Grant
	g.Scopes = slices.Clone(g.Scopes)
	return t.Hash, g, nil
}

// List is all tokens, sorted by creation; those that have ended too, until they are swept.
func (s *Store) List() []Token {
	var list []Token
	for id, t := range s.table.All() {
		list = append(list, named(id, t))
	}
	slices.SortFunc(list, func(a, b Token) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// named is a copy of a token that knows its id.
func named(id string, t *Token) Token {
	is := *t
	is.ID, is.Grant.Scopes = id, slices.Clone(t.Grant.Scopes)
	return is
}

// Update changes tokens in a transaction of its own.
func (s *Store) Update(ctx context.Context, fn func(c Change) error) error {
	return s.set.Update(ctx, []string{Lock}, func(tx *mirror.Tx) error { return fn(s.In(tx)) })
}

// remembered is how long a token that has ended is kept, to tell its bearer so.
const remembered = time.Hour

// Sweep deletes what ended an hour ago.
func (s *Store) Sweep(ctx context.Context) error {
	const batch = 1000
	for {
		n := 0
		err := s.Update(ctx, func(c Change) error {
			list, err := c.List(indexBucket, state.Range{
				From: keyOf(ofEnd), To: keyOf(ofEnd) + endKey(c.Time.Add(-remembered)), Limit: batch,
			})
			n = len(list)
			for _, e := range list {
				c.remove(idIn(e.Key))
				c.Keep(c.Tx.Delete(indexBucket, e.Key))
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("sweep short-lived tokens: %w", err)
		}
		if n < batch {
			return nil
		}
	}
}

// SweepUntil sweeps now and then until ctx ends.
func (s *Store) SweepUntil(ctx context.Context, log *slog.Logger) {
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			log.Error("short-lived tokens that have ended stay for now", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Minute):
		}
	}
}
