package shortlived

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/signing/access"
)

// Lock is the lock of the state that whoever changes these tokens holds.
const Lock = "short-tokens"

// Bounds on what one bearer, and all of one rule, can have at a time.
const (
	maxOfOne  = 1000
	maxOfRule = 25_000
)

// The outcomes that callers tell apart; both come wrapped.
var (
	ErrNotFound = access.ErrNotFound
	ErrFull     = errors.New("too many short-lived tokens of this rule are in use: try again when some have ended, or narwharf token revoke --rule ends them all")
)

// Change is what a transaction does to tokens.
type Change struct {
	*mirror.Tx
	store *Store
}

// In is the change of tokens in a transaction of their state that holds Lock.
func (s *Store) In(tx *mirror.Tx) Change {
	tx.After(func(err error) {
		if errors.Is(err, state.ErrUncertain) { // it may have been made
			s.set.Noticed([]string{state.All})
		}
	})
	return Change{tx, s}
}

// Issue makes a token of a grant that lasts until ends, whatever the grant's own end is. The secret is
// nowhere else. ErrFull.
func (c Change) Issue(g access.Grant, ends time.Time, note string) (secret string, t Token, err error) {
	g.Scopes, g.Ends = slices.Clone(g.Scopes), second(ends)
	t = Token{Grant: g, Created: second(c.Time), Note: note}
	secret, t.ID, t.Hash = access.DrawShort()
	if err := t.check(); err != nil {
		return "", Token{}, fmt.Errorf("make a short-lived token of %s: %w", g.Name(), err)
	}
	if err := c.makeRoom(&t); err != nil {
		return "", Token{}, fmt.Errorf("make a short-lived token of %s: %w", g.Name(), err)
	}
	c.put(t)
	return secret, t, nil
}

func (c Change) put(t Token) {
	c.count(&t, 1)
	for _, key := range indexKeys(&t) {
		c.Keep(c.Tx.Put(indexBucket, key, nil))
	}
	c.store.table.Put(c.Tx, t.ID, &t)
}

// Extend has the token of an id last until another end. ErrNotFound.
func (c Change) Extend(id string, ends time.Time) (Token, error) {
	old, err := c.Find(id)
	if err != nil {
		return Token{}, err
	}
	t := old
	t.Grant.Ends = second(ends)
	if err := t.check(); err != nil {
		return Token{}, fmt.Errorf("extend the short-lived token %s: %w", id, err)
	}
	c.remove(id)
	c.put(t)
	return t, nil
}

func second(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// makeRoom keeps to the bounds.
func (c Change) makeRoom(t *Token) error {
	own := state.Prefix(keyOf(ofBearer, bearer(t)...))
	own.Limit = maxOfOne
	list, err := c.List(indexBucket, own)
	if err != nil {
		return err
	}
	if len(list) == maxOfOne {
		c.remove(idIn(list[0].Key))
	}
	n, err := c.Get(countBucket, countKey(t))
	if err == nil && state.Uint64(n) >= maxOfRule {
		err = ErrFull
	}
	return err
}

// count counts the tokens of a rule.
func (c Change) count(t *Token, by int) {
	n, err := c.Get(countBucket, countKey(t))
	c.Keep(err)
	switch is := int(state.Uint64(n)) + by; { //nolint:gosec // of some thousands
	case is <= 0:
		c.Keep(c.Tx.Delete(countBucket, countKey(t)))
	default:
		c.Keep(c.Tx.Put(countBucket, countKey(t), []byte(state.Uint64Key(uint64(is)))))
	}
}

// Find is the token of an id, also when it has ended.
func (c Change) Find(id string) (Token, error) {
	if t := c.store.table.In(c.Tx, id); t != nil {
		return named(id, t), nil
	}
	return Token{}, fmt.Errorf("short-lived token %s: %w", id, ErrNotFound)
}

// OfHost are the tokens that may act as a host and no other.
func (c Change) OfHost(host string) ([]Token, error) { return c.found(ofHost, host) }

// OfSubject are the tokens of a kind that somebody has, in the issuer's words for him; the one that ends
// first comes first.
func (c Change) OfSubject(kind, issuer, subject string) ([]Token, error) {
	return c.found(ofBearer, kind, issuer, subject)
}

// Revoke ends the token of an id. ErrNotFound.
func (c Change) Revoke(id string) (Token, error) {
	t, err := c.Find(id)
	if err == nil {
		c.remove(id)
	}
	return t, err
}

// RevokeRule ends all tokens of a rule, by the name of its grants ("github/main"), and says how many.
func (c Change) RevokeRule(name string) (int, error) { return c.revokeAll("", ofRule, name) }

// RevokeSubject ends all tokens of a kind that somebody has, in the issuer's words for him.
func (c Change) RevokeSubject(kind, issuer, subject string) (int, error) {
	return c.revokeAll("", ofBearer, kind, issuer, subject)
}

// RevokeHost ends all tokens that may act as a host and no other, but one; "" excepts none.
func (c Change) RevokeHost(host, except string) (int, error) {
	return c.revokeAll(except, ofHost, host)
}

// RevokeOwner ends all tokens of an owner of host names, but one; "" excepts none.
func (c Change) RevokeOwner(owner, except string) (int, error) {
	return c.revokeAll(except, ofOwner, owner)
}

func (c Change) revokeAll(except, family string, fields ...string) (n int, err error) {
	list, err := c.found(family, fields...)
	for _, t := range list {
		if t.ID != except {
			c.remove(t.ID)
			n++
		}
	}
	return n, err
}

// found are the tokens that an index leads to.
func (c Change) found(family string, fields ...string) (list []Token, err error) {
	var ids []string
	err = state.Each(c, indexBucket, state.Prefix(keyOf(family, fields...)), func(e state.Entry) error {
		ids = append(ids, idIn(e.Key))
		return nil
	})
	for _, id := range ids {
		if t := c.store.table.In(c.Tx, id); t != nil {
			list = append(list, named(id, t))
		}
	}
	return list, err
}

// remove takes a token away, with what finds it.
func (c Change) remove(id string) {
	t := c.store.table.In(c.Tx, id)
	if t == nil {
		return
	}
	t.ID = id
	c.count(t, -1)
	for _, key := range indexKeys(t) {
		c.Keep(c.Tx.Delete(indexBucket, key))
	}
	c.store.table.Put(c.Tx, id, nil)
}

// What the index finds tokens by. A key is the family, its fields, the end and the id.
const (
	ofEnd    = "e"
	ofRule   = "r" // its grants' name
	ofBearer = "s" // kind, issuer, subject, host
	ofHost   = "h"
	ofOwner  = "o"
)

func keyOf(family string, fields ...string) string {
	return family + "\x00" + strings.Join(append(fields, ""), "\x00")
}

func bearer(t *Token) []string {
	return []string{t.Grant.Kind, t.Grant.Issuer, t.Grant.Subject, t.Grant.Host}
}

func indexKeys(t *Token) []string {
	end := endKey(t.Grant.Ends) + t.ID
	keys := []string{
		keyOf(ofEnd) + end,
		keyOf(ofRule, t.Grant.Name()) + end,
		keyOf(ofBearer, bearer(t)...) + end,
	}
	if t.Grant.Host != "" {
		keys = append(keys, keyOf(ofHost, t.Grant.Host)+end)
	}
	if t.Grant.Owner != "" {
		keys = append(keys, keyOf(ofOwner, t.Grant.Owner)+end)
	}
	return keys
}

func endKey(t time.Time) string { return fmt.Sprintf("%012d\x00", t.Unix()) }

func idIn(key string) string { return key[strings.LastIndexByte(key, 0)+1:] }

func countKey(t *Token) string { return t.Grant.Name() }
