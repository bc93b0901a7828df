package closure

import (
	"errors"
	"fmt"
	"io/fs"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/narinfo/clip"
	"narwharf/signing"
)

// Closure is a closure as the cache holds it.
type Closure struct {
	Manifest *signing.Manifest
	stored   bool // its manifest is among the files already
}

const (
	maxListed  = 100 // missing paths and differences that an error lists
	maxClosure = 200_000
)

// check is a look at the closures of a release.
type check struct {
	done    map[signing.Digest]*Closure
	known   map[narinfo.Path]*narinfo.Info // targets share most of their paths
	missing []api.Missing
	differs []api.Difference
	unknown []string
}

// Check sees to it that every entry's closure is in the cache, whole,
// and byte for byte what was signed. It returns them by digest.
func (c *Closures) Check(entries []signing.Entry) (map[signing.Digest]*Closure, error) {
	k := &check{done: make(map[signing.Digest]*Closure), known: make(map[narinfo.Path]*narinfo.Info)}
	for _, e := range entries {
		root, err := e.Path()
		if err != nil {
			return nil, api.Errorf(api.Invalid, "%v", err)
		}
		if cl := k.done[e.Closure]; cl != nil {
			if _, ok := cl.Manifest.Find(root); ok {
				continue
			}
		}
		if err := c.look(k, e, root); err != nil {
			return nil, err
		}
	}
	switch {
	case len(k.missing) > 0:
		err := api.Errorf(api.ClosureIncomplete, "%s", incompleteText(k.missing))
		err.Missing = k.missing
		return nil, err
	case len(k.differs) > 0:
		err := api.Errorf(api.ClosureDiffers, "%s", differsText(k.differs))
		err.Differs = k.differs[:min(len(k.differs), maxListed)]
		return nil, err
	case len(k.unknown) > 0:
		err := api.Errorf(api.ManifestMissing, "the cache holds other closures than were signed; send the manifests (PUT /api/v1/closures/<sha256>) and promote again to see where they differ")
		err.Closures = k.unknown
		return nil, err
	}
	return k.done, nil
}

func (c *Closures) look(k *check, e signing.Entry, root narinfo.Path) error {
	infos, lost, err := c.walk(root, k.known, c.cache.HasBytes)
	if err != nil {
		return err
	}
	if len(lost) > 0 {
		k.missing = append(k.missing, api.Missing{Target: e.Target, Count: len(lost), Paths: lost[:min(len(lost), maxListed)]})
		return nil
	}
	ours, err := signing.NewManifest(infos)
	if err != nil {
		return err
	}
	if ours.StoreDir != e.StoreDir() {
		return api.Errorf(api.Invalid, "%s is not in %s, the store of this cache", e.StorePath, ours.StoreDir)
	}
	text, err := c.files.Read(name(e.Closure), signing.MaxManifest)
	stored := err == nil
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case ours.Digest() == e.Closure:
		k.done[e.Closure] = &Closure{ours, stored}
		return nil
	case !stored: // only the promoter's own manifest tells where the two differ
		k.unknown = append(k.unknown, e.Closure.String())
		return nil
	}
	theirs, err := signing.ParseManifest(text, e.Closure, root)
	if err != nil {
		return api.Errorf(api.Invalid, "%v", err)
	}
	k.differs = append(k.differs, c.compare(e, theirs, ours)...)
	return nil
}

// walk collects the closure of root from the cache. lost are paths that are referred to
// and not there, or not good.
func (c *Closures) walk(root narinfo.Path, known map[narinfo.Path]*narinfo.Info, good func(*narinfo.Info) (bool, error)) (infos []*narinfo.Info, lost []narinfo.Path, err error) {
	n := 0
	infos, err = narinfo.Closure(root, func(p narinfo.Path) (*narinfo.Info, error) {
		if n++; n > maxClosure {
			return nil, api.Errorf(api.Invalid, "the closure of %s has more than %d paths", root, maxClosure)
		}
		if info := known[p]; info != nil {
			return info, nil
		}
		info, _, _, err := c.cache.Info(p.Hash())
		whole := false
		if err == nil && info.Path == p {
			whole, err = good(info)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if !whole {
			lost = append(lost, p)
			return nil, nil
		}
		known[p] = info
		return info, nil
	})
	return infos, lost, err
}

// indexed takes a path for good that the cache has an entry of.
func indexed(*narinfo.Info) (bool, error) { return true, nil }

// compare lists the paths of which promoter and cache hold other bytes.
func (c *Closures) compare(e signing.Entry, theirs, ours *signing.Manifest) (list []api.Difference) {
	for _, l := range theirs.Lines {
		o, ok := ours.Find(l.Path)
		if ok && l.Equal(o) {
			continue
		}
		d := api.Difference{Target: e.Target, StorePath: l.Path.In(theirs.StoreDir), Yours: lineText(theirs.StoreDir, l)}
		if info, at, by, err := c.cache.Info(l.Path.Hash()); err == nil {
			d.Ours = string(info.AppendFingerprint(nil))
			d.OurSigs, d.Uploaded, d.UploadedBy = info.Sigs, at, by
		}
		list = append(list, d)
	}
	return list
}

func lineText(storeDir string, l signing.Line) string {
	i := narinfo.Info{StoreDir: storeDir, Path: l.Path, NarHash: l.NarHash, NarSize: l.NarSize, References: l.References}
	return string(i.AppendFingerprint(nil))
}

func incompleteText(missing []api.Missing) string {
	m := missing[0]
	text := fmt.Sprintf("the closure of target %s is not complete in this cache: it lacks %s, %s first", m.Target, clip.Count(m.Count, "path"), m.Paths[0])
	if n := len(missing) - 1; n > 0 {
		text += " (and " + clip.Count(n, "more target") + ")"
	}
	return text + ": nix copy --refresh --to this cache, then promote again"
}

func differsText(differs []api.Difference) string {
	d := differs[0]
	by := ""
	if d.UploadedBy != "" {
		by = " by " + d.UploadedBy
	}
	text := fmt.Sprintf("%s here has other bytes than yours (uploaded %s%s)", d.StorePath, d.Uploaded.UTC().Format("2006-01-02 15:04"), by)
	if n := len(differs) - 1; n > 0 {
		text += fmt.Sprintf(", and so have %d more paths", n)
	}
	return text + ": rebuild with this cache as a substituter and always-allow-substitutes = true, or take the cache's bytes with narwharf promote --adopt (their narinfos must be signed by one of your content keys)"
}
