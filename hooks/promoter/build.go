package promoter

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"narwharf/cache/nixstore"
	"narwharf/cache/state/progress"
	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/narinfo/clip"
	"narwharf/signing"
)

// A Release is the targets of a channel with what each shall run, not signed yet.
type Release struct {
	entries   []leaf // by target
	manifests map[signing.Digest]*signing.Manifest
	rollback  bool
}

// A leaf is an entry with its bytes. Those of an earlier release stay as they
// are: hosts know an entry by its bytes, and a newer narwharf may have written
// fields into it that this one does not know.
type leaf struct {
	signing.Entry
	raw []byte
}

func newLeaf(e signing.Entry) (leaf, error) {
	raw, err := json.Marshal(e)
	return leaf{e, raw}, err
}

func readLeaves(raw [][]byte) ([]leaf, error) {
	var leaves []leaf
	for _, r := range raw {
		e, err := signing.ParseEntry(r)
		if err != nil {
			return nil, err
		}
		leaves = append(leaves, leaf{*e, r})
	}
	return leaves, nil
}

// Build makes a release of a path for each target. Paths are store paths, or links
// to them.
func (p *Promoter) Build(ctx context.Context, paths map[string]string) (*Release, error) {
	return p.build(ctx, false, func(b *builder) error { return b.add(ctx, paths) })
}

// BuildPath makes a release of one path for all hosts; if it is a folder of links
// to systems, each is for the target that it is named for.
func (p *Promoter) BuildPath(ctx context.Context, path string) (*Release, error) {
	return p.build(ctx, false, func(b *builder) error {
		paths, err := b.linkFarm(path)
		if err != nil {
			return err
		}
		if paths == nil {
			paths = map[string]string{signing.Everyone: path}
		}
		return b.add(ctx, paths)
	})
}

// Change takes the last release and replaces the paths of some targets.
func (p *Promoter) Change(ctx context.Context, paths map[string]string) (*Release, error) {
	return p.build(ctx, true, func(b *builder) error {
		if p.baseHead == nil {
			return fmt.Errorf("--set changes the last release, and channel %s has none", p.Channel)
		}
		last, err := readLeaves(p.baseRaw)
		if err != nil {
			return err
		}
		for _, l := range last {
			if l.Target == signing.Everyone {
				return fmt.Errorf("the last release of %s has one system for all hosts: there are no targets to --set; promote TARGET=PATH for each", p.Channel)
			}
			b.entries[l.Target] = l
		}
		return b.add(ctx, paths)
	})
}

func (p *Promoter) build(ctx context.Context, entriesToo bool, fill func(*builder) error) (*Release, error) {
	if err := p.readBase(ctx, entriesToo); err != nil {
		return nil, err
	}
	if !slices.Contains(signing.Actions, p.Action) {
		return nil, fmt.Errorf("--action %q is none of %v", p.Action, signing.Actions)
	}
	b := &builder{Promoter: p, entries: make(map[string]leaf), manifests: make(map[signing.Digest]*signing.Manifest)}
	if !p.FromCache {
		store, err := nixstore.Open(nixstore.Options{StoreDir: p.StoreDir, Root: p.StoreRoot})
		if err != nil {
			return nil, fmt.Errorf("%w; on a machine without one use --from-cache", err)
		}
		defer store.Close()
		b.store = store
	}
	if err := fill(b); err != nil {
		return nil, err
	}
	r := &Release{manifests: b.manifests}
	for _, target := range slices.Sorted(maps.Keys(b.entries)) {
		r.entries = append(r.entries, b.entries[target])
	}
	return r, nil
}

// A builder collects the entries of a release.
type builder struct {
	*Promoter
	store     *nixstore.Store // nil: from the cache
	read      int64           // narinfos
	entries   map[string]leaf // by target
	manifests map[signing.Digest]*signing.Manifest
}

// add makes entries, and replaces those that are there.
func (b *builder) add(ctx context.Context, paths map[string]string) error {
	if len(paths) == 0 {
		return errors.New("there are no targets in it")
	}
	for _, target := range slices.Sorted(maps.Keys(paths)) {
		if err := signing.CheckTarget(target); err != nil {
			return err
		}
		e, err := b.entry(ctx, target, paths[target])
		if err != nil {
			return fmt.Errorf("target %s: %w", target, err)
		}
		if b.entries[target], err = newLeaf(*e); err != nil {
			return err
		}
	}
	return nil
}

// entry makes the entry of a target: which path, which bytes, which system.
func (b *builder) entry(ctx context.Context, target, typed string) (*signing.Entry, error) {
	var path narinfo.Path
	var infos []*narinfo.Info
	var system string
	var err error
	if b.store == nil {
		if path, err = narinfo.ParsePath(b.StoreDir, typed); err == nil {
			infos, err = narinfo.Closure(path, func(p narinfo.Path) (*narinfo.Info, error) {
				b.read++
				progress.Report(ctx, "narinfos read from the cache", b.read, 0)
				return b.signedInfo(ctx, p)
			})
		}
	} else {
		path, infos, system, err = b.fromStore(ctx, target, typed)
	}
	if err != nil {
		return nil, err
	}
	m, err := signing.NewManifest(infos)
	if err != nil {
		return nil, err
	}
	b.manifests[m.Digest()] = m
	return &signing.Entry{
		Target: target, Action: b.Action, Last: b.Last, StorePath: path.In(b.StoreDir), Closure: m.Digest(),
		System: cmp.Or(system, b.System, hostSystem()),
	}, nil
}

// fromStore reads the closure of a path out of the local store, and warns of a
// system that calls itself something else than its target.
func (b *builder) fromStore(ctx context.Context, target, typed string) (path narinfo.Path, infos []*narinfo.Info, system string, err error) {
	path, rest, err := b.store.Resolve(typed)
	if err == nil && rest != "" {
		err = fmt.Errorf("%s is inside of the store path %s: promote the path itself", typed, path)
	}
	if err == nil {
		infos, err = b.store.Closure(ctx, path)
	}
	if err != nil {
		return path, nil, "", err
	}
	dir := b.store.RealPath(path)
	text, err := os.ReadFile(filepath.Join(dir, "system"))
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return path, nil, "", err
	}
	if target != signing.Everyone && !strings.Contains(target, ":") {
		name, err := os.ReadFile(filepath.Join(dir, "etc", "hostname"))
		if err == nil && strings.TrimSpace(string(name)) != target {
			fmt.Fprintf(b.err, "warning: the system for %s calls itself %s\n", target, clip.Line(strings.TrimSpace(string(name)), 100))
		}
	}
	return path, infos, strings.TrimSpace(string(text)), nil
}

// linkFarm reads a folder whose entries are links to systems, named for their
// targets; nil if path is not one. A system itself has a nixos-version.
func (b *builder) linkFarm(path string) (map[string]string, error) {
	if b.store == nil {
		return nil, nil
	}
	dir := path
	base, rest, err := b.store.Resolve(path)
	switch st, statErr := os.Stat(path); {
	case err == nil:
		dir = filepath.Join(b.store.RealPath(base), rest)
	case !errors.Is(err, nixstore.ErrNotValid) || statErr != nil || !st.IsDir():
		return nil, err
	} // else a folder beside the store, as `nix build -o release/web-1` leaves it
	if _, err := os.Lstat(filepath.Join(dir, "nixos-version")); err == nil {
		return nil, nil
	}
	links, err := os.ReadDir(dir)
	if err != nil || len(links) == 0 {
		return nil, nil //nolint:nilerr // a single file is no farm
	}
	farm := make(map[string]string)
	for _, l := range links {
		to, err := os.Readlink(filepath.Join(dir, l.Name()))
		var system narinfo.Path
		if err == nil {
			system, err = narinfo.ParsePath(b.StoreDir, to)
		}
		if err == nil {
			_, err = os.Lstat(filepath.Join(b.store.RealPath(system), "nixos-version"))
		}
		if err != nil {
			return nil, nil //nolint:nilerr // something else than links to systems: no farm
		}
		farm[l.Name()] = to
	}
	return farm, nil
}

// hostSystem is Nix's name of this machine's kind.
func hostSystem() string {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i686"}[runtime.GOARCH]
	return cmp.Or(arch, runtime.GOARCH) + "-" + runtime.GOOS
}

// signedInfo reads a narinfo of the cache and verifies it with the content keys.
func (p *Promoter) signedInfo(ctx context.Context, path narinfo.Path) (*narinfo.Info, error) {
	info, err := p.Client.Narinfo(ctx, path)
	var e *api.Error
	if errors.As(err, &e) && e.Kind == api.NotFound {
		return nil, fmt.Errorf("%s is not in the cache: nix copy it first", path)
	}
	if err != nil {
		return nil, err
	}
	if info.Path != path {
		return nil, fmt.Errorf("the cache answers for %s with %s", path, info.Path)
	}
	if _, ok := signing.VerifyAny(info.AppendFingerprint(nil), info.Sigs, p.ContentKeys); !ok {
		return nil, fmt.Errorf("the cache's narinfo of %s has no good signature by a content key", path)
	}
	return info, nil
}
