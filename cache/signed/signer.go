// Package signed makes narinfos with this server's signatures and holds them in
// memory, ready to be sent. A signature is made when a path is read: keys can be
// added and taken away without touching what is stored. See
// docs/design/003-sign-on-read.md.
package signed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/klauspost/compress/gzip"

	"narwharf/cache/fastpath"
	"narwharf/cache/index"
	"narwharf/cache/local"
	"narwharf/cache/refusal"
	"narwharf/narinfo"
	"narwharf/signing"
)

const (
	// maxEntries bounds how many signed narinfos are kept in memory; with
	// their headers some 1.5 KiB each. Signing one anew costs some 25 µs.
	maxEntries = 32 << 10
	// maxSize is the longest text that is kept, in bytes: with some 200
	// references. A narinfo can have 1 MiB.
	maxSize = 16 << 10
)

// keySet is the keys that sign now. It is replaced as a whole.
type keySet struct {
	signers []signing.Signer
	public  []signing.PublicKey
}

// Load reads the keys that sign; some may lie elsewhere.
type Load func() ([]signing.Signer, error)

// Narinfo is a narinfo ready to be sent.
type Narinfo struct {
	Text []byte
	Etag string // with its quotes
	Gzip []byte // nil if it is not worth it
	// The whole answers behind the value of Date, for package fastpath, with a
	// Label each.
	Plain, Gzipped fastpath.Answer

	Local    *local.Path // nil for an upload
	Upstream bool        // an upstream has it, and we have not
}

// ContentType is that of a narinfo.
const ContentType = "text/x-nix-narinfo"

// Label says where the narinfo in an answer came from.
type Label struct{ Local bool }

// Signer makes signed narinfos. It is safe for concurrent use.
type Signer struct {
	load    Load
	keys    atomic.Pointer[keySet]
	uploads bool // sign uploaded paths too
	others  []signing.PublicKey
	local   *local.Store // nil if the machine's own store is not served
	cache   *lru.Cache[string, *Narinfo]

	// epoch counts what may make texts stale. A text that was begun under an
	// older epoch is sent (it was true when it was asked for) but not kept.
	// mu makes "compare the epoch and keep the text" one step, and so is
	// "count the epoch up and forget the text": else a text that is stale
	// could be seen between the two, after the upload that made it so was
	// answered.
	mu    sync.Mutex
	epoch atomic.Uint64
}

// New reads the keys by load, which Reload calls again. Uploads are signed if
// signUploads; paths of own, the machine's own store, always. own is nil if it is
// not served. others are keys of upstreams: what one of them has signed our keys do not vouch
// for, also when it has become an upload.
func New(load Load, signUploads bool, own *local.Store, others ...signing.PublicKey) (*Signer, error) {
	c, err := lru.New[string, *Narinfo](maxEntries)
	if err != nil {
		return nil, err
	}
	s := &Signer{load: load, uploads: signUploads, others: others, local: own, cache: c}
	return s, s.Reload()
}

// Reload reads the secret keys again. On error the old ones stay in use.
func (s *Signer) Reload() error {
	keys, err := s.load()
	if err != nil {
		return err
	}
	set := &keySet{signers: keys}
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

// Known returns the text of a path if it is in memory and true. old is one
// that may no longer be.
func (s *Signer) Known(hash string) (t, old *Narinfo) {
	t, ok := s.cache.Get(hash)
	switch {
	case !ok:
		return nil, nil
	case t.Local == nil || s.local.Current(t.Local):
		return t, nil
	}
	return nil, t
}

// Get returns the signed narinfo of a path: that of an upload, else that of the
// local store.
func (s *Signer) Get(ctx context.Context, hash string, idx index.Index) (*Narinfo, error) {
	t, old := s.Known(hash)
	if t != nil {
		return t, nil
	}
	epoch := s.epoch.Load()
	r, err := idx.Get(hash)
	switch {
	case err == nil:
		t, err = s.Sign(r.Info, s.uploads && !s.ofOthers(r.Info))
	case s.local != nil && errors.Is(err, index.ErrNotFound):
		t, err = s.signLocal(ctx, hash, old)
	}
	if err != nil {
		if old != nil {
			s.cache.Remove(hash)
		}
		return nil, err
	}
	if len(t.Text) > maxSize {
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
func (s *Signer) signLocal(ctx context.Context, hash string, old *Narinfo) (*Narinfo, error) {
	p, err := s.local.Find(ctx, hash)
	if err != nil {
		return nil, err
	}
	info := s.local.WithFile(p)
	if old != nil && old.Local.Same(p) {
		t := *old
		t.Local = p
		return &t, nil
	}
	t, err := s.Sign(info, true) // the keys vouch for our own store in any case
	if err != nil {
		return nil, err
	}
	t.Local = p
	t.Plain.Label = Label{Local: true}
	t.Gzipped.Label = t.Plain.Label
	return t, nil
}

// Screen looks at the signatures that came with an upload. It takes out what claims to be
// a signature by a key that we know and is not, since that would only mislead, and returns the
// keys' names. required, if not empty, are keys of which one must have signed.
func (s *Signer) Screen(info *narinfo.Info, required []signing.PublicKey) (dropped []string, err error) {
	known := slices.Concat(required, s.PublicKeys(), s.others)
	if len(known) == 0 {
		return nil, nil
	}
	text := info.AppendFingerprint(nil)
	var good []string
	for _, sig := range info.Sigs {
		name, _, err := signing.ParseSignature(sig)
		if err != nil {
			return nil, refusal.New(refusal.Signature, "%v", err)
		}
		ours := slices.ContainsFunc(known, func(k signing.PublicKey) bool { return k.Name() == name })
		if _, ok := signing.VerifyAny(text, []string{sig}, known); ours && !ok {
			dropped = append(dropped, name)
		} else {
			good = append(good, sig)
		}
	}
	info.Sigs = good
	if _, ok := signing.VerifyAny(text, good, required); len(required) > 0 && !ok {
		return dropped, refusal.New(refusal.Unsigned, "%s needs a signature by %s: sign it with nix store sign, or copy with ?secret-key=FILE", info.Path, keyNames(required))
	}
	return dropped, nil
}

func keyNames(keys []signing.PublicKey) string {
	var names []string
	for _, k := range keys {
		names = append(names, k.Name())
	}
	if len(names) > 3 {
		return strings.Join(names[:3], " or ") + " or another of the configured keys"
	}
	return strings.Join(names, " or ")
}

// Signatures returns those of info and ours, as signing.SignInfo has them.
func (s *Signer) Signatures(info *narinfo.Info) ([]string, error) {
	return signing.SignInfo(info, s.keys.Load().signers)
}

// Others are the keys that clients need beside ours.
func (s *Signer) Others() []signing.PublicKey { return s.others }

// ofOthers tells whether a path has a good signature by a key of an upstream.
func (s *Signer) ofOthers(info *narinfo.Info) bool {
	if len(s.others) == 0 || len(info.Sigs) == 0 {
		return false
	}
	_, ok := signing.VerifyAny(info.AppendFingerprint(nil), info.Sigs, s.others)
	return ok
}

// Sign makes a narinfo with the signatures that it has, and with ours if our keys vouch for it.
func (s *Signer) Sign(info *narinfo.Info, vouch bool) (*Narinfo, error) {
	if vouch {
		sigs, err := s.Signatures(info)
		if err != nil {
			return nil, err
		}
		i := *info // the record is shared
		i.Sigs = sigs
		info = &i
	}
	return makeNarinfo(info), nil
}

func makeNarinfo(info *narinfo.Info) *Narinfo {
	text := info.Append(nil)
	sum := sha256.Sum256(text)
	t := &Narinfo{Etag: `"` + hex.EncodeToString(sum[:12]) + `"`}
	t.prepare(text)
	return t
}

// Whole returns t with FileHash and FileSize, also if nobody has compressed the NAR
// of a local path: its NAR is then the plain one, whose hash and size are known. Uploaders get
// that, since Nix before 2.35 ends with an assertion where it has to write a narinfo without, as
// `nix store sign --store` does, and who asks below /lan/.
func (t *Narinfo) Whole() (*Narinfo, error) {
	if t.Local == nil {
		return t, nil
	}
	info, err := narinfo.Parse(t.Text)
	if err != nil || !info.FileHash.IsZero() {
		return t, err
	}
	info.URL, info.Compression = "nar/"+t.Local.Name+local.PlainSuffix, "none"
	info.FileHash, info.FileSize = info.NarHash, info.NarSize
	plain := makeNarinfo(info)
	plain.Local = t.Local
	return plain, nil
}

// prepare makes all that is sent. The bodies are the ends of the tails, so
// that a text is in memory once.
func (t *Narinfo) prepare(text []byte) {
	var compressed []byte
	if len(text) > 1400 { // else it fits into a packet with its head
		compressed = gzipBytes(text)
	}
	vary := ""
	if compressed != nil && len(compressed) < len(text)*3/4 {
		vary = "Vary: Accept-Encoding\r\n"
		t.Gzipped.Tail = tail(vary+"Content-Encoding: gzip\r\n", `W/`+t.Etag, compressed)
		t.Gzip = t.Gzipped.Tail[len(t.Gzipped.Tail)-len(compressed):]
		t.Gzipped.Body = len(compressed)
	}
	t.Plain.Label, t.Gzipped.Label = Label{}, Label{}
	t.Plain.Tail = tail(vary, t.Etag, text)
	t.Plain.Body = len(text)
	t.Text = t.Plain.Tail[len(t.Plain.Tail)-len(text):]
}

// tail spells out what the handler and net/http make together; a test compares.
func tail(fields, etag string, text []byte) []byte {
	head := "\r\nCache-Control: no-cache\r\nContent-Length: " + strconv.Itoa(len(text)) + "\r\nContent-Type: " + ContentType + "\r\nEtag: " + etag + "\r\n" + fields + "\r\n"
	return append(append(make([]byte, 0, len(head)+len(text)), head...), text...)
}

func gzipBytes(text []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(text) // a Buffer does not fail
	_ = z.Close()
	return out.Bytes()
}
