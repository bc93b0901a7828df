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
	"narwharf/cache/state"
	"narwharf/narinfo"
	"narwharf/narinfo/clip"
)

// PutInfo takes in a narinfo for the path with the given hash part. by names
// the uploader. Text that differs from what is stored only in signatures, or
// in the encoding of the NAR, adds to it; another fingerprint is refused: the
// first one wins. References that the local store alone has are held there, or it is
// a *LooseError.
func (s *Store) PutInfo(hash string, info *narinfo.Info, by string) error {
	return s.put(hash, info, by, s.Local.Hold)
}

// PutAdopted is PutInfo for a path of the local store: what it refers to is adopted
// too, or cannot be.
func (s *Store) PutAdopted(info *narinfo.Info, by string) error {
	return s.put(info.Path.Hash(), info, by, func(_ context.Context, ref narinfo.Path) (bool, error) { return true, Has(s.Local, ref) })
}

// LooseError are references that are in the local store alone, and that nothing keeps
// there: they have to be adopted before the narinfo can be taken in.
type LooseError struct{ Refs []narinfo.Path }

func (e *LooseError) Error() string {
	return fmt.Sprintf("%s and %d more are in the local store alone, where nothing keeps them", e.Refs[0], len(e.Refs)-1)
}

// holdFunc is LocalStore.Hold.
type holdFunc func(ctx context.Context, ref narinfo.Path) (held bool, err error)

func (s *Store) put(hash string, info *narinfo.Info, by string, hold holdFunc) error {
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
	f, err := s.factsOf(file)
	if err != nil {
		return err
	}
	if err := Agree(info, f); err != nil {
		return err
	}
	info = info.Clone()
	info.FileHash, info.FileSize = f.FileHash, f.FileSize
	local := make(map[narinfo.Path]bool)
	for {
		err := s.putInfo(info, by, local)
		if errors.Is(err, errChanged) {
			continue
		}
		var absent absentError
		if !errors.As(err, &absent) {
			return err
		}
		if err := s.checkLocal(info, absent, local, hold); err != nil {
			return err
		}
	}
}

// putInfo decides on what is there now and writes it if that is there still. local
// are the references that are known to be in the local store, or need not be here.
func (s *Store) putInfo(info *narinfo.Info, by string, local map[narinfo.Path]bool) error {
	hash := info.Path.Hash()
	old, err := s.Index.Get(hash)
	if err != nil && !errors.Is(err, index.ErrNotFound) {
		return err
	}
	next, err := s.decide(old, info, by)
	if err != nil {
		return err
	}
	locks := []string{state.Shared(index.NarLock(info.URL))}
	for _, ref := range info.References {
		if ref != info.Path {
			locks = append(locks, state.Shared(index.PathLock(ref.Hash())))
		}
	}
	return s.write(next, old, locks, func(tx *index.Tx) error {
		if _, err := s.Files.Stat(info.URL); errors.Is(err, fs.ErrNotExist) {
			return missingNar(info.URL)
		} else if err != nil {
			return err
		}
		var absent absentError
		for _, ref := range info.References {
			if ref == info.Path || local[ref] {
				continue
			}
			if there, err := tx.Has(ref); err != nil {
				return err
			} else if !there {
				absent = append(absent, ref)
			}
		}
		if absent != nil {
			return absent
		}
		return nil
	})
}

// decide returns the record that a narinfo makes of old, nil where there is none.
func (s *Store) decide(old *index.Record, info *narinfo.Info, by string) (*index.Record, error) {
	if old == nil {
		info = info.Clone()
		if err := s.likeLocal(info); err != nil {
			return nil, err
		}
		return &index.Record{Info: info, By: by}, nil
	}
	if differs := differences(old.Info, info); differs != "" {
		if by = old.By; by != "" {
			by = " by " + by
		}
		return nil, refusal.New(refusal.Conflict, "%s was uploaded %s%s with another content: %s; the first upload of a path stays", info.Path, old.Uploaded.UTC().Format(time.RFC3339), by, differs)
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

// absentError are references that are no uploads.
type absentError []narinfo.Path

func (absentError) Error() string { return "references are not uploaded" }

// checkLocal looks for references that are no uploads in the local store: the cache
// holds closures and not pieces. Clients upload references first and remember for 30
// days what a cache had, so one that is missing was lost here, and only --refresh
// makes them look.
func (s *Store) checkLocal(i *narinfo.Info, refs []narinfo.Path, local map[narinfo.Path]bool, hold holdFunc) error {
	var missing []string
	var loose []narinfo.Path
	for _, ref := range refs {
		local[ref] = true
		held, err := hold(context.Background(), ref)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, string(ref))
		case err != nil && !s.AllowIncomplete:
			return err
		case err == nil && !held:
			loose = append(loose, ref)
		}
	}
	if len(missing) == 0 || s.AllowIncomplete {
		if loose != nil {
			return &LooseError{loose}
		}
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

// merge adds to a stored record what a second upload of the same path brings.
// What no signature covers stays as the first uploader had it: a wrong CA added
// to a path would make every client refuse it.
func (s *Store) merge(old *index.Record, sent *narinfo.Info) (*index.Record, error) {
	i := old.Info.Clone()
	for _, sig := range sent.Sigs {
		if !slices.Contains(i.Sigs, sig) {
			i.Sigs = append(i.Sigs, sig)
		}
	}
	if len(i.Sigs) > MaxSignatures && len(i.Sigs) > len(old.Info.Sigs) {
		return nil, refusal.New(refusal.Signature, "%s has %d signatures in this cache, it keeps at most %d", i.Path, len(old.Info.Sigs), MaxSignatures)
	}
	slices.Sort(i.Sigs)
	if i.Deriver == "" {
		i.Deriver = sent.Deriver
	}
	next := old.With(i)
	if sent.URL != i.URL {
		if _, err := s.Files.Stat(i.URL); errors.Is(err, fs.ErrNotExist) {
			// Our file is lost: the new one heals the path.
			i.URL, i.Compression, i.FileHash, i.FileSize = sent.URL, sent.Compression, sent.FileHash, sent.FileSize
			next = old.With(i)
		} else if !slices.Contains(old.Alternates, sent.URL) {
			next.Alternates = append(next.Alternates, sent.URL)
		}
	}
	return next, nil
}

// Has returns nil if a local store has a path, fs.ErrNotExist if not.
func Has(local LocalStore, p narinfo.Path) error {
	info, err := local.Info(context.Background(), p.Hash())
	if err == nil && info.Path != p {
		return fs.ErrNotExist
	}
	return err
}

// likeLocal refuses an upload of a path that the local store, or an upstream, has with
// another content: clients have seen that one here. Of the same, it adds the signatures
// that the store has. A store that cannot be read now keeps nobody from
// uploading.
func (s *Store) likeLocal(info *narinfo.Info) error {
	l, err := s.Local.Info(context.Background(), info.Path.Hash())
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.Log.Warn("an upload could not be compared with the local store", "path", info.Path, "error", err)
		}
		return nil
	}
	if differs := differences(l, info); differs != "" {
		return refusal.New(refusal.Conflict, "%s is in this cache's own store, or at an upstream of it, with another content: %s; the first stays: rebuild with this cache as substituter", info.Path, differs)
	}
	for _, sig := range l.Sigs {
		if len(info.Sigs) < MaxSignatures && !slices.Contains(info.Sigs, sig) {
			info.Sigs = append(info.Sigs, sig)
		}
	}
	slices.Sort(info.Sigs)
	return nil
}
