// Package challenge makes the nonces over which a host proves who it is: whoever saw the
// proof of another cannot show it again.
//
// # What it promises
//
//   - A nonce is for one host name and one instance, good for [Life] by the server's clock
//     alone, and good once.
//   - Nothing is kept of a nonce before it is spent, so that strangers may ask for as many as
//     they like.
//   - It is spent in the transaction that makes what the proof is exchanged for: either both
//     are there afterwards, or none.
//
// # Format
//
// A nonce is 75 characters of base64url, without padding:
//
//	8 bytes    when it was made, in milliseconds of Unix time
//	16 bytes   random
//	32 bytes   HMAC-SHA256 with the server's key over "narwharf challenge 1", the 24 bytes, host
//	           and instance, each behind its length in 4 bytes
//
// In the state:
//
//	challenge/key    "key"                    the 32 bytes of the server's key, drawn at the first start
//	challenge/spent  <the first 24, in hex>   nothing
//
// What is spent sorts by its time, so that each use deletes some of what is over. A mark costs
// its maker a proven identity, and is gone a minute later or with the next one's.
package challenge

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
)

// Life is how long a nonce is good.
const Life = 60 * time.Second

// skew is how far the clocks of two servers that share a state may be apart.
const skew = 10 * time.Second

const (
	keyBucket   = "challenge/key"
	spentBucket = "challenge/spent"
	keyName     = "key"
	lock        = "challenge"

	headLen  = 8 + 16
	nonceLen = headLen + sha256.Size

	// sweepAtOnce is how many marks that are over a use deletes: more than it makes.
	sweepAtOnce = 64
)

// Refused is why a nonce is worth nothing, in words for who showed it.
type Refused struct{ text string }

func (e *Refused) Error() string { return e.text }

// Challenges makes nonces, and knows its own again.
type Challenges struct {
	set *mirror.Set
	key []byte
}

// Open reads the key in a state, and draws it if there is none.
func Open(ctx context.Context, set *mirror.Set) (*Challenges, error) {
	c := &Challenges{set: set}
	err := set.Update(ctx, []string{lock}, func(tx *mirror.Tx) (err error) {
		if c.key, err = tx.Get(keyBucket, keyName); err != nil || len(c.key) == sha256.Size {
			return err
		}
		if c.key != nil {
			return fmt.Errorf("it has %d bytes and not %d: was something else written there?", len(c.key), sha256.Size)
		}
		c.key = make([]byte, sha256.Size)
		_, _ = rand.Read(c.key) // which ends the program where it would fail
		return tx.Put(keyBucket, keyName, c.key)
	})
	if err != nil {
		return nil, fmt.Errorf("open the key of challenges: %w", err)
	}
	return c, nil
}

// New makes a nonce for a host and an instance, either of which may be "".
func (c *Challenges) New(host, instance string, now time.Time) string {
	nonce := make([]byte, headLen, nonceLen)
	binary.BigEndian.PutUint64(nonce, uint64(max(now.UnixMilli(), 0)))
	_, _ = rand.Read(nonce[8:])
	return base64.RawURLEncoding.EncodeToString(append(nonce, c.mac(nonce, host, instance)...))
}

func (c *Challenges) mac(head []byte, host, instance string) []byte {
	h := hmac.New(sha256.New, c.key)
	for _, part := range []string{"narwharf challenge 1", string(head), host, instance} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		h.Write([]byte(part))
	}
	return h.Sum(nil)
}

// Check tells whether a nonce is good, as far as it shows: whether it was spent, Spend tells.
// The error is a *Refused.
func (c *Challenges) Check(nonce, host, instance string, now time.Time) error {
	_, err := c.check(nonce, host, instance, now)
	return err
}

func (c *Challenges) check(nonce, host, instance string, now time.Time) (head []byte, err error) {
	const again = "ask POST /api/v1/challenge for another"
	b, err := base64.RawURLEncoding.Strict().DecodeString(nonce)
	if err != nil || len(b) != nonceLen || len(nonce) != base64.RawURLEncoding.EncodedLen(nonceLen) { // it passes over line feeds
		return nil, &Refused{"the nonce is none of those that this server makes: " + again}
	}
	head = b[:headLen]
	if !hmac.Equal(b[headLen:], c.mac(head, host, instance)) {
		return nil, &Refused{"the nonce was made for another host or instance, or by another server: " + again}
	}
	made := time.UnixMilli(int64(binary.BigEndian.Uint64(head))) //nolint:gosec // our own, by its MAC
	if age := now.Sub(made); age >= Life || age < -skew {
		return nil, &Refused{fmt.Sprintf("the nonce was good for %d s, and that time is over: %s", int(Life.Seconds()), again)}
	}
	return head, nil
}

// Spend uses a nonce up. Whoever shows it again is refused. The transaction holds a lock of
// the host that the nonce is for, or of the instance if that is "". The error is a *Refused,
// or the state's.
func (c *Challenges) Spend(tx *mirror.Tx, nonce, host, instance string) error {
	head, err := c.check(nonce, host, instance, tx.Time)
	if err != nil {
		return err
	}
	key := hex.EncodeToString(head)
	spent, err := tx.Get(spentBucket, key)
	switch {
	case err != nil:
		return fmt.Errorf("look up a nonce: %w", err)
	case spent != nil:
		return &Refused{"the nonce was used before: ask POST /api/v1/challenge for another"}
	}
	if _, err := sweep(tx); err != nil {
		return err
	}
	return tx.Put(spentBucket, key, []byte{})
}

// sweep deletes marks of nonces whose time is over.
func sweep(tx *mirror.Tx) (n int, err error) {
	old := binary.BigEndian.AppendUint64(nil, uint64(max(tx.Time.Add(-Life-skew).UnixMilli(), 0)))
	list, err := tx.List(spentBucket, state.Range{To: hex.EncodeToString(old), Limit: sweepAtOnce})
	for _, e := range list {
		if err == nil {
			err = tx.Delete(spentBucket, e.Key)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("delete nonces that are over: %w", err)
	}
	return len(list), nil
}

// Sweep deletes all marks of nonces whose time is over.
func (c *Challenges) Sweep(ctx context.Context) error {
	for n := sweepAtOnce; n == sweepAtOnce; {
		err := c.set.Update(ctx, nil, func(tx *mirror.Tx) (err error) {
			n, err = sweep(tx)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
