package index

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"

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
	gen     []byte
}

type change struct {
	fn   func(g *bbolt.Bucket, t *Totals) error
	done chan error
}

type recordHead struct {
	Uploaded   time.Time `json:"uploaded"`
	By         string    `json:"by,omitempty"`
	Alternates []string  `json:"alternates,omitempty"`
}

// NewBolt opens the index in db, making its tables if they are not there.
// A database written by a newer version is refused.
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
		b.gen = bytes.Clone(meta.Get(keyGen))
		if b.gen == nil {
			b.gen = []byte("1")
			if err := meta.Put(keyGen, b.gen); err != nil {
				return err
			}
		}
		// A Replace that was cut short leaves its half-filled generation.
		var stale [][]byte
		if err := root.ForEachBucket(func(k []byte) error {
			if !bytes.Equal(k, metaBucket) && !bytes.Equal(k, b.gen) {
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
		g, err := makeGeneration(root, b.gen)
		if err != nil {
			return err
		}
		b.totals, err = sum(g)
		return err
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

func sum(g *bbolt.Bucket) (t Totals, err error) {
	err = g.Bucket(pathBucket).ForEach(func(k, v []byte) error {
		r, err := decode(k, v)
		if err != nil {
			return err
		}
		t.Paths++
		t.NarSize += r.Info.NarSize
		return nil
	})
	return t, err
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

func (b *Bolt) view(fn func(g *bbolt.Bucket) error) error {
	return b.db.View(func(tx *bbolt.Tx) error {
		root := tx.Bucket(rootBucket)
		return fn(root.Bucket(root.Bucket(metaBucket).Get(keyGen)))
	})
}

// change runs fn in a transaction that it shares with the changes that came
// while the one before was being synced: with many uploaders one sync serves
// them all, and a single one never waits for company.
func (b *Bolt) change(fn func(g *bbolt.Bucket, t *Totals) error) error {
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
		totals, gen := b.totals, b.gen
		b.mu.Unlock()

		for len(batch) > 0 {
			after, failed := totals, -1
			err := b.db.Update(func(tx *bbolt.Tx) error {
				g := tx.Bucket(rootBucket).Bucket(gen)
				for i, c := range batch {
					if err := c.fn(g, &after); err != nil {
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
			if err == nil {
				b.mu.Lock()
				b.totals, totals = after, after
				b.mu.Unlock()
			}
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
	return b.change(func(g *bbolt.Bucket, t *Totals) error { return put(g, t, r) })
}

// Delete implements Index.
func (b *Bolt) Delete(hash string) error {
	return b.change(func(g *bbolt.Bucket, t *Totals) error { return remove(g, t, hash) })
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

// Replace implements Index. The caller sees to it that nobody calls Put or
// Delete meanwhile; what they wrote would be lost.
func (b *Bolt) Replace(fill func(put func(*Record) error) error) error {
	b.mu.Lock()
	old := b.gen
	b.mu.Unlock()
	next := []byte("1")
	if bytes.Equal(old, next) {
		next = []byte("2")
	}
	var totals Totals
	var pending []*Record
	first := true
	flush := func() error {
		return b.db.Update(func(tx *bbolt.Tx) error {
			root := tx.Bucket(rootBucket)
			if first {
				first = false
				if err := root.DeleteBucket(next); err != nil && !errors.Is(err, bbolt.ErrBucketNotFound) {
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
	err := fill(func(r *Record) error {
		pending = append(pending, r)
		if len(pending) < replaceBatch {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return fmt.Errorf("replace index: %w", err)
	}
	err = b.db.Update(func(tx *bbolt.Tx) error {
		root := tx.Bucket(rootBucket)
		if err := root.Bucket(metaBucket).Put(keyGen, next); err != nil {
			return err
		}
		return root.DeleteBucket(old)
	})
	if err != nil {
		return fmt.Errorf("replace index: %w", err)
	}
	b.mu.Lock()
	b.gen, b.totals = next, totals
	b.mu.Unlock()
	return nil
}
