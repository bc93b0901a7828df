package access

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/bbolt"
)

// line is a token in the file of Keep.
type line struct {
	ID    string          `json:"id"`
	Token json.RawMessage `json:"token"` // as in the database
}

// Keep makes the store keep a copy of its tokens in a file: hashes, no secrets.
// Without it a lost database would lock out every host until somebody carried a
// new token to it. The file has one line of JSON for each token,
//
//	{"id":"<10 symbols>","token":{…as in the database…}}
//
// and mode 0600. It is replaced whole before a change is committed, so that it
// never knows less than the database, but for a revocation on a full disk.
//
// Keep first adds to the database what only the file has: tokens, revocations,
// uses of join tokens. A database from a backup thus does not bring back to life
// what was revoked since. It returns how many tokens the database did not have. A
// file that cannot be understood is an error, and is left as it is.
func (b *Bolt) Keep(file string) (restored int, err error) {
	b.write.Lock()
	defer b.write.Unlock()
	kept, err := readFile(file)
	if err != nil {
		return 0, err
	}
	was, err := encodeTokens(kept)
	if err != nil {
		return 0, err
	}
	var tokens table
	err = b.db.Update(func(tx *bbolt.Tx) (err error) {
		if tokens, err = readTokens(tx); err != nil {
			return err
		}
		var changed []Token
		changed, restored = tokens.merge(kept)
		if err := putTokens(tx, changed); err != nil {
			return err
		}
		// On a full disk a server must still start.
		if is, err := encodeTokens(tokens.list()); err != nil || bytes.Equal(is, was) {
			return err
		}
		return writeFile(file, tokens)
	})
	if err != nil {
		return 0, fmt.Errorf("keep the tokens of %s in %s: %w", b.path, file, err)
	}
	b.file = file
	b.mu.Lock()
	b.tokens = tokens
	b.mu.Unlock()
	return restored, nil
}

// merge adds what kept has and tab has not. What is revoked in one is revoked,
// and a use that is in one was made.
func (tab table) merge(kept []Token) (changed []Token, added int) {
	for _, k := range kept {
		t, ok := tab[k.ID]
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
		tab[k.ID] = t
		changed = append(changed, t)
	}
	return changed, added
}

// putTokens stores what changed.
func putTokens(tx *bbolt.Tx, changed []Token) error {
	bucket := tx.Bucket(tokensBucket)
	if bucket == nil {
		return errors.New("the bucket tokens is gone: restart narwharf")
	}
	for _, t := range changed {
		value, err := encodeToken(t)
		if err != nil {
			return err
		}
		if err := bucket.Put([]byte(t.ID), value); err != nil {
			return err
		}
	}
	return nil
}

func readFile(file string) (tokens []Token, err error) {
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

func encodeTokens(tokens []Token) (text []byte, err error) {
	for _, t := range tokens {
		value, err := encodeToken(t)
		if err != nil {
			return nil, err
		}
		l, err := json.Marshal(line{t.ID, value})
		if err != nil {
			return nil, err
		}
		text = append(append(text, l...), '\n')
	}
	return text, nil
}

// writeFile replaces the file, durably.
func writeFile(file string, tokens table) (err error) {
	text, err := encodeTokens(tokens.list())
	if err != nil {
		return err
	}
	folder := filepath.Dir(file)
	tmp, err := os.CreateTemp(folder, ".tokens-*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = tmp.Write(text)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return err
	}
	dir, err := os.Open(folder)
	if err != nil {
		return nil // it is there under its name; only a power cut could undo that
	}
	defer dir.Close()
	_ = dir.Sync() // the same
	return nil
}
