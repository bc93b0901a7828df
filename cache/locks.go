package cache

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"narwharf/cache/blob"
)

// keyLocks is a mutex for each name. The zero value is ready. Whoever takes
// two takes the path's hash part first, then the NAR's name.
type keyLocks struct {
	mu   sync.Mutex
	held map[string]*keyLock
}

type keyLock struct {
	sync.Mutex
	users int // holders and waiters, guarded by keyLocks.mu
}

// lock waits for the name and returns what unlocks it.
func (k *keyLocks) lock(name string) (unlock func()) {
	k.mu.Lock()
	if k.held == nil {
		k.held = make(map[string]*keyLock)
	}
	l := k.held[name]
	if l == nil {
		l = new(keyLock)
		k.held[name] = l
	}
	l.users++
	k.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		k.mu.Lock()
		if l.users--; l.users == 0 {
			delete(k.held, name)
		}
		k.mu.Unlock()
	}
}

// asFull recognises a full disk in an error of the database.
func asFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", blob.ErrFull, err)
	}
	return err
}
