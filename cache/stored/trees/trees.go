// Package trees keeps listings that were parsed, the last used ones, and notes which paths have too many entries for one.
package trees

import (
	"slices"
	"sync"

	"narwharf/cache/nar"
	"narwharf/narinfo"
)

const (
	maxSize = 32 << 20 // text of all listings that are kept
	maxKept = 256
	maxNone = 10_000
)

// Trees is safe for concurrent use; the zero value is empty.
type Trees struct {
	mu   sync.Mutex
	all  []*tree // the last used at the end
	size int64
	none map[string]narinfo.Hash
}

type tree struct {
	hash    string
	narHash narinfo.Hash
	root    *nar.Node
	size    int64
}

// Get is the listing of a path with that NAR, nil if it is not kept. Nobody changes it.
func (t *Trees) Get(hash string, narHash narinfo.Hash) *nar.Node {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, one := range t.all {
		if one.hash == hash && one.narHash == narHash {
			t.all = append(slices.Delete(t.all, i, i+1), one)
			return one.root
		}
	}
	return nil
}

// Put keeps a listing, whose text has size bytes.
func (t *Trees) Put(hash string, narHash narinfo.Hash, root *nar.Node, size int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all, t.size = append(t.all, &tree{hash, narHash, root, size}), t.size+size
	for t.size > maxSize || len(t.all) > maxKept {
		t.size -= t.all[0].size
		t.all = slices.Delete(t.all, 0, 1)
	}
}

// Unlisted is the NAR for which NoList was said of a path.
func (t *Trees) Unlisted(hash string) narinfo.Hash {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.none[hash]
}

// NoList notes that a path with that NAR has no listing.
func (t *Trees) NoList(hash string, narHash narinfo.Hash) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.none) >= maxNone {
		clear(t.none)
	}
	if t.none == nil {
		t.none = make(map[string]narinfo.Hash)
	}
	t.none[hash] = narHash
}
