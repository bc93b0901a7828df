package access

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"narwharf/cache/state"
)

// Buckets and the lock of the state.
const (
	tokensBucket = "tokens"
	namesBucket  = "token-names"
	lockTokens   = "tokens"
	topicToken   = "token:" // and an id
)

// Tokens is a Store in a state. In its bucket "tokens" the key is the token's id,
// the value JSON:
//
//	{"v":1,"name":"ci","hash":"<64 hex digits>","scopes":["push"],
//	 "created":"2026-01-02T15:04:05Z","expires":…,"revoked":…,"by":"root"}
//
// with expires, revoked and by left out when they are empty. Tokens of hosts and
// join tokens have "v":2 and in addition
//
//	"host":"web-1","joined":"<id>"
//	"host":"web-1","uses":1,"used":[{"instance":…,"host":…,"token":"<id>","at":…}]
//
// The bucket "token-names" finds tokens by name: its keys are <name> NUL <id>. It is
// derived, and made to agree when the tokens are opened.
//
// A change decides on what it reads in its transaction. Lookups are answered from
// memory, which a notice of a change makes forget the token.
type Tokens struct {
	state state.Store
	file  string // where a copy is kept, or ""

	mu       sync.RWMutex // guards what follows
	known    map[string]Token
	changing int    // changes of this process that are under way: nothing is remembered
	drops    uint64 // grows when something is forgotten and when a change ends
}

var _ Store = (*Tokens)(nil)

// Open opens the tokens in s. It fails on a value that it does not understand,
// rather than forget a revocation. If file is not "", a copy is kept there, see
// keep.go; restored is how many tokens came back from it.
func Open(ctx context.Context, s state.Store, file string) (t *Tokens, restored int, err error) {
	t = &Tokens{state: s, file: file, known: map[string]Token{}}
	s.Watch(t.forget)
	if restored, err = t.reconcile(ctx); err != nil {
		return nil, 0, fmt.Errorf("open tokens in %s: %w", s, err)
	}
	return t, restored, nil
}

// forget drops from memory what topics tell of.
func (t *Tokens) forget(topics []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, topic := range topics {
		if topic == state.All {
			clear(t.known)
		}
		delete(t.known, strings.TrimPrefix(topic, topicToken))
	}
	t.drops++
}

// Lookup implements Store.
func (t *Tokens) Lookup(ctx context.Context, id string) (token Token, err error) {
	t.mu.RLock()
	token, ok := t.known[id]
	drops := t.drops
	t.mu.RUnlock()
	if !ok {
		err = t.state.View(ctx, func(tx state.Reader) error {
			token, ok, err = read(tx, id)
			return err
		})
		if err == nil && !ok {
			err = ErrNotFound
		}
		if err != nil {
			return Token{}, fmt.Errorf("look up token %s: %w", quote(id), err)
		}
		t.mu.Lock()
		if t.drops == drops && t.changing == 0 { // nobody changed it since it was read
			t.known[id] = token
		}
		t.mu.Unlock()
	}
	token.Scopes, token.Used = slices.Clone(token.Scopes), slices.Clone(token.Used)
	return token, nil
}

// read finds a token in the state.
func read(tx state.Reader, id string) (t Token, ok bool, err error) {
	value, err := tx.Get(tokensBucket, id)
	if err != nil || value == nil {
		return Token{}, false, err
	}
	t, err = decodeToken(id, value)
	return t, err == nil, err
}

// List implements Store.
func (t *Tokens) List(ctx context.Context) (all []Token, err error) {
	err = t.state.View(ctx, func(tx state.Reader) error {
		all, err = readAll(tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list tokens of %s: %w", t.state, err)
	}
	slices.SortFunc(all, func(a, b Token) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), byCreation(a, b))
	})
	return all, nil
}

func readAll(tx state.Reader) (all []Token, err error) {
	err = state.Each(tx, tokensBucket, state.Range{}, func(e state.Entry) error {
		t, err := decodeToken(e.Key, e.Value)
		all = append(all, t)
		return err
	})
	return all, err
}

func byCreation(a, b Token) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
}

// Add implements Store.
func (t *Tokens) Add(ctx context.Context, token Token) error {
	return t.update(ctx, func(tx change) error { return tx.add(token) })
}

// Revoke implements Store.
func (t *Tokens) Revoke(ctx context.Context, nameOrID string, at time.Time) (token Token, err error) {
	err = t.update(ctx, func(tx change) error {
		token, err = tx.revoke(nameOrID, at)
		return err
	})
	if err != nil {
		return Token{}, err
	}
	return token, nil
}

// Redeem implements Store.
func (t *Tokens) Redeem(ctx context.Context, joinID, instance string, fresh Token) error {
	return t.update(ctx, func(tx change) error { return tx.redeem(joinID, instance, fresh) })
}

// update runs fn in a transaction, in which the kept copy is written too. Memory
// forgets what changes before that is committed, so that nobody who saw a change
// in the state is told of what was before it.
func (t *Tokens) update(ctx context.Context, fn func(tx change) error) error {
	t.count(1)
	defer t.count(-1)
	var refused error // by fn, in words of its own
	err := t.state.Update(ctx, []string{lockTokens}, func(tx state.Tx) error {
		c := change{Tx: tx, changed: new([]Token)}
		if refused = fn(c); refused != nil {
			return refused
		}
		for _, token := range *c.changed {
			t.forget([]string{topicToken + token.ID})
		}
		return t.writeKept(tx, *c.changed)
	})
	if refused != nil {
		return refused
	}
	if err != nil {
		return fmt.Errorf("write tokens to %s: %w", t.state, err)
	}
	return nil
}

// count counts a change that begins, or ends.
func (t *Tokens) count(change int) {
	t.mu.Lock()
	t.changing += change
	t.drops++
	t.mu.Unlock()
}
