package access

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"
)

// Memory is a Store that lasts as long as the process. The zero value is empty and
// ready for use; it must not be copied after that.
type Memory struct {
	mu     sync.RWMutex
	tokens table
}

var _ Store = (*Memory)(nil)

// Add implements Store.
func (m *Memory) Add(ctx context.Context, t Token) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("add token %s: %w", quote(t.Name), err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tokens == nil {
		m.tokens = table{}
	}
	_, err := m.tokens.add(t)
	return err
}

// Lookup implements Store. It never waits for more than another call's memory
// access, so it does not look at ctx.
func (m *Memory) Lookup(_ context.Context, id string) (Token, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.tokens.lookup(id)
}

// List implements Store.
func (m *Memory) List(context.Context) ([]Token, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.tokens.list(), nil
}

// Revoke implements Store.
func (m *Memory) Revoke(ctx context.Context, nameOrID string, at time.Time) (Token, error) {
	if err := ctx.Err(); err != nil {
		return Token{}, fmt.Errorf("revoke token %s: %w", quote(nameOrID), err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, t, err := m.tokens.revoke(nameOrID, at)
	return t, err
}

// Redeem implements Store.
func (m *Memory) Redeem(ctx context.Context, joinID, instance string, fresh Token) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("redeem token %s: %w", quote(joinID), err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	tokens := maps.Clone(m.tokens)
	if _, err := tokens.redeem(joinID, instance, fresh); err != nil {
		return err
	}
	m.tokens = tokens
	return nil
}
