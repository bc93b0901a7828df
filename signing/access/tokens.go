package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/signing/access/scope"
)

// The two outcomes that callers tell apart; both come wrapped.
var (
	ErrExists   = errors.New("the name is taken")
	ErrNotFound = errors.New("no such token")
)

// Lock is the lock of the state that whoever changes tokens holds.
const Lock = "tokens"

const (
	tokensBucket = "tokens"
	indexBucket  = "token-index"
	topicToken   = "token:" // and an id
	topicShort   = "short-tokens/"
)

// Tokens keeps tokens in a state. In its bucket "tokens" the key is the token's id,
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
// The bucket "token-index" finds tokens: its keys are <name> NUL <id>, and
// :<host> NUL <id> for those that are bound to a host. It is derived, and made to
// agree when the tokens are opened.
//
// A change touches only the tokens that it is about. Lookups are answered from memory,
// which a notice of a change makes forget the token.
type Tokens struct {
	state state.Store
	set   *mirror.Set
	copy  keptCopy

	mu       sync.RWMutex // guards what follows
	known    map[string]Token
	changing int    // changes of this process that are under way: nothing is remembered
	drops    uint64 // grows when something is forgotten, and when a change begins or ends
}

// Open opens the tokens in s. If file is not "", a copy is kept there, see keep.go;
// restored is how many tokens came back from it.
func Open(ctx context.Context, s state.Store, file string) (t *Tokens, restored int, err error) {
	t = &Tokens{state: s, set: mirror.NewSet(s, nil), copy: keptCopy{file: file}, known: map[string]Token{}}
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

// count counts a change that begins, or ends.
func (t *Tokens) count(change int) {
	t.mu.Lock()
	t.changing += change
	t.drops++
	t.mu.Unlock()
}

// Lookup returns the token of an id, also when it is expired or revoked; ErrNotFound
// if there is none.
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
			return Token{}, fmt.Errorf("look up token %s: %w", scope.Quote(id), err)
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

// List returns all tokens, the expired and revoked too, sorted by name, creation, id.
func (t *Tokens) List(ctx context.Context) (all []Token, err error) {
	err = t.state.View(ctx, func(tx state.Reader) error {
		all = nil
		return state.Each(tx, tokensBucket, state.Range{}, func(e state.Entry) error {
			t, err := decodeToken(e.Key, e.Value)
			all = append(all, t)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list tokens of %s: %w", t.state, err)
	}
	slices.SortFunc(all, func(a, b Token) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), byCreation(a, b))
	})
	return all, nil
}

func byCreation(a, b Token) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
}

// Add stores a new token, as New made it; every later Lookup sees it. ErrExists if a
// token of the same name is active at its creation, if the id is taken, or if the name is
// another token's id or the other way round (Revoke could not tell them apart).
func (t *Tokens) Add(ctx context.Context, token Token) error {
	return t.update(ctx, func(tx Change) error { return tx.Add(token) })
}

// Revoke marks as revoked the token of that id, or every token of that name. It returns
// the token, of several the last created. What is revoked already stays as it is and is
// not an error: its Revoked time then is not at. ErrNotFound if there is none.
func (t *Tokens) Revoke(ctx context.Context, nameOrID string, at time.Time) (token Token, err error) {
	err = t.update(ctx, func(tx Change) error {
		token, err = tx.Revoke(nameOrID, at)
		return err
	})
	if err != nil {
		return Token{}, err
	}
	return token, nil
}

// update runs fn in a transaction of its own.
func (t *Tokens) update(ctx context.Context, fn func(tx Change) error) error {
	var refused error // by fn, in words of its own
	err := t.set.Update(ctx, []string{Lock}, func(tx *mirror.Tx) error {
		refused = fn(t.In(tx))
		return refused
	})
	if err != nil && refused == nil {
		return fmt.Errorf("write tokens to %s: %w", t.state, err)
	}
	return cmp.Or(refused, err)
}

// Change is what a transaction does to tokens.
type Change struct {
	*mirror.Tx
	changed *[]Token
}

// In is the change of tokens in a transaction of their state that holds Lock. Memory
// forgets what changes before that is committed, so that nobody who saw a change in
// the state is told of what was before it; and the kept copy knows it by then.
func (t *Tokens) In(tx *mirror.Tx) Change {
	c := Change{tx, new([]Token)}
	t.count(1)
	tx.Before(func() error {
		for _, token := range *c.changed {
			t.forget([]string{topicToken + token.ID})
		}
		return t.copy.keep(tx, *c.changed)
	})
	tx.After(func(err error) {
		t.copy.ended(err)
		t.count(-1)
	})
	return c
}

// put stores a token.
func (c Change) put(t Token) error {
	value, err := encodeToken(t)
	if err != nil {
		return err
	}
	*c.changed = append(*c.changed, t)
	c.Notify(topicToken + t.ID)
	err = c.Tx.Put(indexBucket, indexKey(t.Name, t.ID), nil)
	if err == nil && t.Host != "" {
		err = c.Tx.Put(indexBucket, indexKey(hostMark+t.Host, t.ID), nil)
	}
	if err != nil {
		return err
	}
	return c.Tx.Put(tokensBucket, t.ID, value)
}

// hostMark begins what finds the tokens of a host, and no name of a token.
const hostMark = ":"

func indexKey(by, id string) string { return by + "\x00" + id }

// found returns the tokens of a name, or of hostMark and a host, in order of their
// creation.
func (c Change) found(by string) (list []Token, err error) {
	prefix := indexKey(by, "")
	err = state.Each(c, indexBucket, state.Prefix(prefix), func(e state.Entry) error {
		t, ok, err := read(c, e.Key[len(prefix):])
		if ok {
			list = append(list, t)
		}
		return err
	})
	slices.SortFunc(list, byCreation)
	return list, err
}

// Bound returns the tokens that may act as a host and no other, join tokens left out.
func (c Change) Bound(host string) ([]Token, error) {
	list, err := c.found(hostMark + host)
	return slices.DeleteFunc(list, func(t Token) bool { return t.Uses > 0 }), err
}

// RevokeJoined revokes the tokens that joins made for a host, but one.
func (c Change) RevokeJoined(host, except string, at time.Time) error {
	list, err := c.Bound(host)
	for _, t := range list {
		if err == nil && t.Joined != "" && t.Revoked.IsZero() && t.ID != except {
			t.Revoked = wholeSecond(at)
			err = c.put(t)
		}
	}
	return err
}

// Add is that of Tokens.
func (c Change) Add(t Token) error {
	t = t.normal()
	if err := t.check(); err != nil {
		return fmt.Errorf("add token %s: %w", scope.Quote(t.Name), err)
	}
	_, id, err := read(c, t.ID)
	_, name, err2 := read(c, t.Name)
	list, err3 := c.found(t.ID)
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	if id || name || len(list) > 0 {
		return fmt.Errorf("add token %s: %w as the id of a token: choose another", scope.Quote(t.Name), ErrExists)
	}
	if list, err = c.found(t.Name); err != nil {
		return err
	}
	for _, other := range list {
		if other.Active(t.Created) {
			return fmt.Errorf("add token %s: %w by token %s, made on %s",
				scope.Quote(t.Name), ErrExists, other.ID, stamp(other.Created))
		}
	}
	return c.put(t)
}

// Revoke is that of Tokens.
func (c Change) Revoke(nameOrID string, at time.Time) (Token, error) {
	if at.IsZero() {
		return Token{}, fmt.Errorf("revoke token %s: the time is missing", scope.Quote(nameOrID))
	}
	last, ok, err := read(c, nameOrID)
	hit := []Token{last}
	if err == nil && !ok {
		hit, err = c.found(nameOrID)
	}
	if err == nil && (len(hit) == 0 || strings.HasPrefix(nameOrID, hostMark)) {
		err = fmt.Errorf("revoke token %s: %w", scope.Quote(nameOrID), ErrNotFound)
	}
	for _, last = range hit {
		if err == nil && last.Revoked.IsZero() {
			last.Revoked = wholeSecond(at)
			err = c.put(last)
		}
	}
	return last, err
}
