package mirror

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/namelock"
)

// Table is a bucket of values that are JSON of T.
type Table[T any] struct {
	set      *Set
	bucket   string
	noun     string
	replaced func(key string, was, is *T)

	// A key is read by one at a time: who began earlier may end later, with what was there
	// before. Reading is held for reading by who reads one key, and its lock with it.
	reading sync.RWMutex
	keys    namelock.Set

	mu      sync.RWMutex
	known   map[string]value[T]
	stale   map[string]uint64 // keys to read again, by the number of their last notice
	lost    uint64            // number of the last notice of state.All; 0: all was read since
	failed  time.Time         // of the last try to read
	notices uint64
}

// A value is in memory as it was read or written, with the SHA-256 of that text: what
// is there still need not be decoded again.
type value[T any] struct {
	of  *T
	sum [sha256.Size]byte
}

// Open reads the table of a bucket. The noun begins what errors say of a value,
// before its key, as "record of host". replaced, which may be nil, is called when
// memory gets another value of a key, nil for none; it does not call the table.
func Open[T any](s *Set, bucket, noun string, replaced func(key string, was, is *T)) (*Table[T], error) {
	t := &Table[T]{set: s, bucket: bucket, noun: noun, replaced: replaced, known: make(map[string]value[T]), stale: make(map[string]uint64)}
	s.mu.Lock()
	s.tables = append(s.tables, t)
	s.mu.Unlock()
	return t, t.fill()
}

// Get is the value of a key, nil where there is none.
func (t *Table[T]) Get(key string) *T {
	t.mu.RLock()
	v, lost := t.known[key].of, t.lost
	_, stale := t.stale[key]
	away := t.away()
	t.mu.RUnlock()
	switch {
	case away:
		return v
	case lost > 0:
		t.Fresh()
	case stale:
		t.readOne(key)
	default:
		return v
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.known[key].of
}

func (t *Table[T]) readOne(key string) {
	t.reading.RLock()
	defer t.reading.RUnlock()
	defer t.keys.Lock(key)()
	t.mu.RLock()
	_, stale := t.stale[key]
	t.mu.RUnlock()
	if stale {
		t.renew(t.read([]string{key}))
	}
}

// All is a copy of the table.
func (t *Table[T]) All() map[string]*T {
	t.Fresh()
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make(map[string]*T, len(t.known))
	for key, v := range t.known {
		all[key] = v.of
	}
	return all
}

// Fresh reads again all that was changed, so that replaced was told of it.
func (t *Table[T]) Fresh() {
	t.mu.RLock()
	fresh := t.lost == 0 && len(t.stale) == 0 || t.away()
	t.mu.RUnlock()
	if fresh {
		return
	}
	t.reading.Lock()
	defer t.reading.Unlock()
	t.mu.RLock()
	lost, stale, away := t.lost, slices.Collect(maps.Keys(t.stale)), t.away()
	t.mu.RUnlock()
	if away {
		return
	}
	if lost > 0 {
		t.renew(t.fill())
	} else if len(stale) > 0 {
		t.renew(t.read(stale))
	}
}

// again is how long memory answers after the state could not be read: it may be
// away, and each try may take long.
const again = time.Second

// away is for mu's holder.
func (t *Table[T]) away() bool { return !t.failed.IsZero() && time.Since(t.failed) < again }

func (t *Table[T]) renew(err error) {
	if err == nil {
		return
	}
	t.set.log.Error("memory is behind the state", "table", t.bucket, "error", err)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = time.Now()
}

// read reads some keys into memory.
func (t *Table[T]) read(keys []string) error {
	notice := t.notice()
	fresh := make(map[string]value[T], len(keys))
	err := t.set.View(func(tx state.Reader) error {
		for _, key := range keys {
			text, err := tx.Get(t.bucket, key)
			if err == nil {
				fresh[key], err = t.renewed(key, text)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		t.take(fresh, notice, false)
	}
	return err
}

// fill reads all keys into memory.
func (t *Table[T]) fill() error {
	notice := t.notice()
	fresh := make(map[string]value[T])
	err := t.set.Scan(t.bucket, state.Range{}, func(page []state.Entry) (err error) {
		for _, e := range page {
			if fresh[e.Key], err = t.renewed(e.Key, e.Value); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		t.take(fresh, notice, true)
	}
	return err
}

// notice is the number of the last notice.
func (t *Table[T]) notice() uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.notices
}

// take puts values into memory that were read after a notice, but for those of
// which there was another since. all says that there are no others.
func (t *Table[T]) take(fresh map[string]value[T], notice uint64, all bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if all {
		for key := range t.known {
			if fresh[key].of == nil {
				fresh[key] = value[T]{} // it is gone
			}
		}
		if t.lost <= notice {
			t.lost = 0
		}
	}
	for key, v := range fresh {
		if t.stale[key] <= notice {
			delete(t.stale, key)
			t.replace(key, v)
		}
	}
}

// replace is for mu's holder.
func (t *Table[T]) replace(key string, v value[T]) {
	was := t.known[key]
	if v.of == nil {
		delete(t.known, key)
	} else {
		t.known[key] = v
	}
	if t.replaced != nil {
		t.replaced(key, was.of, v.of)
	}
}

// In is the value of a key in a transaction, nil where there is none.
func (t *Table[T]) In(tx *Tx, key string) *T {
	text, err := tx.Get(t.bucket, key)
	tx.Keep(err)
	v, err := t.decode(key, text)
	tx.Keep(err)
	return v
}

// Shared is In for who changes nothing of the value: where memory's own is still true it
// has its parts.
func (t *Table[T]) Shared(tx *Tx, key string) *T {
	text, err := tx.Get(t.bucket, key)
	tx.Keep(err)
	v, err := t.renewed(key, text)
	tx.Keep(err)
	return v.of
}

// renewed is what memory gets for a text: a copy of what it has where the text is the
// same, since who compares pointers sees by them that there was a notice.
func (t *Table[T]) renewed(key string, text []byte) (value[T], error) {
	if text == nil {
		return value[T]{}, nil
	}
	v := value[T]{sum: sha256.Sum256(text)}
	t.mu.RLock()
	was, known := t.known[key]
	t.mu.RUnlock()
	if known && was.sum == v.sum {
		v.of = new(T)
		*v.of = *was.of
		return v, nil
	}
	var err error
	v.of, err = t.decode(key, text)
	return v, err
}

// AllIn is the whole table in a transaction; it is for small ones.
func (t *Table[T]) AllIn(tx *Tx) map[string]*T {
	all := make(map[string]*T)
	tx.Keep(state.Each(tx, t.bucket, state.Range{}, func(e state.Entry) (err error) {
		all[e.Key], err = t.decode(e.Key, e.Value)
		return err
	}))
	return all
}

func (t *Table[T]) decode(key string, text []byte) (*T, error) {
	if text == nil {
		return nil, nil
	}
	v := new(T)
	var err error
	if own, ok := any(v).(json.Unmarshaler); ok { // which json.Unmarshal would look at twice
		err = own.UnmarshalJSON(text)
	} else {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", t.noun, key, err)
	}
	return v, nil
}

// Put sets a key; nil takes it away. The value is not the caller's any more.
func (t *Table[T]) Put(tx *Tx, key string, v *T) {
	var written value[T]
	tx.Notify(t.Topic(key))
	tx.written = append(tx.written, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.replace(key, written)
		t.notices++
		t.stale[key] = t.notices // it is read again if it can be: there may be a later one
	})
	if v == nil {
		tx.Keep(tx.Delete(t.bucket, key))
		return
	}
	text, err := encode(v)
	written = value[T]{v, sha256.Sum256(text)}
	tx.Keep(err)
	tx.Keep(tx.Tx.Put(t.bucket, key, text))
}

func encode(v any) ([]byte, error) {
	if own, ok := v.(json.Marshaler); ok {
		return own.MarshalJSON()
	}
	return json.Marshal(v)
}

// Topic is what Put notifies of.
func (t *Table[T]) Topic(key string) string { return t.bucket + "/" + key }

// Key names the entry of a key, for state.Expect.
func (t *Table[T]) Key(key string) state.Key { return state.Key{Bucket: t.bucket, Key: key} }

// Forget has the next Get of a key read the state, as a notice of it does.
func (t *Table[T]) Forget(key string) { t.noticed(t.bucket + "/" + key) }

// Behind tells whether a key may be another than Get says: the state could not be read since a notice.
func (t *Table[T]) Behind(key string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	_, stale := t.stale[key]
	return stale || t.lost > 0
}

func (t *Table[T]) noticed(topic string) {
	key, mine := strings.CutPrefix(topic, t.bucket+"/")
	if !mine && topic != state.All {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.notices++
	if mine {
		t.stale[key] = t.notices
	} else {
		t.lost = t.notices
	}
}
