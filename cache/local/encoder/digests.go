package encoder

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"narwharf/narinfo"
)

// maxDigests bounds the memory of what was once encoded, to some 70 MB. Beyond,
// any one is forgotten, which costs a narinfo its Hash until the next encode.
var maxDigests = 500_000 // tests set less

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Digests is what NARs became that were ever encoded, in memory and in a file that
// only grows while it is open. The file is also the lock of its folder. A line is
// "z1 <nar hash> <file hash> <file size> <crc32c>"; one that is not whole counts for
// nothing.
type Digests struct {
	// Fault, if set, is asked before each write, and its error is taken for that of
	// the write.
	Fault func() error

	mu      sync.RWMutex
	known   map[narinfo.Hash]Digest
	f       *os.File
	partial bool // the last line may be cut short
}

func appendDigest(dst []byte, key narinfo.Hash, f Digest) []byte {
	start := len(dst)
	dst = fmt.Appendf(dst, "%s %s %s %d ", generation, key.Base32(), f.Hash.Base32(), f.Size)
	return fmt.Appendf(dst, "%08x\n", crc32.Checksum(dst[start:len(dst)-1], castagnoli))
}

// parseDigest reads a line without its newline.
func parseDigest(line []byte) (key narinfo.Hash, f Digest, ok bool) {
	word := bytes.Split(line, []byte(" "))
	if len(word) != 5 {
		return key, f, false
	}
	key, err1 := narinfo.ParseBase32(string(word[1]))
	hash, err2 := narinfo.ParseBase32(string(word[2]))
	size, err3 := strconv.ParseInt(string(word[3]), 10, 64)
	f = Digest{Hash: hash, Size: size}
	whole := bytes.Equal(appendDigest(nil, key, f), append(bytes.Clone(line), '\n')) // the sum, too
	return key, f, whole && size > 0 && errors.Join(err1, err2, err3) == nil
}

// OpenDigests reads the facts in dir and takes the folder for this process.
// Lines that are not whole are left out, of two for one NAR the last counts.
func OpenDigests(dir string) (_ *Digests, err error) {
	name := filepath.Join(dir, "facts")
	l := &Digests{known: make(map[narinfo.Hash]Digest)}
	l.f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.f.Close()
		}
	}()
	err = unix.Flock(int(l.f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock %s: another process keeps its packed nars there", name)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var order []narinfo.Hash
	whole := true
	for line := range bytes.Lines(text) {
		body, ended := bytes.CutSuffix(line, []byte("\n"))
		key, f, ok := parseDigest(body)
		_, twice := l.known[key]
		whole = whole && ok && ended && !twice
		if !ok || !ended {
			continue
		}
		if !twice {
			order = append(order, key)
		}
		l.known[key] = f
	}
	if whole && len(order) <= maxDigests {
		return l, nil
	}
	for ; len(order) > maxDigests; order = order[1:] {
		delete(l.known, order[0])
	}
	text = nil
	for _, key := range order {
		text = appendDigest(text, key, l.known[key])
	}
	// In place, since the file is the lock; what a crash leaves of it are
	// whole lines and perhaps a part of one.
	if err := l.f.Truncate(0); err != nil {
		return nil, err
	}
	if _, err := l.f.Write(text); err != nil {
		return nil, fmt.Errorf("write %s: %w", name, err)
	}
	return l, nil
}

// Get returns what a NAR became.
func (l *Digests) Get(key narinfo.Hash) (Digest, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	f, ok := l.known[key]
	return f, ok
}

// Put remembers f, and returns what was known before. An error means that it is
// remembered in memory only.
func (l *Digests) Put(key narinfo.Hash, f Digest) (before Digest, known bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, known = l.known[key]
	if known && before == f {
		return before, true, nil
	}
	if !known && len(l.known) >= maxDigests {
		for k := range l.known {
			delete(l.known, k)
			break
		}
	}
	l.known[key] = f
	var text []byte
	if l.partial {
		text = append(text, '\n')
	}
	text = appendDigest(text, key, f)
	if l.Fault != nil {
		err = l.Fault()
	}
	if err == nil {
		_, err = l.f.Write(text)
	}
	l.partial = err != nil
	return before, known, err
}

// Close gives the folder free.
func (l *Digests) Close() error { return l.f.Close() }
