package index

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"narwharf/narinfo"
)

// Layout of the database: the bucket "index" holds "meta" and one bucket per
// generation ("1", "2", …), of which meta's key "generation" names the one in
// use; Replace fills the next one and then turns the name. A generation has
// three tables:
//
//	path  <hash>              -> one line of JSON (recordHead), "\n", the narinfo
//	nar   <file> NUL <hash>   -> ""
//	ref   <hash> <referrer>   -> ""
//
// meta's key "clean" is there while nobody has the index open for writing.
var (
	rootBucket  = []byte("index")
	metaBucket  = []byte("meta")
	pathBucket  = []byte("path")
	narBucket   = []byte("nar")
	refBucket   = []byte("ref")
	keyGen      = []byte("generation")
	keyClean    = []byte("clean")
	keyVersion  = []byte("version")
	boltVersion = []byte("1")
)

// Bolt is an Index in a bbolt database.
type Bolt struct {
	db    *bbolt.DB
	dirty bool

	mu      sync.Mutex // guards what follows
	queue   []*change
	writing bool
	totals  Totals
}

type change struct {
	fn   func(root *bbolt.Bucket, t *Totals) error
	done chan error
}

type recordHead struct {
	Uploaded   time.Time `json:"uploaded"`
	By         string    `json:"by,omitempty"`
	Alternates []string  `json:"alternates,omitempty"`
}

// NewBolt opens the index in db, making its tables if they are not there.
// A database written by a newer version is refused. Damaged records are not:
// the index is then Dirty, Each says which and what to do, and Replace mends it.
func NewBolt(db *bbolt.DB) (*Bolt, error) {
	b := &Bolt{db: db}
	err := db.Update(func(tx *bbolt.Tx) error {
		root, err := tx.CreateBucketIfNotExists(rootBucket)
		if err != nil {
			return err
		}
		meta, err := root.CreateBucketIfNotExists(metaBucket)
		if err != nil {
			return err
		}
		if v := meta.Get(keyVersion); v == nil {
			if err := meta.Put(keyVersion, boltVersion); err != nil {
				return err
			}
			// A new index over files that may be old: look at them.
			b.dirty = true
		} else if !bytes.Equal(v, boltVersion) {
			return fmt.Errorf("the index in %s has version %s and this narwharf knows version %s: use the newer narwharf, or move the file away and run narwharf rebuild", db.Path(), v, boltVersion)
		}
		if meta.Get(keyClean) == nil {
			b.dirty = true
		}
		if err := meta.Delete(keyClean); err != nil {
			return err
		}
		gen := bytes.Clone(meta.Get(keyGen))
		if gen == nil {
			gen = []byte("1")
			if err := meta.Put(keyGen, gen); err != nil {
				return err
			}
		}
		// A Replace that was cut short leaves its half-filled generation.
		var stale [][]byte
		if err := root.ForEachBucket(func(k []byte) error {
			if !bytes.Equal(k, metaBucket) && !bytes.Equal(k, gen) {
				stale = append(stale, bytes.Clone(k))
			}
			return nil
		}); err != nil {
			return err
		}
		for _, k := range stale {
			if err := root.DeleteBucket(k); err != nil {
				return err
			}
		}
		g, err := makeGeneration(root, gen)
		if err != nil {
			return err
		}
		var damaged int
		b.totals, damaged = sum(g)
		b.dirty = b.dirty || damaged > 0
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	return b, nil
}

func makeGeneration(root *bbolt.Bucket, name []byte) (*bbolt.Bucket, error) {
	g, err := root.CreateBucketIfNotExists(name)
	if err != nil {
		return nil, err
	}
	for _, t := range [][]byte{pathBucket, narBucket, refBucket} {
		if _, err := g.CreateBucketIfNotExists(t); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// sum adds up a generation and counts the records that cannot be read.
func sum(g *bbolt.Bucket) (t Totals, damaged int) {
	c := g.Bucket(pathBucket).Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		r, err := decode(k, v)
		if err != nil {
			damaged++
			continue
		}
		t.Paths++
		t.NarSize += r.Info.NarSize
	}
	return t, damaged
}

// Dirty tells whether the index was not closed in order the last time, or is
// new: files may be there that it does not know, and the reverse.
func (b *Bolt) Dirty() bool { return b.dirty }

// Close notes that the index and the files agree. It does not close the
// database, which others share. Do not call it after a failed recovery.
func (b *Bolt) Close() error {
	return b.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(rootBucket).Bucket(metaBucket).Put(keyClean, []byte("1"))
	})
}

// generation is the bucket in use.
func generation(root *bbolt.Bucket) *bbolt.Bucket {
	return root.Bucket(root.Bucket(metaBucket).Get(keyGen))
}

func (b *Bolt) view(fn func(g *bbolt.Bucket) error) error {
	return b.db.View(func(tx *bbolt.Tx) error { return fn(generation(tx.Bucket(rootBucket))) })
}

// change runs fn in a transaction that it shares with the changes that came
// while the one before was being synced: with many uploaders one sync serves
// them all, and a single one never waits for company.
func (b *Bolt) change(fn func(root *bbolt.Bucket, t *Totals) error) error {
	c := &change{fn: fn, done: make(chan error, 1)}
	b.mu.Lock()
	b.queue = append(b.queue, c)
	if !b.writing {
		b.writing = true
		go b.write()
	}
	b.mu.Unlock()
	return <-c.done
}

func (b *Bolt) write() {
	for {
		b.mu.Lock()
		batch := b.queue
		b.queue = nil
		if len(batch) == 0 {
			b.writing = false
			b.mu.Unlock()
			return
		}
		totals := b.totals
		b.mu.Unlock()

		for len(batch) > 0 {
			after, failed := totals, -1
			err := b.db.Update(func(tx *bbolt.Tx) error {
				for i, c := range batch {
					if err := c.fn(tx.Bucket(rootBucket), &after); err != nil {
						failed = i
						return err
					}
				}
				return nil
			})
			if failed >= 0 { // its own fault: the others go again without it
				batch[failed].done <- err
				batch = append(batch[:failed:failed], batch[failed+1:]...)
				continue
			}
			if err != nil {
				// bbolt does not say how far a failed commit came.
				_ = b.view(func(g *bbolt.Bucket) error {
					after, _ = sum(g)
					return nil
				})
			}
			b.mu.Lock()
			b.totals = after
			b.mu.Unlock()
			for _, c := range batch {
				c.done <- err
			}
			batch = nil
		}
	}
}

// Get implements Index.
func (b *Bolt) Get(hash string) (r *Record, err error) {
	err = b.view(func(g *bbolt.Bucket) error {
		v := g.Bucket(pathBucket).Get([]byte(hash))
		if v == nil {
			return ErrNotFound
		}
		r, err = decode([]byte(hash), v)
		return err
	})
	return r, err
}

// Put implements Index.
func (b *Bolt) Put(r *Record) error {
	return b.change(func(root *bbolt.Bucket, t *Totals) error { return put(generation(root), t, r) })
}

// Delete implements Index.
func (b *Bolt) Delete(hash string) error {
	return b.change(func(root *bbolt.Bucket, t *Totals) error { return remove(generation(root), t, hash) })
}

func put(g *bbolt.Bucket, t *Totals, r *Record) error {
	hash := r.Info.Path.Hash()
	if err := remove(g, t, hash); err != nil {
		return err
	}
	v, err := encode(r)
	if err != nil {
		return err
	}
	if err := g.Bucket(pathBucket).Put([]byte(hash), v); err != nil {
		return err
	}
	for _, f := range r.Files() {
		if err := g.Bucket(narBucket).Put([]byte(f+"\x00"+hash), nil); err != nil {
			return err
		}
	}
	for _, ref := range r.Info.References {
		if err := g.Bucket(refBucket).Put([]byte(ref.Hash()+hash), nil); err != nil {
			return err
		}
	}
	t.Paths++
	t.NarSize += r.Info.NarSize
	return nil
}

func remove(g *bbolt.Bucket, t *Totals, hash string) error {
	v := g.Bucket(pathBucket).Get([]byte(hash))
	if v == nil {
		return nil
	}
	r, err := decode([]byte(hash), v)
	if err != nil {
		return err
	}
	for _, f := range r.Files() {
		if err := g.Bucket(narBucket).Delete([]byte(f + "\x00" + hash)); err != nil {
			return err
		}
	}
	for _, ref := range r.Info.References {
		if err := g.Bucket(refBucket).Delete([]byte(ref.Hash() + hash)); err != nil {
			return err
		}
	}
	t.Paths--
	t.NarSize -= r.Info.NarSize
	return g.Bucket(pathBucket).Delete([]byte(hash))
}

func encode(r *Record) ([]byte, error) {
	head, err := json.Marshal(recordHead{r.Uploaded.UTC(), r.By, r.Alternates})
	if err != nil {
		return nil, fmt.Errorf("index record of %s: %w", r.Info.Path, err)
	}
	return r.Info.Append(append(head, '\n')), nil
}

func decode(key, v []byte) (*Record, error) {
	head, text, ok := bytes.Cut(v, []byte("\n"))
	if !ok {
		return nil, fmt.Errorf("index record of %s is damaged: run narwharf rebuild", key)
	}
	var h recordHead
	if err := json.Unmarshal(head, &h); err != nil {
		return nil, fmt.Errorf("index record of %s is damaged: %w: run narwharf rebuild", key, err)
	}
	info, err := narinfo.Parse(text) // copies what it keeps
	if err != nil {
		return nil, fmt.Errorf("index record of %s is damaged: %w: run narwharf rebuild", key, err)
	}
	return &Record{Info: info, Uploaded: h.Uploaded, By: h.By, Alternates: h.Alternates}, nil
}

// scan returns what follows prefix in the keys of a table that start with it.
func scan(t *bbolt.Bucket, prefix string) (rest []string) {
	c := t.Cursor()
	for k, _ := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, _ = c.Next() {
		rest = append(rest, string(k[len(prefix):]))
	}
	return rest
}

// Users implements Index.
func (b *Bolt) Users(file string) (hashes []string, err error) {
	err = b.view(func(g *bbolt.Bucket) error {
		hashes = scan(g.Bucket(narBucket), file+"\x00")
		return nil
	})
	return hashes, err
}

// Referrers implements Index.
func (b *Bolt) Referrers(hash string) (hashes []string, err error) {
	err = b.view(func(g *bbolt.Bucket) error {
		for _, h := range scan(g.Bucket(refBucket), hash) {
			if h != hash {
				hashes = append(hashes, h)
			}
		}
		return nil
	})
	return hashes, err
}

// Each implements Index.
func (b *Bolt) Each(fn func(*Record) error) error {
	return b.view(func(g *bbolt.Bucket) error {
		return g.Bucket(pathBucket).ForEach(func(k, v []byte) error {
			r, err := decode(k, v)
			if err != nil {
				return err
			}
			return fn(r)
		})
	})
}

// Totals implements Index.
func (b *Bolt) Totals() (Totals, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.totals, nil
}

// replaceBatch bounds the memory of a Replace: records a transaction.
const replaceBatch = 2000

// Replace implements Index. A Put or Delete meanwhile goes to the old content
// and is lost with it; the caller sees to it that there is none.
func (b *Bolt) Replace(fill func(put func(*Record) error) error) error {
	next := []byte("1")
	err := b.db.View(func(tx *bbolt.Tx) error {
		if bytes.Equal(tx.Bucket(rootBucket).Bucket(metaBucket).Get(keyGen), next) {
			next = []byte("2")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("replace index: %w", err)
	}
	var totals Totals
	var pending []*Record
	first := true
	flush := func() error {
		// Not through change: this is large, and nobody should go with it.
		return b.db.Update(func(tx *bbolt.Tx) error {
			root := tx.Bucket(rootBucket)
			if first {
				first = false
				if err := root.DeleteBucket(next); err != nil && !errors.Is(err, bolterrors.ErrBucketNotFound) {
					return err
				}
			}
			g, err := makeGeneration(root, next)
			if err != nil {
				return err
			}
			for _, r := range pending {
				if err := put(g, &totals, r); err != nil {
					return err
				}
			}
			pending = pending[:0]
			return nil
		})
	}
	err = fill(func(r *Record) error {
		pending = append(pending, r)
		if len(pending) < replaceBatch {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err == nil {
		err = b.change(func(root *bbolt.Bucket, t *Totals) error {
			meta := root.Bucket(metaBucket)
			old := bytes.Clone(meta.Get(keyGen))
			if err := meta.Put(keyGen, next); err != nil {
				return err
			}
			*t = totals
			return root.DeleteBucket(old)
		})
	}
	if err != nil {
		return fmt.Errorf("replace index: %w", err)
	}
	return nil
}
