package access

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"narwharf/cache/state"
)

// change is a transaction on the tokens.
type change struct {
	state.Tx
	changed *[]Token
}

// put stores a token.
func (c change) put(t Token) error {
	value, err := encodeToken(t)
	if err != nil {
		return err
	}
	*c.changed = append(*c.changed, t)
	c.Notify(topicToken + t.ID)
	if err := c.Put(namesBucket, nameKey(t), nil); err != nil {
		return err
	}
	return c.Put(tokensBucket, t.ID, value)
}

func nameKey(t Token) string { return t.Name + "\x00" + t.ID }

// named returns the tokens of a name, in order of their creation.
func (c change) named(name string) (list []Token, err error) {
	prefix := name + "\x00"
	err = state.Each(c, namesBucket, state.Prefix(prefix), func(e state.Entry) error {
		t, ok, err := read(c, e.Key[len(prefix):])
		if ok {
			list = append(list, t)
		}
		return err
	})
	slices.SortFunc(list, byCreation)
	return list, err
}

// add checks t against the others and stores it.
func (c change) add(t Token) error {
	t = t.normal()
	if err := t.check(); err != nil {
		return fmt.Errorf("add token %s: %w", quote(t.Name), err)
	}
	_, id, err := read(c, t.ID)
	_, name, err2 := read(c, t.Name)
	list, err3 := c.named(t.ID)
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	if id || name || len(list) > 0 {
		return fmt.Errorf("add token %s: %w as the id of a token: choose another", quote(t.Name), ErrExists)
	}
	if list, err = c.named(t.Name); err != nil {
		return err
	}
	for _, other := range list {
		if other.Active(t.Created) {
			return fmt.Errorf("add token %s: %w by token %s, made on %s: revoke that first, or choose another name",
				quote(t.Name), ErrExists, other.ID, stamp(other.Created))
		}
	}
	return c.put(t)
}

// revoke returns the token to report.
func (c change) revoke(nameOrID string, at time.Time) (Token, error) {
	if at.IsZero() {
		return Token{}, fmt.Errorf("revoke token %s: the time is missing", quote(nameOrID))
	}
	byID, ok, err := read(c, nameOrID)
	if err != nil {
		return Token{}, err
	}
	hit := []Token{byID}
	if !ok {
		if hit, err = c.named(nameOrID); err != nil {
			return Token{}, err
		}
	}
	if len(hit) == 0 {
		return Token{}, fmt.Errorf("revoke token %s: %w: narwharf token list shows names and ids", quote(nameOrID), ErrNotFound)
	}
	for i := range hit {
		if hit[i].Revoked.IsZero() {
			hit[i].Revoked = wholeSecond(at)
			if err := c.put(hit[i]); err != nil {
				return Token{}, err
			}
		}
	}
	return hit[len(hit)-1].normal(), nil
}
