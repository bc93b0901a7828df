package access

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

var tokensBucket = []byte("tokens")

// recordVersion is the "v" of a value. A change that an older narwharf would
// misread gets the next number: 2 are tokens that are of one host, or make such,
// which that one would take for tokens of any.
const (
	recordVersion     = 1
	hostRecordVersion = 2
)

// Bolt is a Store in the bucket "tokens" of a bbolt database. The key is the
// token's id, the value JSON:
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
// bbolt lets one process open a database, so this process sees every write: reads
// are answered from a copy in memory, which each write renews after its commit
// from what it found in the database.
type Bolt struct {
	db   *bbolt.DB
	path string // of db, which forgets it on Close

	file  string     // where Keep keeps a copy, or ""
	write sync.Mutex // held from before a transaction until the copy is renewed

	mu     sync.RWMutex
	tokens table
}

var _ Store = (*Bolt)(nil)

// NewBolt reads all tokens of db, after making the bucket if need be. It fails on
// a value that it does not understand, rather than forget a revocation. A database
// that was opened read-only is fine: Add and Revoke will fail.
func NewBolt(db *bbolt.DB) (*Bolt, error) {
	b := &Bolt{db: db, path: db.Path()}
	begin := db.Update
	if db.IsReadOnly() {
		begin = db.View
	}
	err := begin(func(tx *bbolt.Tx) (err error) {
		if tx.Writable() {
			if _, err := tx.CreateBucketIfNotExists(tokensBucket); err != nil {
				return err
			}
		}
		b.tokens, err = readTokens(tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open tokens in %s: %w", b.path, err)
	}
	return b, nil
}

// Add implements Store.
func (b *Bolt) Add(ctx context.Context, t Token) error {
	return b.update(ctx, func(tokens table) ([]Token, error) {
		added, err := tokens.add(t)
		return []Token{added}, err
	})
}

// Revoke implements Store.
func (b *Bolt) Revoke(ctx context.Context, nameOrID string, at time.Time) (t Token, err error) {
	err = b.update(ctx, func(tokens table) (changed []Token, err error) {
		changed, t, err = tokens.revoke(nameOrID, at)
		return changed, err
	})
	if err != nil {
		return Token{}, err
	}
	return t, nil
}

// Redeem implements Store.
func (b *Bolt) Redeem(ctx context.Context, joinID, instance string, fresh Token) error {
	return b.update(ctx, func(tokens table) ([]Token, error) {
		return tokens.redeem(joinID, instance, fresh)
	})
}

// Lookup implements Store. It reads memory alone, so it does not look at ctx.
func (b *Bolt) Lookup(_ context.Context, id string) (Token, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.tokens.lookup(id)
}

// List implements Store.
func (b *Bolt) List(context.Context) ([]Token, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.tokens.list(), nil
}

// update runs change on the tokens as the database has them, stores what it
// returns, and renews the copy once that is committed.
func (b *Bolt) update(ctx context.Context, change func(table) ([]Token, error)) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("write tokens to %s: %w", b.path, err)
	}
	b.write.Lock()
	defer b.write.Unlock()

	var tokens table
	var refused error // by change, in words of its own
	err := b.db.Update(func(tx *bbolt.Tx) (err error) {
		if tokens, err = readTokens(tx); err != nil {
			return err
		}
		changed, err := change(tokens)
		if err != nil {
			refused = err
			return err
		}
		if err := putTokens(tx, changed); err != nil {
			return err
		}
		if b.file != "" {
			err := writeFile(b.file, tokens)
			// A full disk keeps nobody from revoking: the next change, or
			// start, brings the file up to date.
			if err != nil && slices.ContainsFunc(changed, func(t Token) bool { return t.Revoked.IsZero() }) {
				return err
			}
		}
		return nil
	})
	if refused != nil {
		return refused
	}
	if err != nil {
		return fmt.Errorf("write tokens to %s: %w", b.path, err)
	}
	b.mu.Lock()
	b.tokens = tokens
	b.mu.Unlock()
	return nil
}

// record is the JSON of a value.
type record struct {
	V       int       `json:"v"`
	Name    string    `json:"name"`
	Hash    string    `json:"hash"`
	Scopes  Scopes    `json:"scopes"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"`
	Revoked time.Time `json:"revoked,omitzero"`
	By      string    `json:"by,omitempty"`
	Host    string    `json:"host,omitempty"`
	Uses    int       `json:"uses,omitempty"`
	Used    []Use     `json:"used,omitempty"`
	Joined  string    `json:"joined,omitempty"`
}

func encodeToken(t Token) ([]byte, error) {
	version := recordVersion
	if t.Host != "" || t.Uses > 0 {
		version = hostRecordVersion
	}
	value, err := json.Marshal(record{
		V: version, Name: t.Name, Hash: hex.EncodeToString(t.Hash[:]), Scopes: t.Scopes,
		Created: t.Created, Expires: t.Expires, Revoked: t.Revoked, By: t.By,
		Host: t.Host, Uses: t.Uses, Used: t.Used, Joined: t.Joined,
	})
	if err != nil {
		return nil, fmt.Errorf("encode token %s: %w", t.ID, err)
	}
	return value, nil
}

func decodeToken(id string, value []byte) (Token, error) {
	// The version first: the rest may look different in another.
	var head struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(value, &head); err != nil {
		return Token{}, fmt.Errorf("decode token %s: %w", quote(id), err)
	}
	if head.V != recordVersion && head.V != hostRecordVersion {
		return Token{}, fmt.Errorf("decode token %s: its format has version %d, and this narwharf knows versions up to %d only: run the one that wrote it, or a newer one",
			quote(id), head.V, hostRecordVersion)
	}
	var r record
	dec := json.NewDecoder(bytes.NewReader(value))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return Token{}, fmt.Errorf("decode token %s: %w", quote(id), err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Token{}, fmt.Errorf("decode token %s: something follows its JSON", quote(id))
	}
	t := Token{ID: id, Name: r.Name, Scopes: r.Scopes, Created: r.Created, Expires: r.Expires, Revoked: r.Revoked, By: r.By,
		Host: r.Host, Uses: r.Uses, Used: r.Used, Joined: r.Joined}
	hash, err := hex.DecodeString(r.Hash)
	if err != nil || copy(t.Hash[:], hash) != len(t.Hash) || len(hash) != len(t.Hash) {
		return Token{}, fmt.Errorf("decode token %s: its hash is not 64 hex digits", quote(id))
	}
	t = t.normal()
	if err := t.check(); err != nil {
		return Token{}, fmt.Errorf("decode token %s: %w", quote(id), err)
	}
	return t, nil
}

// readTokens decodes the whole bucket; there are tens of tokens, seldom thousands.
func readTokens(tx *bbolt.Tx) (table, error) {
	tokens := table{}
	bucket := tx.Bucket(tokensBucket)
	if bucket == nil { // read-only, and nothing written yet
		return tokens, nil
	}
	err := bucket.ForEach(func(key, value []byte) error {
		t, err := decodeToken(string(key), value)
		tokens[t.ID] = t
		return err
	})
	return tokens, err
}
