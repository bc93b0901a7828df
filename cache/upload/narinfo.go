package upload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"narwharf/cache/index"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/narinfo"
	"narwharf/narinfo/clip"
)

// PutInfo takes in a narinfo for the path with the given hash part. by names
// the uploader. Text that differs from what is stored only in signatures, or
// in the encoding of the NAR, adds to it; another fingerprint is refused: the
// first one wins.
func (s *Store) PutInfo(hash string, info *narinfo.Info, by string) error {
	if info.StoreDir != s.StoreDir {
		return refusal.New(refusal.StoreDir, "this cache is for paths in %s, the narinfo is for %s", s.StoreDir, info.Path.In(info.StoreDir))
	}
	if info.Path.Hash() != hash {
		return refusal.New(refusal.OtherPath, "the narinfo is for %s but was sent as %s.narinfo", info.Path, hash)
	}
	file, ok := strings.CutPrefix(info.URL, "nar/")
	if !ok || !narfile.Grammar.MatchString(file) {
		return refusal.New(refusal.Narinfo, "URL: %s is not of the form nar/<52 characters of nix32>.nar[.suffix]", clip.Text(info.URL, 100))
	}
	if len(info.Sigs) > MaxSignatures {
		return refusal.New(refusal.Signature, "the narinfo has %d signatures, this cache keeps at most %d", len(info.Sigs), MaxSignatures)
	}

	defer s.LockPath(hash)()
	defer s.locks.Lock(info.URL)()

	f, err := s.factsOf(file)
	if err != nil {
		return err
	}
	if err := Agree(info, f); err != nil {
		return err
	}
	info = info.Clone()
	info.FileHash, info.FileSize = f.FileHash, f.FileSize
	if err := s.checkReferences(info); err != nil {
		return err
	}

	old, err := s.Index.Get(hash)
	if errors.Is(err, index.ErrNotFound) {
		if err := s.likeLocal(info); err != nil {
			return err
		}
		return s.Write(&index.Record{Info: info, Uploaded: time.Now(), By: by}, nil)
	}
	if err != nil {
		return err
	}
	if differs := differences(old.Info, info); differs != "" {
		return refusal.New(refusal.Conflict, "%s was uploaded %s%s with another content: %s; the first upload of a path stays", info.Path, old.Uploaded.UTC().Format(time.RFC3339), byText(old.By), differs)
	}
	return s.merge(old, info)
}

// Agree compares what a narinfo claims with what its NAR is.
func Agree(i *narinfo.Info, f narfile.Facts) error {
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
func (s *Store) checkReferences(i *narinfo.Info) error {
	if s.AllowIncomplete {
		return nil
	}
	var missing []string
	for _, ref := range i.References {
		if ref == i.Path {
			continue
		}
		r, err := s.Index.Get(ref.Hash())
		if err != nil && !errors.Is(err, index.ErrNotFound) {
			return err
		}
		if err != nil {
			if err := Has(s.Local, ref); err == nil {
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
func (s *Store) merge(old *index.Record, sent *narinfo.Info) error {
	i := old.Info.Clone()
	for _, sig := range sent.Sigs {
		if !slices.Contains(i.Sigs, sig) {
			i.Sigs = append(i.Sigs, sig)
		}
	}
	if len(i.Sigs) > MaxSignatures && len(i.Sigs) > len(old.Info.Sigs) {
		return refusal.New(refusal.Signature, "%s has %d signatures in this cache, it keeps at most %d", i.Path, len(old.Info.Sigs), MaxSignatures)
	}
	slices.Sort(i.Sigs)
	if i.Deriver == "" {
		i.Deriver = sent.Deriver
	}
	var alternate []string
	if sent.URL != i.URL {
		if _, err := s.Files.Stat(i.URL); errors.Is(err, fs.ErrNotExist) {
			// Our file is lost: the new one heals the path.
			i.URL, i.Compression, i.FileHash, i.FileSize = sent.URL, sent.Compression, sent.FileHash, sent.FileSize
		} else if !slices.Contains(old.Alternates, sent.URL) {
			alternate = []string{sent.URL}
		}
	}
	next := WithInfo(old, i)
	next.Alternates = append(next.Alternates, alternate...)
	return s.Write(next, old)
}

// Has returns nil if a local store has a path, fs.ErrNotExist if not.
func Has(local LocalStore, p narinfo.Path) error {
	info, err := local.Info(context.Background(), p.Hash())
	if err == nil && info.Path != p {
		return fs.ErrNotExist
	}
	return err
}

// likeLocal refuses an upload of a path that the local store has with another
// content: clients have seen that one here. Of the same, it adds the signatures
// that the store has. A store that cannot be read now keeps nobody from
// uploading.
func (s *Store) likeLocal(info *narinfo.Info) error {
	l, err := s.Local.Info(context.Background(), info.Path.Hash())
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("an upload could not be compared with the local store", "path", info.Path, "error", err)
		}
		return nil
	}
	if differs := differences(l, info); differs != "" {
		return refusal.New(refusal.Conflict, "%s is in this cache's own store with another content: %s; the first stays: rebuild with this cache as substituter", info.Path, differs)
	}
	for _, sig := range l.Sigs {
		if len(info.Sigs) < MaxSignatures && !slices.Contains(info.Sigs, sig) {
			info.Sigs = append(info.Sigs, sig)
		}
	}
	slices.Sort(info.Sigs)
	return nil
}
