package nixos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"narwharf/narinfo"
	"narwharf/narinfo/clip"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/signing"
)

// A Stager brings closures into the store, and sees that they are what the
// promoter signed.
type Stager struct {
	Host        Host
	StoreDir    string
	ContentKeys []signing.PublicKey // whose signatures make a path good that is here
	Downloads   []signing.PublicKey // and one that is fetched, says Nix; nil: it is not asked
	Foreign     Foreign
	MinFree     int64
}

// errReject marks what another try would not cure.
type errReject struct{ error }

func (e errReject) Unwrap() error { return e.error }

func (s *Stager) manifest(ctx context.Context, d signing.Digest, root string) (*signing.Manifest, narinfo.Path, error) {
	p, err := narinfo.ParsePath(s.StoreDir, root)
	if err != nil {
		return nil, "", err
	}
	text, err := s.Host.Manifest(ctx, d)
	if err != nil {
		return nil, "", fmt.Errorf("fetch the closure manifest: %w", err)
	}
	m, err := signing.ParseManifest(text, d, p)
	if err != nil {
		return nil, "", err
	}
	if m.StoreDir != s.StoreDir { // the entry's, as the machine saw to it
		return nil, "", errReject{fmt.Errorf("the closure manifest is of a store in %s, the entry of one in %s", m.StoreDir, s.StoreDir)}
	}
	return m, p, nil
}

// survey compares the store with the manifest. Paths that differ and that an
// earlier try of this attempt imported are bad.
func (s *Stager) survey(ctx context.Context, m *signing.Manifest, imported []narinfo.Path) (missing []signing.Line, bad []narinfo.Path, differs []string, err error) {
	var refused []string
	for _, l := range m.Lines {
		have, err := s.Host.Path(ctx, l.Path)
		switch {
		case err != nil:
			return nil, nil, nil, fmt.Errorf("look up %s in the store: %w", l.Path, err)
		case have == nil:
			missing = append(missing, l)
		case signing.LineOf(have.Info).Equal(l):
		case among(imported, l.Path):
			bad = append(bad, l.Path)
		default:
			differs = append(differs, l.Path.In(s.StoreDir))
			if !s.acceptable(have) {
				refused = append(refused, l.Path.In(s.StoreDir))
			}
		}
	}
	if len(refused) > 0 {
		why := "neither built here nor content-addressed nor signed by a content key"
		if s.Foreign == ForeignExact {
			why = "and foreign_paths is exact"
		}
		err = errReject{fmt.Errorf("%d paths are here with other bytes than the release has, %s: %s; delete them (nix-store --delete), then narwharf host retry", len(refused), why, clip.List(refused))}
	}
	return missing, bad, differs, err
}

func (s *Stager) acceptable(p *StorePath) bool {
	if s.Foreign == ForeignExact {
		return false
	}
	if p.Ultimate || p.CA != "" {
		return true
	}
	_, ok := signing.VerifyAny(p.AppendFingerprint(nil), p.Sigs, s.ContentKeys)
	return ok
}

// Prepare checks everything that can be known without a download.
func (s *Stager) Prepare(ctx context.Context, e effect.Prepare, current string) effect.Prepared {
	var ev effect.Prepared
	ev.Err, ev.Reject = inWords(s.prepare(ctx, e, current, &ev))
	return ev
}

// inWords is an error in words, and whether another try would come to the same.
func inWords(err error) (text string, reject bool) {
	return words(err), errors.As(err, new(errReject))
}

func (s *Stager) prepare(ctx context.Context, e effect.Prepare, current string, ev *effect.Prepared) error {
	if current != "" { // the root "target" may be all that protects it so far
		if err := s.Host.Root(ctx, RootPrevious, current); err != nil {
			return fmt.Errorf("protect the running system: %w", err)
		}
	}
	m, _, err := s.manifest(ctx, e.Closure, e.Root)
	if err != nil {
		return err
	}
	if err := s.reread(ctx, m, e, ev); err != nil {
		return err
	}
	missing, bad, differs, err := s.survey(ctx, m, e.Imported)
	ev.Differs = differs
	if err != nil {
		return err
	}
	if len(bad) > 0 {
		return s.poisoned(ctx, m, e.Imported, bad)
	}
	found, err := s.ask(ctx, missing)
	ev.Missing, ev.Bytes = found.paths, found.packed
	return err
}

// A download is what is missing, and what the cache says of it.
type download struct {
	paths            []narinfo.Path
	packed, unpacked int64 // bytes
}

// ask holds what the cache has of missing paths against their lines, and their size against
// the disk.
func (s *Stager) ask(ctx context.Context, missing []signing.Line) (d download, err error) {
	if len(missing) == 0 {
		return d, nil
	}
	for _, l := range missing {
		d.paths = append(d.paths, l.Path)
		d.unpacked += l.NarSize
	}
	free, err := s.Host.Free(ctx)
	if err != nil {
		return d, fmt.Errorf("ask for the free space of the store: %w", err)
	}
	if free < d.unpacked+s.MinFree {
		return d, fmt.Errorf("the closure needs %d MiB more in the store, %d MiB are free and %d MiB stay free by min_free", d.unpacked>>20, free>>20, s.MinFree>>20)
	}
	var infos []*narinfo.Info // of a few paths: each may have a mebibyte, if a cache makes signatures up
	for i, l := range missing {
		if i%64 == 0 {
			if infos, err = s.Host.Narinfos(ctx, d.paths[i:min(i+64, len(missing))]); err != nil {
				return d, fmt.Errorf("ask the cache for the closure: %w", err)
			}
		}
		got := infos[i%64]
		if got.StoreDir != s.StoreDir || !signing.LineOf(got).Equal(l) {
			return d, fmt.Errorf("the cache has other bytes for %s than the promoter signed: nothing was fetched", l.Path)
		}
		_, signed := signing.VerifyAny(got.AppendFingerprint(nil), got.Sigs, s.Downloads)
		if got.CA == "" && s.Downloads != nil && !signed {
			return d, fmt.Errorf("%s lacks a signature by a key whose bytes this host believes %v: nothing was fetched; let CI sign it, or add the key that did to content_keys",
				l.Path, s.Downloads)
		}
		d.packed += got.FileSize
	}
	return d, nil
}

// reread looks at what a power cut may have damaged: Nix writes a path without
// a sync (fsync-store-paths is off), and its database with one. So a path can
// be valid and empty.
func (s *Stager) reread(ctx context.Context, m *signing.Manifest, e effect.Prepare, ev *effect.Prepared) error {
	var bad []narinfo.Path
	for _, p := range e.Suspect {
		have, err := s.Host.Path(ctx, p)
		if err != nil {
			return fmt.Errorf("look up %s in the store: %w", p, err)
		}
		if have == nil {
			ev.Verified = append(ev.Verified, p)
			continue
		}
		if _, ok := m.Find(p); !ok {
			continue // of another release
		}
		good, err := s.Host.Verify(ctx, p)
		switch {
		case err != nil:
			return fmt.Errorf("verify %s, which was fetched before a power cut: %w", p, err)
		case good:
			ev.Verified = append(ev.Verified, p)
		default:
			bad = append(bad, p)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	if err := s.discard(ctx, m, journal.Set(e.Imported, e.Suspect), bad); err != nil {
		return err
	}
	ev.Verified = append(ev.Verified, bad...)
	return nil
}

// Realise downloads the closure, compares all of it, and protects it. After
// it the bytes are on the disk.
func (s *Stager) Realise(ctx context.Context, e effect.Realise) effect.Realised {
	var ev effect.Realised
	ev.Err, ev.Reject = inWords(s.realise(ctx, e, &ev))
	return ev
}

func (s *Stager) realise(ctx context.Context, e effect.Realise, ev *effect.Realised) error {
	m, root, err := s.manifest(ctx, e.Closure, e.Root)
	if err != nil {
		return err
	}
	realised := s.Host.Realise(ctx, root, RootTarget, m.Lines)
	// Also what a failed realise left behind is looked at.
	missing, bad, differs, err := s.survey(ctx, m, e.Imported)
	ev.Differs = differs
	switch {
	case len(bad) > 0:
		return s.poisoned(ctx, m, e.Imported, bad)
	case realised != nil:
		return fmt.Errorf("fetch the closure: %w", realised)
	case err != nil:
		return err
	case len(missing) == 0:
		err = s.keepsAgent(ctx, e.Root, e.Last)
	default:
		err = fmt.Errorf("%d paths of the closure are not there after the download, %s among them", len(missing), missing[0].Path)
	}
	if err != nil {
		return err
	}
	if err := s.Host.Sync(ctx); err != nil {
		return fmt.Errorf("make the closure durable: %w", err)
	}
	return nil
}

// keepsAgent refuses a system without an agent: nobody could lead the host on from it.
func (s *Stager) keepsAgent(ctx context.Context, path string, last bool) error {
	if why := s.Host.WithoutAgent(ctx, path); why != "" && !last {
		return errReject{fmt.Errorf("the system is without the agent: %s. The host would be lost; if it is meant to be the last, promote it with --last", why)}
	}
	return nil
}

// poisoned deletes paths that came with other bytes, and says so.
func (s *Stager) poisoned(ctx context.Context, m *signing.Manifest, imported, bad []narinfo.Path) error {
	if err := s.discard(ctx, m, imported, bad); err != nil {
		return err
	}
	return fmt.Errorf("%d paths came with other bytes than the promoter signed (%s) and were deleted", len(bad), pathText(bad))
}

// discard deletes bad paths, and what was imported and refers to them.
func (s *Stager) discard(ctx context.Context, m *signing.Manifest, imported, bad []narinfo.Path) error {
	gone := make(map[narinfo.Path]bool)
	for _, p := range bad {
		gone[p] = true
	}
	isGone := func(p narinfo.Path) bool { return gone[p] }
	for before := 0; before < len(gone); {
		before = len(gone)
		for _, l := range m.Lines {
			if among(imported, l.Path) && slices.ContainsFunc(l.References, isGone) {
				gone[l.Path] = true
			}
		}
	}
	var paths []narinfo.Path
	for _, p := range slices.Sorted(maps.Keys(gone)) {
		if have, err := s.Host.Path(ctx, p); err != nil {
			return fmt.Errorf("look up %s in the store: %w", p, err)
		} else if have != nil {
			paths = append(paths, p)
		}
	}
	if err := s.Host.Unroot(ctx, RootTarget); err != nil {
		return fmt.Errorf("delete paths with wrong bytes: %w", err)
	}
	if err := s.Host.Delete(ctx, paths); err != nil {
		return fmt.Errorf("delete paths with wrong bytes (%s): %w", pathText(paths), err)
	}
	return nil
}

// among looks a path up in a sorted list.
func among(paths []narinfo.Path, p narinfo.Path) bool {
	_, ok := slices.BinarySearch(paths, p)
	return ok
}

func pathText(paths []narinfo.Path) string {
	var s []string
	for _, p := range paths {
		s = append(s, string(p))
	}
	return clip.List(s)
}

// Foreign says what to do about a path that is valid on the host with other
// bytes than the release has.
type Foreign string

// The rules for foreign paths.
const (
	// ForeignSigned takes it if it was built here, is content-addressed, or is
	// signed by a content key; it is listed in the status.
	ForeignSigned Foreign = "signed"
	// ForeignExact rejects the release.
	ForeignExact Foreign = "exact"
)
