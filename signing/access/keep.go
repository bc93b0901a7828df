package access

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"

	"narwharf/cache/state"
	"narwharf/cache/state/durable"
)

// line is a token in the kept file.
type line struct {
	ID    string          `json:"id"`
	Token json.RawMessage `json:"token"` // as in the database
}

// The file of Open has a copy of the tokens: hashes, no secrets. Without it a lost
// database would lock out every host until somebody carried a new token to it. It
// has one line of JSON for each token,
//
//	{"id":"<10 symbols>","token":{…as in the database…}}
//
// and mode 0600. It is replaced whole before a change is committed, so that it
// never knows less than the database, but for a revocation on a full disk.
//
// Open first adds to the database what only the file has: tokens, revocations,
// uses of join tokens. A database from a backup thus does not bring back to life
// what was revoked since. A file that cannot be understood is an error, and is left
// as it is.

// reconcile makes the tokens, their names and the file agree. It returns how many
// tokens only the file had.
func (t *Tokens) reconcile(ctx context.Context) (restored int, err error) {
	kept, err := readFile(t.file)
	if err != nil {
		return 0, err
	}
	var d difference
	err = t.state.View(ctx, func(tx state.Reader) error {
		d, err = t.compare(tx, kept)
		return err
	})
	if err != nil || len(d.put) == 0 && !d.file {
		return 0, err
	}
	err = t.state.Update(ctx, []string{lockTokens}, func(tx state.Tx) error {
		if d, err = t.compare(tx, kept); err != nil {
			return err
		}
		c := change{tx, new([]Token)}
		for _, token := range d.put {
			if err := c.put(token); err != nil {
				return err
			}
		}
		if d.file {
			return t.writeFile(tx)
		}
		return nil
	})
	return d.restored, err
}

// difference is what keeps tokens, names and file from agreeing.
type difference struct {
	put      []Token // the database lacks them, their names, or something of them
	restored int     // of put: those that only the file has
	file     bool    // it lacks something
}

func (t *Tokens) compare(tx state.Reader, kept []Token) (d difference, err error) {
	all, err := readAll(tx)
	if err != nil {
		return d, err
	}
	tokens := make(map[string]Token, len(all))
	for _, token := range all {
		tokens[token.ID] = token
		name, err := tx.Get(namesBucket, nameKey(token))
		if err != nil {
			return d, err
		}
		if name == nil { // an older narwharf wrote it
			d.put = append(d.put, token)
		}
	}
	missing, restored := merge(tokens, kept)
	d.put, d.restored = append(d.put, missing...), restored
	if t.file == "" {
		return d, nil
	}
	// What agrees is not written: on a full disk a server must still start.
	d.file = len(kept) != len(tokens) || slices.ContainsFunc(kept, func(k Token) bool {
		return !reflect.DeepEqual(k, tokens[k.ID])
	})
	return d, nil
}

// writeKept writes the copy, if there is one.
func (t *Tokens) writeKept(tx state.Reader, changed []Token) error {
	if t.file == "" {
		return nil
	}
	err := t.writeFile(tx)
	// A full disk keeps nobody from revoking: the next change, or start, brings
	// the file up to date.
	if !slices.ContainsFunc(changed, func(t Token) bool { return t.Revoked.IsZero() }) {
		return nil
	}
	return err
}

// merge adds what kept has and tokens lack. What is revoked in one is revoked,
// and a use that is in one was made.
func merge(tokens map[string]Token, kept []Token) (changed []Token, added int) {
	for _, k := range kept {
		t, ok := tokens[k.ID]
		switch {
		case !ok:
			t = k
			added++
		case t.Revoked.IsZero() && !k.Revoked.IsZero(), len(k.Used) > len(t.Used):
			if t.Revoked.IsZero() {
				t.Revoked = k.Revoked
			}
			if len(k.Used) > len(t.Used) {
				t.Used = slices.Clone(k.Used)
			}
		default:
			continue
		}
		tokens[k.ID] = t
		changed = append(changed, t)
	}
	return changed, added
}

func readFile(file string) (tokens []Token, err error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the kept tokens: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, len(text)+1)
	for n := 1; lines.Scan(); n++ {
		var l line
		err := json.Unmarshal(lines.Bytes(), &l)
		if err == nil {
			var t Token
			if t, err = decodeToken(l.ID, l.Token); err == nil {
				tokens = append(tokens, t)
				continue
			}
		}
		return nil, fmt.Errorf("%s, line %d: %w; restore the file, or move it away to go on with the tokens that the database has", file, n, err)
	}
	return tokens, nil
}

// writeFile replaces the file, durably.
func (t *Tokens) writeFile(tx state.Reader) (err error) {
	var text []byte
	err = state.Each(tx, tokensBucket, state.Range{}, func(e state.Entry) error {
		l, err := json.Marshal(line{e.Key, e.Value})
		text = append(append(text, l...), '\n')
		return err
	})
	if err != nil {
		return err
	}
	return durable.WriteFile(t.file, text, 0o600)
}
