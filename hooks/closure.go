package hooks

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"narwharf/hooks/api"
	"narwharf/hooks/longpoll"
	"narwharf/narinfo"
	"narwharf/signing"
	"narwharf/signing/access"
)

// closure is a closure as the cache holds it.
type closure struct {
	manifest *signing.Manifest
	stored   bool // its manifest is among the files already
}

const (
	maxListed  = 100 // missing paths and differences that an error lists
	maxClosure = 200_000
)

// checkClosures sees to it that every entry's closure is in the cache, whole,
// and byte for byte what was signed. It returns them by digest.
func (s *Server) checkClosures(entries []signing.Entry) (map[signing.Digest]*closure, error) {
	done := make(map[signing.Digest]*closure)
	known := make(map[narinfo.Path]*narinfo.Info) // targets share most of their paths
	var missing []api.Missing
	var differs []api.Difference
	var unknown []string
	for _, e := range entries {
		if done[e.Closure] != nil {
			if root, err := e.Path(); err == nil && done[e.Closure].manifest.Lines != nil {
				if _, ok := done[e.Closure].manifest.Find(root); ok {
					continue
				}
			}
		}
		root, err := e.Path()
		if err != nil {
			return nil, api.Errorf(api.Invalid, "%v", err)
		}
		infos, lost, err := s.walk(root, known)
		if err != nil {
			return nil, err
		}
		if len(lost) > 0 {
			missing = append(missing, api.Missing{Target: e.Target, Count: len(lost), Paths: lost[:min(len(lost), maxListed)]})
			continue
		}
		ours, err := signing.NewManifest(infos)
		if err != nil {
			return nil, err
		}
		if ours.StoreDir != e.StoreDir() {
			return nil, api.Errorf(api.Invalid, "%s is not in %s, the store of this cache", e.StorePath, ours.StoreDir)
		}
		if ours.Digest() == e.Closure {
			_, err := s.files.Read(closureName(e.Closure), signing.MaxManifest)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			done[e.Closure] = &closure{ours, err == nil}
			continue
		}
		// Only the promoter's own manifest tells where the two differ.
		text, err := s.files.Read(closureName(e.Closure), signing.MaxManifest)
		if errors.Is(err, fs.ErrNotExist) {
			unknown = append(unknown, e.Closure.String())
			continue
		}
		if err != nil {
			return nil, err
		}
		theirs, err := signing.ParseManifest(text, e.Closure, root)
		if err != nil {
			return nil, api.Errorf(api.Invalid, "%v", err)
		}
		differs = append(differs, s.compare(e, theirs, ours)...)
	}
	switch {
	case len(missing) > 0:
		err := api.Errorf(api.ClosureIncomplete, "%s", incompleteText(missing))
		err.Missing = missing
		return nil, err
	case len(differs) > 0:
		err := api.Errorf(api.ClosureDiffers, "%s", differsText(differs))
		err.Differs = differs[:min(len(differs), maxListed)]
		return nil, err
	case len(unknown) > 0:
		err := api.Errorf(api.ManifestMissing, "the cache holds other closures than were signed; send the manifests (PUT /api/v1/closures/<sha256>) and promote again to see where they differ")
		err.Closures = unknown
		return nil, err
	}
	return done, nil
}

// walk collects the closure of root from the cache. lost are paths that are
// referred to and not there, or whose bytes are gone.
func (s *Server) walk(root narinfo.Path, known map[narinfo.Path]*narinfo.Info) (infos []*narinfo.Info, lost []narinfo.Path, err error) {
	seen := map[narinfo.Path]bool{root: true}
	todo := []narinfo.Path{root}
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		info := known[p]
		if info == nil {
			i, _, _, err := s.cache.Info(p.Hash())
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, nil, err
			}
			if err != nil || i.Path != p || !s.cache.HasBytes(i) {
				lost = append(lost, p)
				continue
			}
			info = i
			known[p] = i
		}
		if infos = append(infos, info); len(infos) > maxClosure {
			return nil, nil, api.Errorf(api.Invalid, "the closure of %s has more than %d paths", root, maxClosure)
		}
		for _, ref := range info.References {
			if !seen[ref] {
				seen[ref] = true
				todo = append(todo, ref)
			}
		}
	}
	return infos, lost, nil
}

// compare lists the paths of which promoter and cache hold other bytes.
func (s *Server) compare(e signing.Entry, theirs, ours *signing.Manifest) (list []api.Difference) {
	for _, l := range theirs.Lines {
		o, ok := ours.Find(l.Path)
		if ok && l.Equal(o) {
			continue
		}
		d := api.Difference{Target: e.Target, StorePath: l.Path.In(theirs.StoreDir), Yours: lineText(theirs.StoreDir, l)}
		if info, at, by, err := s.cache.Info(l.Path.Hash()); err == nil {
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
	text := fmt.Sprintf("the closure of target %s is not complete in this cache: %d paths are missing, %s first", m.Target, m.Count, m.Paths[0])
	if n := len(missing) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more targets)", n)
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

// checkSystems sees to it that what hosts are told to switch to is a NixOS
// system of the kind that the entry says.
func (s *Server) checkSystems(entries []signing.Entry) error {
	checked := make(map[string]string) // store path -> system
	for _, e := range entries {
		system, ok := checked[e.StorePath]
		if !ok {
			root, err := e.Path()
			if err != nil {
				return err
			}
			files, err := s.cache.Peek(root.Hash(), []string{"nixos-version", "system", "bin/switch-to-configuration"}, 4096)
			if err != nil {
				return err
			}
			for _, name := range []string{"nixos-version", "bin/switch-to-configuration", "system"} {
				if _, ok := files[name]; !ok {
					return api.Errorf(api.NotASystem, "%s (target %s) is not a NixOS system: it has no %s; promote system.build.toplevel, or make the channel one of --kind path", e.StorePath, e.Target, name)
				}
			}
			system = strings.TrimSpace(string(files["system"]))
			checked[e.StorePath] = system
		}
		if system != e.System {
			return api.Errorf(api.NotASystem, "%s (target %s) is a system for %q, the entry says %q", e.StorePath, e.Target, system, e.System)
		}
	}
	return nil
}

// getClosure serves a manifest. It is immutable.
func (s *Server) getClosure(c *call) error {
	if err := c.need(access.Scope{Kind: access.Pull}); err != nil {
		return err
	}
	d, err := closureParam(c)
	if err != nil {
		return err
	}
	text, err := s.files.Read(closureName(d), signing.MaxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return api.Errorf(api.NotFound, "there is no closure manifest %s here", d)
	}
	if err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Etag", `"`+d.Hex()+`"`)
	if longpoll.Matches(c.req.Header.Get("If-None-Match"), `"`+d.Hex()+`"`) {
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	longpoll.WriteJSON(c.w, http.StatusOK, text)
	return nil
}

// closureParam reads 64 hex digits, with or without "sha256:".
func closureParam(c *call) (signing.Digest, error) {
	d, err := signing.ParseDigest("sha256:" + strings.TrimPrefix(c.param("digest"), "sha256:"))
	if err != nil {
		return d, api.Errorf(api.BadRequest, "a closure manifest is named by 64 hex digits: %v", err)
	}
	return d, nil
}

// putClosure takes a manifest that a promoter wants to be compared.
func (s *Server) putClosure(c *call) error {
	if err := c.need(access.Scope{Kind: access.Push}, access.Scope{Kind: access.Promote, Glob: "*"}); err != nil && !c.mayPromoteSome() {
		return err
	}
	d, err := closureParam(c)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(http.MaxBytesReader(c.w, c.req.Body, signing.MaxManifest))
	if tooBig := new(http.MaxBytesError); errors.As(err, &tooBig) {
		return err
	}
	if err != nil {
		return api.Errorf(api.BadRequest, "the body ended early: %v", err)
	}
	if len(text) == 0 {
		return api.Errorf(api.BadRequest, "the body is empty, it should be a closure manifest")
	}
	if len(strings.TrimSpace(string(text))) == 2 && strings.TrimSpace(string(text)) == "{}" {
		return api.Errorf(api.BadRequest, "the body is not a closure manifest: it has a line for each path, see docs/formats.md")
	}
	m, err := signing.ReadManifest(text)
	if err != nil {
		return api.Errorf(api.Invalid, "%v", err)
	}
	if m.Digest() != d {
		return api.Errorf(api.Invalid, "the manifest has the digest %s and was sent as %s", m.Digest(), d)
	}
	if _, err := s.files.Read(closureName(d), signing.MaxManifest); errors.Is(err, fs.ErrNotExist) {
		if err := s.files.Write(closureName(d), text); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	longpoll.WriteJSON(c.w, http.StatusCreated, nil)
	return nil
}

// mayPromoteSome tells whether the caller may promote any channel at all.
func (c *call) mayPromoteSome() bool {
	for _, sc := range c.who.Scopes {
		if sc.Kind == access.Promote || sc.Kind == access.Admin {
			return true
		}
	}
	return false
}
