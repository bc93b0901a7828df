package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/local"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/cache/state/namelock"
	"narwharf/narinfo"
	"narwharf/narinfo/clip"
)

// Uploads is what has been uploaded: files and the index derived from them,
// and the rules by which they change. It knows nothing of HTTP.
//
// The order of writes makes every crash harmless: a NAR is durable before its
// narinfo is accepted, the narinfo file is durable before the index knows it.
// What a crash leaves between the two is put right by Recover.
type Uploads struct {
	blobs blob.Store
	index index.Index
	opts  UploadOptions
	log   *slog.Logger

	locks namelock.Set
	// gate is held for reading while a narinfo is taken in, and for writing
	// while Rebuild replaces the index under it.
	gate sync.RWMutex

	mu       sync.Mutex
	verified map[string]narfile.Facts // NAR files taken in or read by this process, by name

	torn  atomic.Bool  // file and index may disagree: recover at the next start
	bytes atomic.Int64 // bytes of NAR files
	files atomic.Int64

	// local is the machine's own store, nil if it is not served, and vouch makes
	// the signatures that its paths get when they are adopted. NewServer sets
	// them.
	local *local.Store
	vouch func(*narinfo.Info) []string

	// changed is told the hash part of each path whose record changed, ""
	// if any may have.
	changed func(hash string)
}

// UploadOptions are the rules of taking in.
type UploadOptions struct {
	StoreDir        string
	AllowIncomplete bool
	// MaxNarSize bounds a NAR, packed and unpacked, in bytes.
	MaxNarSize int64
	// NarGrace is how long a NAR may lie without a narinfo. Nix 2.35 and
	// later sends all NARs of a closure before the first narinfo.
	NarGrace time.Duration
}

// maxSignatures bounds the signatures that a path collects.
const maxSignatures = 16

// NewUploads joins files and index. Call Recover before the first upload.
func NewUploads(blobs blob.Store, idx index.Index, opts UploadOptions, log *slog.Logger) *Uploads {
	return &Uploads{
		blobs: blobs, index: idx, opts: opts, log: log,
		verified: make(map[string]narfile.Facts), changed: func(string) {},
	}
}

// SetLocal says which store of this machine stands beside the uploads; a Server
// with Options.Local does so itself.
func (u *Uploads) SetLocal(l *local.Store) { u.local = l }

// Torn tells that a write failed in a way that left the narinfo files and the
// index different; the next start must recover.
func (u *Uploads) Torn() bool { return u.torn.Load() }

// PutNar takes in the NAR file "nar/<file>" of size bytes (-1: unknown). The
// name starts with the SHA-256 of the file. Putting a file again is no error,
// and mends one that was damaged on the disk.
func (u *Uploads) PutNar(file string, body io.Reader, size int64) (err error) {
	name := "nar/" + file
	want, err := narinfo.ParseBase32(file[:52])
	if err != nil {
		return refusal.New(refusal.Name, "%s is not named by a SHA-256: %v", name, err)
	}
	if size > u.opts.MaxNarSize {
		return refusal.New(refusal.TooLarge, "the NAR file is %s, larger than the %s that this cache takes", refusal.Size(size), refusal.Size(u.opts.MaxNarSize))
	}
	w, err := u.create(name, size)
	if err != nil {
		return err
	}
	defer w.Abort()
	f, err := narfile.Read(file, io.TeeReader(body, w), u.opts.MaxNarSize)
	if err != nil {
		return err
	}
	if f.FileHash != want {
		return refusal.New(refusal.FileHash, "the body's SHA-256 is %s, but it was sent as %s", f.FileHash.Base32(), name)
	}

	unlock := u.locks.Lock(name)
	defer unlock()
	old, statErr := u.blobs.Stat(name)
	// Also if it is there: we know of these bytes that they are right, and of
	// those only that somebody wrote them once.
	if err := w.Commit(); err != nil {
		return err
	}
	u.bytes.Add(f.FileSize - old.Size)
	if statErr != nil {
		u.files.Add(1)
	}
	// Where a narinfo names it already, that tells the facts.
	if users, err := u.index.Users(name); err != nil || len(users) == 0 {
		u.know(file, f)
	}
	return nil
}

func (u *Uploads) know(file string, f narfile.Facts) {
	u.mu.Lock()
	u.verified[file] = f
	u.mu.Unlock()
}

// HasNar stats a NAR file. With claim, the caller will refer to it soon:
// its time without a narinfo starts anew.
func (u *Uploads) HasNar(file string, claim bool) (blob.Info, error) {
	name := "nar/" + file
	if !claim {
		return u.blobs.Stat(name)
	}
	unlock := u.locks.Lock(name)
	defer unlock()
	st, err := u.blobs.Stat(name)
	if err == nil && time.Since(st.ModTime) > u.opts.NarGrace/24 {
		err = u.blobs.Touch(name)
	}
	return st, err
}

// factsOf tells what a stored NAR file is: from memory, from a narinfo that
// was checked against it, else by reading it. The caller holds its lock.
func (u *Uploads) factsOf(file string) (narfile.Facts, error) {
	name := "nar/" + file
	st, err := u.blobs.Stat(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return narfile.Facts{}, missingNar(name)
		}
		return narfile.Facts{}, err
	}
	u.mu.Lock()
	f, ok := u.verified[file]
	u.mu.Unlock()
	if ok && f.FileSize == st.Size {
		return f, nil
	}
	users, err := u.index.Users(name)
	if err != nil {
		return narfile.Facts{}, err
	}
	for _, hash := range users {
		r, err := u.index.Get(hash)
		if err != nil {
			return narfile.Facts{}, err
		}
		if i := r.Info; i.URL == name && i.FileSize == st.Size {
			return narfile.Facts{Compression: i.Compression, FileHash: i.FileHash, NarHash: i.NarHash, FileSize: i.FileSize, NarSize: i.NarSize}, nil
		}
	}
	f, err = u.inspect(file)
	if refusal.In(err) != nil {
		// The client saw that the file is here and did not send it. It must
		// go, or the path could never be uploaded.
		u.log.Error("a damaged NAR was in the way of an upload", "file", name, "error", err)
		if err := u.quarantine(name); err != nil {
			return narfile.Facts{}, err
		}
		return narfile.Facts{}, missingNar(name)
	}
	if err != nil {
		return narfile.Facts{}, err
	}
	u.know(file, f)
	return f, nil
}

func missingNar(name string) error {
	return refusal.New(refusal.MissingNar, "%s is not in this cache, upload it before its narinfo; run again with --refresh", name)
}

// inspect reads a stored NAR file whole and checks its name. What is wrong with
// its bytes is a refusal; any other error says that they could not be read.
func (u *Uploads) inspect(file string) (narfile.Facts, error) {
	in, err := u.blobs.Open("nar/" + file)
	if err != nil {
		return narfile.Facts{}, err
	}
	defer in.Close()
	f, err := narfile.Read(file, in.Content, narfile.NoLimit)
	if err != nil {
		return narfile.Facts{}, fmt.Errorf("nar/%s: %w", file, err)
	}
	if f.FileHash.Base32() != file[:52] {
		return narfile.Facts{}, refusal.New(refusal.FileHash, "nar/%s: the file's SHA-256 is %s", file, f.FileHash.Base32())
	}
	return f, nil
}

// PutInfo takes in a narinfo for the path with the given hash part. by names
// the uploader. Text that differs from what is stored only in signatures, or
// in the encoding of the NAR, adds to it; another fingerprint is refused with
// 409: the first one wins.
func (u *Uploads) PutInfo(hash string, info *narinfo.Info, by string) error {
	if info.StoreDir != u.opts.StoreDir {
		return refusal.New(refusal.StoreDir, "this cache is for paths in %s, the narinfo is for %s", u.opts.StoreDir, info.Path.In(info.StoreDir))
	}
	if info.Path.Hash() != hash {
		return refusal.New(refusal.OtherPath, "the narinfo is for %s but was sent as %s.narinfo", info.Path, hash)
	}
	file, ok := strings.CutPrefix(info.URL, "nar/")
	if !ok || !narfile.Grammar.MatchString(file) {
		return refusal.New(refusal.Narinfo, "URL: %s is not of the form nar/<52 characters of nix32>.nar[.suffix]", clip.Text(info.URL, 100))
	}
	if len(info.Sigs) > maxSignatures {
		return refusal.New(refusal.Signature, "the narinfo has %d signatures, this cache keeps at most %d", len(info.Sigs), maxSignatures)
	}

	u.gate.RLock()
	defer u.gate.RUnlock()
	defer u.locks.Lock(hash)()
	defer u.locks.Lock(info.URL)()

	f, err := u.factsOf(file)
	if err != nil {
		return err
	}
	if err := agree(info, f); err != nil {
		return err
	}
	info = info.Clone()
	info.FileHash, info.FileSize = f.FileHash, f.FileSize
	if err := u.checkReferences(info); err != nil {
		return err
	}

	old, err := u.index.Get(hash)
	if errors.Is(err, index.ErrNotFound) {
		if err := u.likeLocal(info); err != nil {
			return err
		}
		return u.store(&index.Record{Info: info, Uploaded: time.Now(), By: by}, nil)
	}
	if err != nil {
		return err
	}
	if differs := differences(old.Info, info); differs != "" {
		return refusal.New(refusal.Conflict, "%s was uploaded %s%s with another content: %s; the first upload of a path stays", info.Path, old.Uploaded.UTC().Format(time.RFC3339), byText(old.By), differs)
	}
	return u.merge(old, info)
}

// agree compares what a narinfo claims with what its NAR is.
func agree(i *narinfo.Info, f narfile.Facts) error {
	claims := []struct {
		kind        refusal.Kind
		key         string
		claim, fact any
		made        bool
	}{
		{refusal.FileHash, "FileHash", i.FileHash, f.FileHash, !i.FileHash.IsZero()},
		{refusal.FileSize, "FileSize", i.FileSize, f.FileSize, i.FileSize != 0},
		{refusal.NarHash, "NarHash", i.NarHash, f.NarHash, true},
		{refusal.NarSize, "NarSize", i.NarSize, f.NarSize, true},
		{refusal.Compression, "Compression", i.Compression, f.Compression, true},
	}
	for _, c := range claims {
		if c.made && c.claim != c.fact {
			return refusal.New(c.kind, "%s of %s is %v, but %s was uploaded with %v", c.key, i.Path, c.claim, i.URL, c.fact)
		}
	}
	return nil
}

// checkReferences sees to it that the cache holds closures and not pieces.
// Clients upload references first and remember for 30 days what a cache had,
// so one that is missing was lost here, and only --refresh makes them look.
func (u *Uploads) checkReferences(i *narinfo.Info) error {
	if u.opts.AllowIncomplete {
		return nil
	}
	var missing []string
	for _, ref := range i.References {
		if ref == i.Path {
			continue
		}
		r, err := u.index.Get(ref.Hash())
		if err != nil && !errors.Is(err, index.ErrNotFound) {
			return err
		}
		if err != nil {
			if err := u.hasLocal(ref); err == nil {
				continue
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err != nil || r.Info.Path != ref {
			missing = append(missing, string(ref))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	more := ""
	if n := len(missing) - 2; n > 0 {
		missing, more = missing[:2], fmt.Sprintf(" and %d more", n)
	}
	return refusal.New(refusal.MissingReference, "%s refers to %s%s, not in this cache (your Nix may remember that it was): run again with --refresh", i.Path, strings.Join(missing, ", "), more)
}

// differences tells in words where two fingerprints of a path differ.
func differences(stored, sent *narinfo.Info) string {
	switch {
	case stored.Path != sent.Path:
		return fmt.Sprintf("the path there is %s", stored.Path)
	case stored.NarHash != sent.NarHash:
		return fmt.Sprintf("NarHash %s there, %s here", stored.NarHash, sent.NarHash)
	case stored.NarSize != sent.NarSize:
		return fmt.Sprintf("NarSize %d there, %d here", stored.NarSize, sent.NarSize)
	case !slices.Equal(stored.References, sent.References):
		return fmt.Sprintf("%d references there, %d others here", len(stored.References), len(sent.References))
	}
	return ""
}

func byText(by string) string {
	if by == "" {
		return ""
	}
	return " by " + by
}

// merge adds to a stored record what a second upload of the same path brings.
// What no signature covers stays as the first uploader had it: a wrong CA added
// to a path would make every client refuse it.
func (u *Uploads) merge(old *index.Record, sent *narinfo.Info) error {
	next := *old
	next.Info = old.Info.Clone()
	i := next.Info
	for _, sig := range sent.Sigs {
		if !slices.Contains(i.Sigs, sig) {
			i.Sigs = append(i.Sigs, sig)
		}
	}
	if len(i.Sigs) > maxSignatures && len(i.Sigs) > len(old.Info.Sigs) {
		return refusal.New(refusal.Signature, "%s has %d signatures in this cache, it keeps at most %d", i.Path, len(old.Info.Sigs), maxSignatures)
	}
	slices.Sort(i.Sigs)
	if i.Deriver == "" {
		i.Deriver = sent.Deriver
	}
	if sent.URL != i.URL {
		if _, err := u.blobs.Stat(i.URL); errors.Is(err, fs.ErrNotExist) {
			// Our file is lost: the new one heals the path.
			i.URL, i.Compression, i.FileHash, i.FileSize = sent.URL, sent.Compression, sent.FileHash, sent.FileSize
			next.Alternates = without(old.Alternates, i.URL)
		} else if !slices.Contains(old.Alternates, sent.URL) {
			next.Alternates = append(slices.Clone(old.Alternates), sent.URL)
		}
	}
	return u.store(&next, old)
}

// store writes a record to its file and then to the index. old is the record
// it replaces, nil for a new path. The caller holds the path's lock.
func (u *Uploads) store(r, old *index.Record) error {
	hash := r.Info.Path.Hash()
	text := r.Info.Append(nil)
	if old == nil || !bytes.Equal(old.Info.Append(nil), text) {
		// A listing of a path that was here before tells of another NAR.
		if old == nil {
			if err := u.blobs.Remove(hash + ".ls"); err != nil {
				return err
			}
		}
		write := func() error { return blob.WriteFile(u.blobs, hash+".narinfo", text) }
		if err := u.makingRoom(int64(len(text)), write); err != nil {
			u.undo(hash, old)
			return err
		}
	} else if slices.Equal(r.Alternates, old.Alternates) {
		u.forget(r.Files()...)
		return nil
	}
	if err := u.index.Put(r); err != nil {
		// The index may have it all the same: a commit can fail half-way.
		u.torn.Store(true)
		if old == nil {
			_ = u.index.Delete(hash)
		} else {
			_ = u.index.Put(old)
		}
		u.undo(hash, old)
		u.changed(hash)
		return fmt.Errorf("index %s: %w", r.Info.Path, asFull(err))
	}
	u.forget(r.Files()...)
	u.changed(hash)
	return nil
}

// undo puts a narinfo file back to old, if it is not what it was.
func (u *Uploads) undo(hash string, old *index.Record) {
	name := hash + ".narinfo"
	now, err := blob.ReadFile(u.blobs, name, maxNarinfo)
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case old == nil && missing, err == nil && old != nil && bytes.Equal(now, old.Info.Append(nil)):
		return
	case old == nil:
		err = u.blobs.Remove(name)
	default:
		err = blob.WriteFile(u.blobs, name, old.Info.Append(nil))
	}
	if err != nil {
		u.torn.Store(true)
		u.log.Error("a narinfo and the index may differ until the next start", "file", name, "error", err)
	}
}

// forget drops the facts of NARs that a narinfo now holds, or that are gone.
func (u *Uploads) forget(names ...string) {
	u.mu.Lock()
	for _, name := range names {
		delete(u.verified, strings.TrimPrefix(name, "nar/"))
	}
	u.mu.Unlock()
}
