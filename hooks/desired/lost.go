package desired

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/channel"
	"narwharf/narinfo"
	"narwharf/signing"
)

// Needs returns the paths that the current releases of channels need, with the channels.
func (f *Fleet) Needs() (map[narinfo.Path][]string, error) {
	needs := make(map[narinfo.Path][]string)
	for _, c := range f.o.Channels.List() {
		now := f.o.Channels.Get(c.Channel)
		if now.Release == nil {
			continue
		}
		for _, e := range now.Entries {
			root, err := e.Path()
			if err != nil {
				return nil, err
			}
			for _, p := range f.closure(&e, root) {
				if !slices.Contains(needs[p], c.Channel) {
					needs[p] = append(needs[p], c.Channel)
				}
			}
		}
	}
	return needs, nil
}

// Systems returns the store paths that the current release of a channel names.
func (f *Fleet) Systems(name string) (roots []narinfo.Path, err error) {
	now := f.o.Channels.Get(name)
	if now.Release == nil {
		return nil, fmt.Errorf("there is no channel %s, or nothing was promoted to it", name)
	}
	for _, e := range now.Entries {
		root, err := e.Path()
		if err != nil {
			return nil, err
		}
		roots = append(roots, root)
	}
	return roots, nil
}

// closure is the paths of an entry, and the root alone where its manifest cannot be read:
// then fsck has that to say, too.
func (f *Fleet) closure(e *signing.Entry, root narinfo.Path) (paths []narinfo.Path) {
	m, err := f.manifest(e, root)
	if err != nil {
		return []narinfo.Path{root}
	}
	for _, l := range m.Lines {
		paths = append(paths, l.Path)
	}
	return paths
}

func (f *Fleet) manifest(e *signing.Entry, root narinfo.Path) (*signing.Manifest, error) {
	in, _, err := f.o.Channels.Manifest(e.Closure)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	text, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	return signing.ParseManifest(text, e.Closure, root)
}

// Lost raises an alarm for a channel that needs paths which the cache has not any more.
func (f *Fleet) Lost(ctx context.Context, name string, paths []narinfo.Path) error {
	return f.o.Set.Update(ctx, []string{channel.Lock(name)}, func(tx *mirror.Tx) error {
		more := ""
		if len(paths) > 1 {
			more = fmt.Sprintf(" and %d more", len(paths)-1)
		}
		tx.Notify(audit.Channel(name))
		audit.Note(tx, api.Event{Kind: "channel.lost", Channel: name, Alarm: true, Text: fmt.Sprintf("the cache has lost %s%s, which %s needs: upload it again with nix copy --refresh", paths[0], more, name)})
		return nil
	})
}

// Damaged raises an alarm for a NAR that was found damaged in the background: in the
// channels whose current releases need its path, or in none.
func (f *Fleet) Damaged(ctx context.Context, p narinfo.Path, file, what string, mended bool) error {
	needs, err := f.Needs()
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%s, the NAR of %s, is damaged: %s", file, p, what)
	names := needs[p]
	if len(names) > 0 {
		text += "; needed by " + strings.Join(names, ", ")
	} else {
		names = []string{""}
	}
	if mended {
		text += "; it was fetched anew, look at the disk"
	} else {
		text += "; run narwharf fsck --repair, and upload it again with nix copy --refresh"
	}
	for _, name := range names {
		var locks []string
		if name != "" {
			locks = []string{channel.Lock(name)}
		}
		err := f.o.Set.Update(ctx, locks, func(tx *mirror.Tx) error {
			audit.Note(tx, api.Event{Kind: "cache.damaged", Channel: name, Alarm: true, Text: text, Data: map[string]string{"file": file}})
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
