// Package diskcache keeps copies of files that lie elsewhere on the local disk: up to a
// bound, least recently used first out.
//
// A file is fetched once, however many ask for it at once, and all of them read the copy
// while it grows: the first byte goes out before the last is here. What comes to an end
// with an error never becomes a copy, and its readers get the error instead of the end. A
// fetch that nobody reads any more goes on for a moment, for a client that comes back, and
// is then broken off.
//
// Copies are made of files whose name says what they hold, so a copy is never old. The
// folder may be deleted while nobody has it open; it is made anew.
package diskcache

import (
	"container/list"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/blob"
	"narwharf/cache/state/durable"
)

// Options of Open.
type Options struct {
	Dir     string // the copies lie in its folder files
	Limit   int64  // bytes of all copies
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil: none
	// Linger is how long a fetch goes on that nobody reads; 0: 10 seconds.
	Linger time.Duration
}

// Cache is a bounded set of copies. It is safe for concurrent use.
type Cache struct {
	Options
	files *blob.FS

	mu      sync.Mutex
	copies  map[string]*list.Element // of *kept
	order   *list.List               // the most recently used first
	bytes   int64                    // of the copies
	flights map[string]*flight
	working sync.WaitGroup // fetches

	lookups *prometheus.CounterVec
}

type kept struct {
	name string
	size int64
}

// Open opens the cache in a folder, with the copies that are there.
func Open(o Options) (*Cache, error) {
	if o.Linger == 0 {
		o.Linger = 10 * time.Second
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("disk cache: %w", err)
	}
	if err := distrust(o.Dir); err != nil {
		return nil, fmt.Errorf("disk cache: %w", err)
	}
	files, err := blob.NewFS(filepath.Join(o.Dir, "files"), filepath.Join(o.Dir, "tmp"))
	if err == nil {
		err = files.Clean()
	}
	if err != nil {
		return nil, fmt.Errorf("disk cache: %w", err)
	}
	files.Volatile = true
	c := &Cache{Options: o, files: files, copies: map[string]*list.Element{}, order: list.New(), flights: map[string]*flight{}}
	if err := c.load(); err != nil {
		return nil, fmt.Errorf("disk cache: %w", err)
	}
	c.register()
	return c, nil
}

// distrust deletes the copies of a machine that has crashed, which may be torn: they are
// not synced. A process that crashed has left them whole.
func distrust(dir string) error {
	boot := durable.Boot() // "", which is not Linux: every start may be one after a crash
	mark := filepath.Join(dir, openMark)
	before, err := os.ReadFile(mark)
	if err == nil && (boot == "" || strings.TrimSpace(string(before)) != boot) {
		if err := os.RemoveAll(filepath.Join(dir, "files")); err != nil {
			return err
		}
	}
	return os.WriteFile(mark, []byte(boot), 0o644)
}

// openMark is the file that is there while the cache is open, with the boot in which it was
// opened.
const openMark = "open"

// load finds the copies of earlier runs, the youngest first.
func (c *Cache) load() error {
	var all []blob.Info
	dirs := []string{""}
	for len(dirs) > 0 {
		dir := dirs[0]
		dirs = dirs[1:]
		if err := c.files.List(dir, func(i blob.Info) error { all = append(all, i); return nil }); err != nil {
			return err
		}
		within := "."
		if dir != "" {
			within = dir
		}
		more, err := c.folders(within)
		if err != nil {
			return err
		}
		dirs = append(dirs, more...)
	}
	slices.SortFunc(all, func(a, b blob.Info) int { return a.ModTime.Compare(b.ModTime) })
	for _, i := range all {
		c.add(i.Name, i.Size)
	}
	return nil
}

// folders are the folders in a folder, "." being the top.
func (c *Cache) folders(dir string) (names []string, err error) {
	if dir == "." {
		entries, err := os.ReadDir(filepath.Join(c.Dir, "files"))
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, e.Name())
			}
		}
		return names, err
	}
	below, err := c.files.Folders(dir)
	for _, name := range below {
		names = append(names, dir+"/"+name)
	}
	return names, err
}

// Close breaks fetches off and waits for them.
func (c *Cache) Close() {
	c.mu.Lock()
	for _, f := range c.flights {
		f.cancel()
	}
	c.mu.Unlock()
	c.working.Wait()
	_ = os.Remove(filepath.Join(c.Dir, openMark)) // else the copies are made anew after the next boot
}

// Copy opens a copy that is here whole. There being none is fs.ErrNotExist.
func (c *Cache) Copy(name string) (*blob.File, error) {
	c.mu.Lock()
	e := c.copies[name]
	if e != nil {
		c.order.MoveToFront(e)
	}
	c.mu.Unlock()
	if e == nil {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	f, err := c.files.Open(name)
	if errors.Is(err, fs.ErrNotExist) { // somebody has deleted it
		c.mu.Lock()
		c.forget(name)
		c.mu.Unlock()
	}
	return f, err
}

// Drop removes the copy of a file that is no more, and breaks its fetch off.
func (c *Cache) Drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.flights[name]; f != nil {
		f.cancel()
	}
	c.remove(name)
}

// add counts a copy, and has the oldest go for it. mu is held, or nobody else is there.
func (c *Cache) add(name string, size int64) {
	c.forget(name)
	c.copies[name] = c.order.PushFront(&kept{name, size})
	c.bytes += size
	c.shrink(c.Limit)
}

// forget is the opposite of add. mu is held.
func (c *Cache) forget(name string) {
	e := c.copies[name]
	if e == nil {
		return
	}
	k, _ := c.order.Remove(e).(*kept)
	c.bytes -= k.size
	delete(c.copies, name)
}

// remove deletes a copy. mu is held.
func (c *Cache) remove(name string) {
	if c.copies[name] == nil {
		return
	}
	c.forget(name)
	if err := c.files.Remove(name); err != nil {
		c.Log.Warn("a copy of the disk cache could not be deleted", "file", name, "error", err)
	}
}

// shrink deletes the copies that nobody has used for longest until they have at most limit
// bytes. mu is held.
func (c *Cache) shrink(limit int64) {
	for c.bytes > limit && c.order.Len() > 0 {
		k, _ := c.order.Back().Value.(*kept)
		c.remove(k.name)
	}
}

// Size is how many bytes the copies have.
func (c *Cache) Size() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

// Free is what the disk has left, beside the copies.
func (c *Cache) Free() (int64, error) {
	free, err := c.files.Free()
	return free + c.Size(), err
}

// room makes room for size bytes on the disk, where copies are in the way.
func (c *Cache) room(size int64) {
	free, err := c.files.Free()
	if err != nil || free >= size {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shrink(max(c.bytes-(size-free), 0))
}

func (c *Cache) register() {
	c.lookups = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "narwharf_disk_cache_lookups_total",
		Help: "Files asked of the disk cache in front of a bucket: hit, joined (it was on its way), fetched, passed (read past the cache: larger than it, or no room).",
	}, []string{"result"})
	for _, r := range []string{hit, joined, fetched, passed} {
		c.lookups.WithLabelValues(r)
	}
	size := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "narwharf_disk_cache_bytes", Help: "Bytes of the copies in the disk cache in front of a bucket.",
	}, func() float64 { return float64(c.Size()) })
	limit := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "narwharf_disk_cache_limit_bytes", Help: "storage.cache_size.",
	}, func() float64 { return float64(c.Limit) })
	if c.Metrics != nil {
		c.Metrics.MustRegister(c.lookups, size, limit)
	}
}

// Results of a lookup.
const (
	hit     = "hit"
	joined  = "joined"
	fetched = "fetched"
	passed  = "passed"
)
