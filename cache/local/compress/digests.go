package compress

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"narwharf/narinfo"
)

// Digest is what is known of a packed NAR.
type Digest struct {
	Hash narinfo.Hash // SHA-256 of the packed bytes
	Size int64        // how many they are
}

// maxDigests bounds the memory of what was once encoded, to some 70 MB. Beyond,
// any one is forgotten, which costs a narinfo its Hash until the next encode.
var maxDigests = 500_000 // tests set less

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// digestLog is all facts, in memory and in a file that only grows while it is
// open. The file is also the lock of the folder.
type digestLog struct {
	mu    sync.RWMutex
	known map[narinfo.Hash]Digest
	f     *os.File
	torn  bool // the last line may be a part of one
}

func appendDigest(dst []byte, key narinfo.Hash, f Digest) []byte {
	start := len(dst)
	dst = fmt.Appendf(dst, "%s %s %s %d ", generation, key.Base32(), f.Hash.Base32(), f.Size)
	return fmt.Appendf(dst, "%08x\n", crc32.Checksum(dst[start:len(dst)-1], castagnoli))
}

// parseDigest reads a line without its newline.
func parseDigest(line []byte) (key narinfo.Hash, f Digest, ok bool) {
	i := bytes.LastIndexByte(line, ' ')
	if i < 0 {
		return key, f, false
	}
	sum, err := strconv.ParseUint(string(line[i+1:]), 16, 32)
	if err != nil || sum != uint64(crc32.Checksum(line[:i], castagnoli)) {
		return key, f, false
	}
	word := bytes.Fields(line[:i])
	if len(word) != 4 || string(word[0]) != generation {
		return key, f, false
	}
	key, err = narinfo.ParseBase32(string(word[1]))
	if err != nil {
		return key, f, false
	}
	if f.Hash, err = narinfo.ParseBase32(string(word[2])); err != nil {
		return key, f, false
	}
	f.Size, err = strconv.ParseInt(string(word[3]), 10, 64)
	return key, f, err == nil && f.Size > 0
}

// openDigests reads the facts in dir and takes the folder for this process.
// Lines that are not whole are left out, of two for one NAR the last counts.
func openDigests(dir string) (_ *digestLog, err error) {
	name := filepath.Join(dir, "facts")
	l := &digestLog{known: make(map[narinfo.Hash]Digest)}
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
		if !ok || !ended {
			whole = false
			continue
		}
		if _, twice := l.known[key]; twice {
			whole = false
		} else {
			order = append(order, key)
		}
		l.known[key] = f
	}
	if whole && len(order) <= maxDigests {
		return l, nil
	}
	for len(order) > maxDigests {
		delete(l.known, order[0])
		order = order[1:]
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

func (l *digestLog) get(key narinfo.Hash) (Digest, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	f, ok := l.known[key]
	return f, ok
}

// put remembers f, and returns what was known before. An error means that it
// is remembered in memory only.
func (l *digestLog) put(key narinfo.Hash, f Digest, write func([]byte) (int, error)) (before Digest, known bool, err error) {
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
	if l.torn {
		text = append(text, '\n')
	}
	text = appendDigest(text, key, f)
	n, err := write(text)
	if err == nil && n < len(text) {
		err = fs.ErrInvalid
	}
	l.torn = err != nil
	return before, known, err
}

func (l *digestLog) close() error { return l.f.Close() }
