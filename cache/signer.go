package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/klauspost/compress/gzip"

	"narwharf/cache/fastpath"
	"narwharf/cache/index"
	"narwharf/cache/local"
	"narwharf/narinfo"
	"narwharf/signing"
)

const (
	// signedEntries bounds how many signed narinfos are kept in memory; with
	// their headers some 1.5 KiB each. Signing one anew costs some 25 µs.
	signedEntries = 32 << 10
	// signedSize is the longest text that is kept, in bytes: with some 200
	// references. A narinfo can have 1 MiB.
	signedSize = 16 << 10
)

// keySet is the keys that sign now. It is replaced as a whole.
type keySet struct {
	secret []signing.SecretKey
	public []signing.PublicKey
}

// signedText is a narinfo ready to be sent.
type signedText struct {
	text  []byte
	etag  string
	small []byte // gzip, if that is worth it; else nil
	// The whole answers behind the value of Date, for package fastpath.
	plainTail, smallTail fastpath.Answer

	local *local.Path // nil for an upload
}

// Signer makes and keeps the signed narinfos. A signature is made when a path
// is read: keys can be added and taken away without touching what is stored.
type Signer struct {
	load    func() ([]signing.SecretKey, error)
	keys    atomic.Pointer[keySet]
	uploads bool         // sign uploaded paths too
	local   *local.Store // nil if the machine's own store is not served
	cache   *lru.Cache[string, *signedText]

	// epoch counts what may make texts stale. A text that was begun under an
	// older epoch is sent (it was true when it was asked for) but not kept.
	// mu makes "compare the epoch and keep the text" one step, and so is
	// "count the epoch up and forget the text": else a text that is stale
	// could be seen between the two, after the upload that made it so was
	// answered.
	mu    sync.Mutex
	epoch atomic.Uint64
}

// NewSigner reads the keys by load, which Reload calls again. Uploads are signed if
// signUploads; paths of own, the machine's own store, always. own is nil if it is
// not served.
func NewSigner(load func() ([]signing.SecretKey, error), signUploads bool, own *local.Store) (*Signer, error) {
	c, err := lru.New[string, *signedText](signedEntries)
	if err != nil {
		return nil, err
	}
	s := &Signer{load: load, uploads: signUploads, local: own, cache: c}
	return s, s.Reload()
}

// Reload reads the secret keys again. On error the old ones stay in use.
func (s *Signer) Reload() error {
	keys, err := s.load()
	if err != nil {
		return err
	}
	set := &keySet{secret: keys}
	for _, k := range keys {
		set.public = append(set.public, k.Public())
	}
	s.keys.Store(set)
	s.Forget("")
	return nil
}

// PublicKeys returns the keys that sign now.
func (s *Signer) PublicKeys() []signing.PublicKey { return s.keys.Load().public }

// Forget drops the text of one path, or with "" all texts.
func (s *Signer) Forget(hash string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch.Add(1)
	if hash == "" {
		s.cache.Purge()
	} else {
		s.cache.Remove(hash)
	}
}

// known returns the text of a path if it is in memory and true. old is one
// that may no longer be.
func (s *Signer) known(hash string) (t, old *signedText) {
	t, ok := s.cache.Get(hash)
	switch {
	case !ok:
		return nil, nil
	case t.local == nil || s.local.Current(t.local):
		return t, nil
	}
	return nil, t
}

// get returns the signed narinfo of a path: that of an upload, else that of the
// local store.
func (s *Signer) get(ctx context.Context, hash string, idx index.Index) (*signedText, error) {
	t, old := s.known(hash)
	if t != nil {
		return t, nil
	}
	epoch := s.epoch.Load()
	r, err := idx.Get(hash)
	switch {
	case err == nil:
		t = s.sign(r.Info, s.uploads)
	case s.local != nil && errors.Is(err, index.ErrNotFound):
		t, err = s.signLocal(ctx, hash, old)
	}
	if err != nil {
		if old != nil {
			s.cache.Remove(hash)
		}
		return nil, err
	}
	if len(t.text) > signedSize {
		return t, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch.Load() == epoch {
		s.cache.Add(strings.Clone(hash), t) // a part of a whole request line
	}
	return t, nil
}

// signLocal makes the text of a local path. Most changes of a store are to
// other paths: old is used again if it says the same.
func (s *Signer) signLocal(ctx context.Context, hash string, old *signedText) (*signedText, error) {
	p, err := s.local.Find(ctx, hash)
	if err != nil {
		return nil, err
	}
	info := s.local.WithFile(p)
	if old != nil && old.local.Same(p) {
		t := *old
		t.local = p
		return &t, nil
	}
	t := s.sign(info, true) // the keys vouch for our own store in any case
	t.local = p
	t.plainTail.Label = fastLabel{kind: fastLocalInfo}
	t.smallTail.Label = t.plainTail.Label
	return t, nil
}

// Signatures returns those of info and ours.
func (s *Signer) Signatures(info *narinfo.Info) []string {
	return signing.SignInfo(info, s.keys.Load().secret)
}

func (s *Signer) sign(info *narinfo.Info, vouch bool) *signedText {
	if vouch {
		i := *info // the record is shared
		i.Sigs = s.Signatures(info)
		info = &i
	}
	text := info.Append(nil)
	sum := sha256.Sum256(text)
	t := &signedText{etag: `"` + hex.EncodeToString(sum[:12]) + `"`}
	t.prepare(text)
	return t
}

// prepare makes all that is sent. The bodies are the ends of the tails, so
// that a text is in memory once.
func (t *signedText) prepare(text []byte) {
	var compressed []byte
	if len(text) > 1400 { // else it fits into a packet with its head
		compressed = gzipBytes(text)
	}
	vary := ""
	if compressed != nil && len(compressed) < len(text)*3/4 {
		vary = "Vary: Accept-Encoding\r\n"
		t.smallTail.Tail = tail(vary+"Content-Encoding: gzip\r\n", `W/`+t.etag, compressed)
		t.small = t.smallTail.Tail[len(t.smallTail.Tail)-len(compressed):]
		t.smallTail.Body = len(compressed)
	}
	t.plainTail.Label, t.smallTail.Label = fastLabel{kind: fastUploadedInfo}, fastLabel{kind: fastUploadedInfo}
	t.plainTail.Tail = tail(vary, t.etag, text)
	t.plainTail.Body = len(text)
	t.text = t.plainTail.Tail[len(t.plainTail.Tail)-len(text):]
}

// tail spells out what getNarinfo and net/http make together; a test compares.
func tail(fields, etag string, text []byte) []byte {
	head := "\r\nContent-Length: " + strconv.Itoa(len(text)) + "\r\nContent-Type: " + narinfoType + "\r\nEtag: " + etag + "\r\n" + fields + "\r\n"
	return append(append(make([]byte, 0, len(head)+len(text)), head...), text...)
}

func gzipBytes(text []byte) []byte {
	var out sliceWriter
	z, err := gzip.NewWriterLevel(&out, gzip.DefaultCompression)
	if err != nil {
		panic(err) // the level is a constant
	}
	_, _ = z.Write(text) // a sliceWriter does not fail
	_ = z.Close()
	return out
}

type sliceWriter []byte

func (s *sliceWriter) Write(p []byte) (int, error) {
	*s = append(*s, p...)
	return len(p), nil
}
