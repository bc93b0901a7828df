// Package received remembers NAR files that were just sent, so that their PUT needs no
// transaction. The rows in the index are written later, for many at once.
package received

import (
	"maps"
	"sync"
	"time"

	"narwharf/cache/narfile"
)

// Set holds what NAR files turned out to be that were sent and have no row in
// the index and no narinfo yet, which would say it, too. The zero value is ready.
type Set struct {
	mu    sync.Mutex
	facts map[string]NAR // by the file's name, "nar/…"
}

// NAR is one of them.
type NAR struct {
	narfile.Facts
	Asked time.Time // when it was sent
}

// Get returns what a file is.
func (v *Set) Get(name string) (narfile.Facts, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f, ok := v.facts[name]
	return f.Facts, ok
}

// Lately tells whether a file was sent a short while ago.
func (v *Set) Lately(name string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	f, ok := v.facts[name]
	return ok && time.Since(f.Asked) < time.Hour
}

// Set notes what a file is that was sent now.
func (v *Set) Set(name string, f narfile.Facts) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.facts == nil {
		v.facts = make(map[string]NAR)
	}
	v.facts[name] = NAR{f, time.Now()}
}

// Before returns those that were sent before then.
func (v *Set) Before(then time.Time) map[string]NAR {
	v.mu.Lock()
	defer v.mu.Unlock()
	old := maps.Clone(v.facts)
	maps.DeleteFunc(old, func(_ string, f NAR) bool { return f.Asked.After(then) })
	return old
}

// Forget drops NARs that a narinfo now names, or that are gone.
func (v *Set) Forget(names ...string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, name := range names {
		delete(v.facts, name)
	}
}
