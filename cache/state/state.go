// Package state is the one contract for everything that is not a content file:
// the index of uploads, channels, hosts, reboot slots, tokens, policies, the
// audit log. Beneath it are bolt (one file, the default) and memory (for tests);
// package statetest holds the tests that every implementation passes.
//
// # What it promises
//
//   - A bucket is an ordered map from keys to values. Keys sort as bytes.
//   - Buckets need not be made. One that has no keys is one that does not exist.
//   - Update is atomic and durable: when it returns nil, all its writes survive a
//     power cut; when it returns an error, none of them was made, unless the error
//     is ErrUncertain. Nobody sees a part.
//   - Updates that share the name of a lock are serialisable: each sees all writes
//     of those before it, and none of those after it. What a change decides on it
//     reads in its own transaction, under a lock that all who write it take.
//     Absence is a fact like another.
//   - Updates that share no name may run at the same time. Each sees the others'
//     commits as they come, also between two of its reads.
//   - View sees one moment.
//   - Values are the caller's: they stay true after the transaction, and what the
//     caller does to a slice that it passed or got changes nothing here.
//   - Whoever read a log up to a position never finds a new record below it.
//   - Notices are hints. They come after the commit, and may come late, twice or
//     never; All says that some may have been lost. Truth is what View reads.
//
// # What it asks of its users
//
//   - The function of an Update may run again, when others came between or when
//     one that shared its commit failed; that of a View, too. It writes through its
//     Tx alone, and sets what it hands out anew each time.
//   - An error of a Reader or Tx ends the transaction: the function returns it. A
//     write that fails may be told of by a later call, or by Update.
//   - No call of the Store within a transaction: it may wait for itself.
//   - Locks name what the change decides on: "channel:web", "host:db-1",
//     "path:<hash>". A change that spans several takes all at once. What only has
//     to stay as it is, and is not changed, is locked as Shared. Two names may
//     be one lock.
//   - No key has the name of a bucket directly below its own ("a" has no key "b"
//     if there is "a/b"). A log is no bucket: of the methods that take a bucket
//     none is for logs, and nothing above a log is cleared or replaced.
//   - Transactions are short. Long walks are Scans.
package state

import (
	"context"
	"errors"
	"time"
)

// Limits of every implementation.
const (
	MaxBucket = 255      // bytes of a bucket's name
	MaxKey    = 1 << 10  // bytes of a key
	MaxValue  = 16 << 20 // bytes of a value
	MaxPage   = 10_000   // entries that one List or page of a Scan returns
)

// All is the topic of a notice that stands for every other: some may have been
// lost, so read again whatever notices would have told of.
const All = "*"

var (
	// ErrClosed is returned by every method after Close.
	ErrClosed = errors.New("the state is closed")
	// ErrLimit is returned for an empty or too long name of a bucket or key, for one
	// that is no text, and for a too large value.
	ErrLimit = errors.New("over a limit of the state")
	// ErrUncertain is returned where a commit failed at its end: all writes of the
	// Update were made, or none, and nobody knows until it is read.
	ErrUncertain = errors.New("it is not certain whether the change was made")
	// ErrInUse is returned where another process has the state to itself.
	ErrInUse = errors.New("in use")
	// ErrDamaged is returned where what is stored cannot be read as a state.
	ErrDamaged = errors.New("damaged")
	// ErrUnavailable is returned where the state is away and may come back, as a
	// database server that restarts does. Nothing was written.
	ErrUnavailable = errors.New("the state is not available")
)

// Store is a state that is open. Its methods may be called from many goroutines.
//
// A context that ends before a transaction has begun to commit ends the call with
// the context's error, and nothing is written.
type Store interface {
	// View calls fn with the state as it is at one moment.
	View(ctx context.Context, fn func(tx Reader) error) error

	// Update calls fn with a transaction, perhaps several times, and commits
	// what the last call wrote. It returns an error of fn as it is.
	Update(ctx context.Context, locks []string, fn func(tx Tx) error) error

	// Scan calls fn with the entries of a range, in order, in pages of at most
	// MaxPage. Each page is a transaction of its own, which is over when fn is
	// called: fn may call the Store. A key that is there from beginning to end is
	// seen once; one that comes or goes meanwhile may be seen or not.
	Scan(ctx context.Context, bucket string, r Range, fn func(page []Entry) error) error

	// Merge sets each key to the larger of its value and the given one. Values
	// are numbers as Uint64 reads them. It takes no locks and is one transaction
	// for at most MaxPage keys; more are several, in any order.
	Merge(ctx context.Context, bucket string, values map[string]uint64) error

	// Replace empties a bucket and all below it, and fills it through put, in
	// batches of a transaction each. Then it calls flip in an Update with the
	// given locks: what flip writes makes the new content the one that is read.
	// After an error, of fill's or another, flip was not committed, and the
	// bucket holds a part. Two Replaces of one bucket are the caller's mistake.
	Replace(ctx context.Context, locks []string, bucket string, fill func(put PutFunc) error, flip func(tx Tx) error) error

	// Watch calls fn with topics that were notified of, until stop is called. fn
	// is called from one goroutine at a time and returns at once. When stop
	// returns, fn is not called any more.
	Watch(fn func(topics []string)) (stop func())

	// String says where the state is, for messages to people: a file's name, a
	// database without its password.
	String() string

	// Close waits for transactions that have begun, and ends the rest with
	// ErrClosed.
	Close() error
}

// Shared is the name of a lock that many Updates hold at once: those that take
// name itself wait for all of them, and they for it.
func Shared(name string) string { return sharedMark + name }

// sharedMark cannot begin a name otherwise.
const sharedMark = "\x00"

// PutFunc writes one entry of a Replace. bucket is within the one that is
// replaced: that very name, or one that begins with it and a slash.
type PutFunc func(bucket, key string, value []byte) error

// Reader reads in a transaction. It is good until the transaction's function
// returns, and is used by one goroutine.
type Reader interface {
	// Get returns the value of a key, nil where there is none. An empty value is
	// not nil.
	Get(bucket, key string) ([]byte, error)

	// List returns the first entries of a range.
	List(bucket string, r Range) ([]Entry, error)

	// ReadLog returns records of a log from a position on, oldest first, at most
	// limit or MaxPage. Positions begin at 1, grow, have gaps, perhaps wide ones,
	// and stay below 2^53.
	ReadLog(log string, from uint64, limit int) ([]Record, error)

	// Now is the time by a clock that all who share the state share.
	Now() (time.Time, error)
}

// Tx is a transaction that writes. It reads what it wrote itself, but for logs
// and Merge.
type Tx interface {
	Reader

	// Put sets a key. A nil value is stored as an empty one.
	Put(bucket, key string, value []byte) error

	// Delete removes a key, if it is there.
	Delete(bucket, key string) error

	// Clear removes all keys of a bucket and of those below it, whose names
	// begin with its name and a slash.
	Clear(bucket string) error

	// Append adds a record to a log. encode makes its value and may be called
	// again, with another position. The position of a record is never used again,
	// also when it is trimmed; one of a transaction that failed may be.
	//
	// The record is seen by Views that start later, but not before every Update
	// that was at work on any log when this one ended has ended too: who waits for
	// a record reads again, with and without a notice.
	Append(log string, encode func(position uint64) ([]byte, error)) error

	// Trim removes the records of a log below a position.
	Trim(log string, below uint64) error

	// Notify tells watchers, here and elsewhere, once the change is committed.
	Notify(topics ...string)
}

// Entry is a key with its value.
type Entry struct {
	Key   string
	Value []byte
}

// Record is an entry of a log.
type Record struct {
	Position uint64
	Value    []byte
}
