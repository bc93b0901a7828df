package state

import (
	"slices"
	"sync"
)

// Watchers are who wants notices. The zero value is ready; it is for
// implementations.
type Watchers struct {
	mu  sync.Mutex
	all []*watcher
}

type watcher struct {
	mu sync.Mutex // held while fn runs, and to stop
	fn func(topics []string)
}

// Add is Store.Watch.
func (w *Watchers) Add(fn func(topics []string)) (stop func()) {
	one := &watcher{fn: fn}
	w.mu.Lock()
	w.all = append(slices.Clone(w.all), one)
	w.mu.Unlock()
	return func() {
		w.mu.Lock()
		w.all = slices.DeleteFunc(slices.Clone(w.all), func(o *watcher) bool { return o == one })
		w.mu.Unlock()
		one.mu.Lock()
		one.fn = func([]string) {}
		one.mu.Unlock()
	}
}

// Tell passes topics on, each once.
func (w *Watchers) Tell(topics []string) {
	if len(topics) == 0 {
		return
	}
	slices.Sort(topics)
	topics = slices.Compact(topics)
	w.mu.Lock()
	all := w.all
	w.mu.Unlock()
	for _, one := range all {
		one.mu.Lock()
		one.fn(topics)
		one.mu.Unlock()
	}
}
