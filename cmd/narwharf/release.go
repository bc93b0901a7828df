package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"narwharf/cache/nixstore"
	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/signing"
)

// entries turns what was typed into the entries of the release.
func (p *promoter) entries(ctx context.Context, args []string) ([]leaf, error) {
	action := signing.Action(p.f.action)
	if !slices.Contains(signing.Actions, action) {
		return nil, fmt.Errorf("--action %q is none of %v", action, signing.Actions)
	}
	store, err := p.openStore()
	if err != nil {
		return nil, err
	}
	if store != nil {
		defer store.Close()
	}
	if len(p.f.set) > 0 {
		if len(args) > 0 || p.f.targets != "" {
			return nil, errors.New("--set changes targets of the last release: it goes with no other paths")
		}
		return p.setEntries(ctx, store, action)
	}
	typed, err := p.typedTargets(store, args)
	if err != nil {
		return nil, err
	}
	var entries []leaf
	for _, target := range slices.Sorted(maps.Keys(typed)) {
		e, err := p.entry(ctx, store, target, typed[target], action)
		if err != nil {
			return nil, err
		}
		l, err := newLeaf(*e)
		if err != nil {
			return nil, err
		}
		entries = append(entries, l)
	}
	return entries, nil
}

// typedTargets reads targets and paths from arguments or --targets.
func (p *promoter) typedTargets(store *nixstore.Store, args []string) (map[string]string, error) {
	typed := make(map[string]string)
	switch {
	case p.f.targets != "" && len(args) > 0:
		return nil, errors.New("--targets names all paths: it goes with no others")
	case p.f.targets != "":
		in := io.Reader(os.Stdin)
		if p.f.targets != "-" {
			f, err := os.Open(p.f.targets)
			if err != nil {
				return nil, fmt.Errorf("--targets: %w", err)
			}
			defer f.Close()
			in = f
		}
		if err := json.NewDecoder(in).Decode(&typed); err != nil {
			return nil, fmt.Errorf("--targets: not JSON of the form {\"host\": \"/nix/store/…\"}: %w", err)
		}
	case len(args) == 0:
		return nil, errors.New("say what to promote: a path, TARGET=PATH, --targets or --set")
	case len(args) == 1 && !strings.Contains(args[0], "="):
		links, err := p.linkFarm(store, args[0])
		if err != nil {
			return nil, err
		}
		if links != nil {
			return links, nil
		}
		typed[signing.Everyone] = args[0]
	default:
		for _, a := range args {
			target, path, ok := strings.Cut(a, "=")
			if !ok {
				return nil, fmt.Errorf("%q is not of the form TARGET=PATH", a)
			}
			if typed[target] != "" {
				return nil, fmt.Errorf("target %s is there twice", target)
			}
			typed[target] = path
		}
	}
	if len(typed) == 0 {
		return nil, errors.New("there are no targets in it")
	}
	return typed, nil
}

// linkFarm reads a folder whose entries are links to systems, named for their
// targets; nil if path is not one. A system itself has a nixos-version.
func (p *promoter) linkFarm(store *nixstore.Store, path string) (map[string]string, error) {
	if store == nil {
		return nil, nil
	}
	base, rest, err := store.Resolve(path)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(store.RealPath(base), rest)
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
		if err != nil {
			return nil, nil //nolint:nilerr // something else than links: no farm
		}
		system, err := narinfo.ParsePath(p.f.storeDir, to)
		if err != nil {
			return nil, nil //nolint:nilerr // links elsewhere: no farm
		}
		if _, err := os.Lstat(filepath.Join(store.RealPath(system), "nixos-version")); err != nil {
			return nil, nil //nolint:nilerr // links to other things: no farm
		}
		farm[l.Name()] = to
	}
	return farm, nil
}

// setEntries takes the last release over and changes what --set names.
func (p *promoter) setEntries(ctx context.Context, store *nixstore.Store, action signing.Action) ([]leaf, error) {
	if p.baseHead == nil {
		return nil, fmt.Errorf("--set changes the last release, and channel %s has none", p.channel)
	}
	base, err := readLeaves(p.baseRaw)
	if err != nil {
		return nil, err
	}
	byTarget := make(map[string]leaf)
	for _, l := range base {
		byTarget[l.Target] = l
	}
	if _, everyone := byTarget[signing.Everyone]; everyone {
		return nil, fmt.Errorf("the last release of %s has one system for all hosts: there are no targets to --set; promote TARGET=PATH for each", p.channel)
	}
	for _, kv := range p.f.set {
		target, path, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, fmt.Errorf("--set %q is not of the form TARGET=PATH", kv)
		}
		e, err := p.entry(ctx, store, target, path, action)
		if err != nil {
			return nil, err
		}
		if byTarget[target], err = newLeaf(*e); err != nil {
			return nil, err
		}
	}
	var entries []leaf
	for _, target := range slices.Sorted(maps.Keys(byTarget)) {
		entries = append(entries, byTarget[target])
	}
	return entries, nil
}

func (p *promoter) openStore() (*nixstore.Store, error) {
	if p.f.fromCache {
		return nil, nil
	}
	store, err := nixstore.Open(nixstore.Options{StoreDir: p.f.storeDir, Root: p.f.storeRoot})
	if err != nil {
		return nil, fmt.Errorf("the local store: %w; on a machine without one use --from-cache", err)
	}
	return store, nil
}

// entry makes the entry of a target: which path, which bytes, which system.
func (p *promoter) entry(ctx context.Context, store *nixstore.Store, target, typed string, action signing.Action) (*signing.Entry, error) {
	e := &signing.Entry{Target: target, Action: action}
	if err := signing.CheckTarget(target); err != nil {
		return nil, err
	}
	var path narinfo.Path
	var infos []*narinfo.Info
	var err error
	if store == nil {
		if path, err = narinfo.ParsePath(p.f.storeDir, typed); err != nil {
			return nil, fmt.Errorf("target %s: %w", target, err)
		}
		infos, err = p.cacheClosure(ctx, path)
		e.System = p.f.system(target)
	} else {
		var rest string
		if path, rest, err = store.Resolve(typed); err != nil {
			return nil, fmt.Errorf("target %s: %w", target, err)
		}
		if rest != "" {
			return nil, fmt.Errorf("target %s: %s is inside of the store path %s: promote the path itself", target, typed, path)
		}
		if infos, err = store.Closure(ctx, path); err == nil {
			e.System, err = localSystem(store.RealPath(path))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", target, err)
	}
	m, err := signing.NewManifest(infos)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", target, err)
	}
	e.StorePath, e.Closure = path.In(p.f.storeDir), m.Digest()
	p.manifest[e.Closure] = m
	if e.System == "" {
		e.System = p.f.system(target)
	}
	p.lint(store, path, target)
	return e, nil
}

// lint warns of a system that calls itself something else than its target.
func (p *promoter) lint(store *nixstore.Store, path narinfo.Path, target string) {
	if store == nil || target == signing.Everyone || strings.Contains(target, ":") {
		return
	}
	name, err := os.ReadFile(filepath.Join(store.RealPath(path), "etc", "hostname"))
	if err == nil && strings.TrimSpace(string(name)) != target {
		fmt.Fprintf(p.cmd.ErrOrStderr(), "warning: the system for %s calls itself %s\n", target, strings.TrimSpace(string(name)))
	}
}

// localSystem reads a toplevel's system, "" if it is no NixOS system.
func localSystem(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, "system"))
	if errors.Is(err, os.ErrNotExist) || err != nil && isNotDir(err) {
		return "", nil
	}
	return strings.TrimSpace(string(text)), err
}

func isNotDir(err error) bool { return strings.Contains(err.Error(), "not a directory") }

// system is what --system says, for paths that do not say it themselves.
func (f *promoteFlags) system(string) string {
	if f.systemFlag != "" {
		return f.systemFlag
	}
	return hostSystem()
}

// cacheClosure walks the narinfos of the cache, each of which must be signed.
func (p *promoter) cacheClosure(ctx context.Context, root narinfo.Path) ([]*narinfo.Info, error) {
	var infos []*narinfo.Info
	seen := map[narinfo.Path]bool{root: true}
	todo := []narinfo.Path{root}
	for len(todo) > 0 {
		path := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		info, err := p.signedInfo(ctx, path)
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
		for _, ref := range info.References {
			if !seen[ref] {
				seen[ref] = true
				todo = append(todo, ref)
			}
		}
	}
	return infos, nil
}

// signedInfo reads a narinfo of the cache and verifies it with the content keys.
func (p *promoter) signedInfo(ctx context.Context, path narinfo.Path) (*narinfo.Info, error) {
	info, err := p.api.Narinfo(ctx, path)
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
	if _, ok := signing.VerifyAny(info.AppendFingerprint(nil), info.Sigs, p.contentKeys); !ok {
		return nil, fmt.Errorf("the cache's narinfo of %s has no good signature by a content key", path)
	}
	return info, nil
}
