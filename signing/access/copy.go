package access

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"narwharf/cache/state"
	"narwharf/cache/state/durable"
)

// keptCopy is the file of Open, a copy of the tokens: hashes, no secrets. Without it a
// lost database would lock out every host until somebody carried a new token to it. It
// has lines of JSON,
//
//	{"id":"<10 symbols>","token":{…as in the database…}}
//
// of which the last of an id counts, and mode 0600. A change adds its lines before it is
// committed, so that the file never knows less than the database, but for a revocation
// on a full disk. It is replaced whole when it has grown, and when something failed.
//
// Open first adds to the database what only the file has: tokens, revocations,
// uses of join tokens. A database from a backup thus does not bring back to life
// what was revoked since. A file that cannot be understood is an error, and is left
// as it is; but for a last line that was cut short, if there is a database: then it is
// of a change that was never committed.
type keptCopy struct {
	file string // "" if there is none

	mu    sync.Mutex
	stale bool // it has to be replaced
	room  int  // bytes that may be added before it is replaced
}

const keptRoom = 1 << 20

// keptLine is a line of the file.
type keptLine struct {
	ID    string          `json:"id"`
	Token json.RawMessage `json:"token"` // as in the database

	number int
}

// keep writes what a change has changed, at its end.
func (k *keptCopy) keep(tx state.Reader, changed []Token) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.file == "" {
		return nil
	}
	text, err := lines(changed)
	if err != nil {
		return err
	}
	if k.room -= len(text); k.stale || k.room < 0 || durable.Append(k.file, text) != nil {
		err = k.replace(tx)
	}
	// A full disk keeps nobody from revoking: the next change, or start, brings
	// the file up to date.
	if len(changed) > 0 && !slices.ContainsFunc(changed, func(t Token) bool { return t.Revoked.IsZero() }) {
		return nil
	}
	return err
}

// ended is told what became of a change: the file has its lines.
func (k *keptCopy) ended(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stale = k.stale || err != nil
}

func lines(tokens []Token) (text []byte, err error) {
	for _, t := range tokens {
		value, err := encodeToken(t)
		if err == nil {
			text, err = appendLine(text, t.ID, value)
		}
		if err != nil {
			return nil, err
		}
	}
	return text, nil
}

// replace writes the whole file anew, durably.
func (k *keptCopy) replace(tx state.Reader) error {
	var text []byte
	err := state.Each(tx, tokensBucket, state.Range{}, func(e state.Entry) (err error) {
		text, err = appendLine(text, e.Key, e.Value)
		return err
	})
	if err == nil {
		err = durable.WriteFile(k.file, text, 0o600)
	}
	k.stale, k.room = err != nil, len(text)+keptRoom
	return err
}

func appendLine(text []byte, id string, token []byte) ([]byte, error) {
	l, err := json.Marshal(keptLine{ID: id, Token: token})
	return append(append(text, l...), '\n'), err
}

// reconcile makes the tokens, their index and the file agree. It returns how many
// tokens only the file had.
func (t *Tokens) reconcile(ctx context.Context) (restored int, err error) {
	kept, cut, err := t.copy.read()
	if err != nil {
		return 0, err
	}
	var missing []Token
	err = t.state.View(ctx, func(tx state.Reader) error {
		missing, restored, err = t.copy.compare(tx, kept, cut)
		return err
	})
	// What agrees is not written: on a full disk a server must still start.
	if err != nil || len(missing) == 0 && !t.copy.stale {
		return 0, err
	}
	err = t.update(ctx, func(c Change) error {
		if missing, restored, err = t.copy.compare(c, kept, cut); err != nil {
			return err
		}
		for _, token := range missing {
			if err := c.put(token); err != nil {
				return err
			}
		}
		return nil
	})
	return restored, err
}

// read returns the last line of each id. cut is what is wrong with the very last line,
// if that does not end.
func (k *keptCopy) read() (kept map[string]keptLine, cut, err error) {
	text, err := os.ReadFile(k.file)
	if k.file == "" || errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the kept tokens: %w", err)
	}
	kept = make(map[string]keptLine)
	number := 0
	for line := range bytes.Lines(text) {
		number++
		l := keptLine{number: number}
		if err := json.Unmarshal(line, &l); err != nil {
			if err = k.damaged(l, err); bytes.HasSuffix(line, []byte("\n")) {
				return nil, nil, err
			}
			return kept, err, nil
		}
		kept[l.ID] = l
	}
	return kept, nil, nil
}

func (k *keptCopy) damaged(l keptLine, err error) error {
	return fmt.Errorf("%s, line %d: %w; restore the file, or move it away to go on with the tokens that the database has", k.file, l.number, err)
}

// compare returns what the database lacks: tokens, what finds them, or something of
// them. restored is how many tokens it lacks. It looks whether the file has to be
// replaced. What agrees to the byte is not decoded.
func (k *keptCopy) compare(tx state.Reader, kept map[string]keptLine, cut error) (missing []Token, restored int, err error) {
	all, names := make(map[string][]byte), 0
	err = errors.Join(state.Each(tx, tokensBucket, state.Range{}, func(e state.Entry) error {
		all[e.Key] = e.Value
		return nil
	}), state.Each(tx, indexBucket, state.Range{}, func(e state.Entry) error {
		if e.Key[:1] != hostMark {
			names++
		}
		return nil
	}))
	if len(all) == 0 {
		err = errors.Join(err, cut)
	}
	if err != nil {
		return nil, 0, err
	}
	unindexed := names != len(all) // by an older narwharf
	k.room, k.stale = keptRoom, k.file != "" && (cut != nil || len(kept) != len(all))
	for id := range kept {
		if all[id] == nil {
			restored++
			all[id] = nil
		}
	}
	for id, value := range all {
		same := bytes.Equal(value, kept[id].Token)
		k.stale = k.stale || k.file != "" && !same
		if same && !unindexed {
			continue
		}
		token, changed, err := k.mended(kept[id], id, value)
		if err != nil {
			return nil, 0, err
		}
		if changed || unindexed {
			missing = append(missing, token)
		}
	}
	return missing, restored, nil
}

// mended is a token after both of its copies, of which either may lack it. What is
// revoked in one is revoked, and a use that is in one was made.
func (k *keptCopy) mended(kept keptLine, id string, value []byte) (t Token, changed bool, err error) {
	if value != nil {
		if t, err = decodeToken(id, value); err != nil || kept.Token == nil {
			return t, false, err
		}
	}
	is, err := decodeToken(id, kept.Token)
	switch {
	case err != nil:
		return t, false, k.damaged(kept, err)
	case value == nil:
		return is, true, nil
	}
	if t.Revoked.IsZero() && !is.Revoked.IsZero() {
		t.Revoked, changed = is.Revoked, true
	}
	if len(is.Used) > len(t.Used) {
		t.Used, changed = is.Used, true
	}
	return t, changed, nil
}
