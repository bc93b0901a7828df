package external

import (
	"crypto/sha256"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"narwharf/signing"
)

// maxKnown bounds how many signatures a Pool keeps in memory; with their keys some 200 bytes each.
const maxKnown = 64 << 10

// A Pool is a signing.Signer for many short texts, as the narinfos of a cache are: so many
// commands run at once and the others wait, one runs for the same text however often it is
// asked for, and what was signed once is known. What failed is tried anew.
type Pool struct {
	cmd   *Command
	slots chan struct{}
	known *lru.Cache[[32]byte, string]

	mu      sync.Mutex
	running map[[32]byte]*flight
}

type flight struct {
	done chan struct{}
	sig  string
	err  error
}

// NewPool is a pool of a command that runs so often at once.
func NewPool(cmd *Command, atOnce int) *Pool {
	known, err := lru.New[[32]byte, string](maxKnown)
	if err != nil {
		panic(err) // the size is above 0
	}
	return &Pool{cmd: cmd, slots: make(chan struct{}, atOnce), known: known, running: make(map[[32]byte]*flight)}
}

// Public implements signing.Signer.
func (p *Pool) Public() signing.PublicKey { return p.cmd.Public() }

// Signature implements signing.Signer.
func (p *Pool) Signature(msg []byte) (string, error) {
	key := sha256.Sum256(msg)
	p.mu.Lock()
	if sig, ok := p.known.Get(key); ok {
		p.mu.Unlock()
		return sig, nil
	}
	if f := p.running[key]; f != nil {
		p.mu.Unlock()
		<-f.done
		return f.sig, f.err
	}
	f := &flight{done: make(chan struct{})}
	p.running[key] = f
	p.mu.Unlock()

	p.slots <- struct{}{}
	f.sig, f.err = p.cmd.Signature(msg)
	<-p.slots

	p.mu.Lock()
	defer p.mu.Unlock()
	if f.err == nil {
		p.known.Add(key, f.sig)
	}
	delete(p.running, key)
	close(f.done)
	return f.sig, f.err
}
