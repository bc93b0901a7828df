package channel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"narwharf/cache/root"
	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/narinfo"
	"narwharf/signing"
)

// rootOwner begins the names of releases as owners of roots (package root).
const rootOwner = "release:"

// RootOwner is a release as an owner of roots.
func RootOwner(channel string, seq int64) string {
	return fmt.Sprintf("%s%s:%d", rootOwner, channel, seq)
}

// rootPaths are the roots of a release.
func rootPaths(entries []signing.Entry) (paths []narinfo.Path) {
	for _, e := range entries {
		if p, err := e.Path(); err == nil { // it was checked
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// kept are the seqs of a channel's releases that are kept: the current one, the last ones,
// the last that went well, and those that its roll-outs need.
func (c *Channels) kept(tx state.Reader, name string, st *State, keep int) (seqs []int64, err error) {
	if st.Deleted || st.Current == 0 {
		return nil, nil
	}
	r := state.Prefix(name + "\x00")
	r.Reverse, r.Limit = true, keep
	page, err := tx.List(metaBucket, r)
	for _, e := range page {
		seqs = append(seqs, int64(state.Uint64(e.Key[len(name)+1:])))
	}
	needed := []int64{st.Current, st.Well}
	if c.Needed != nil && err == nil {
		var more []int64
		more, err = c.Needed(tx, name)
		needed = append(needed, more...)
	}
	for _, seq := range needed {
		if seq > 0 && !slices.Contains(seqs, seq) {
			seqs = append(seqs, seq)
		}
	}
	return seqs, err
}

// Settle ends the roots of releases that are not kept any more, and makes those that an
// older server did not make. owners are those that have roots now.
func (c *Channels) Settle(ctx context.Context, keep int, owners map[string]bool) error {
	stay := make(map[string]bool)
	for name, st := range c.states.All() {
		var seqs []int64
		err := c.set.View(func(tx state.Reader) (err error) {
			seqs, err = c.kept(tx, name, st, keep)
			return err
		})
		if err != nil {
			return err
		}
		for _, seq := range seqs {
			stay[RootOwner(name, seq)] = true
			if !owners[RootOwner(name, seq)] {
				if err := c.settle(ctx, name, seq, keep, true); err != nil {
					return err
				}
			}
		}
	}
	for owner := range owners {
		rest, ok := strings.CutPrefix(owner, rootOwner)
		name, text, _ := strings.Cut(rest, ":")
		seq, err := strconv.ParseInt(text, 10, 64)
		if !ok || err != nil || stay[owner] {
			continue
		}
		if err := c.settle(ctx, name, seq, keep, false); err != nil {
			return err
		}
	}
	return nil
}

// settle makes or ends the roots of a release, if it is still to stay or not.
func (c *Channels) settle(ctx context.Context, name string, seq int64, keep int, stay bool) error {
	var paths []narinfo.Path
	if stay {
		f, err := c.check(ctx, name, seq)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // nothing can be made of it
		}
		if err != nil {
			return fmt.Errorf("roots of release %d of %s: %w", seq, name, err)
		}
		paths = rootPaths(f.entries)
	}
	return c.set.Update(ctx, append(locks(name), root.Locks(paths)...), func(tx *mirror.Tx) error {
		seqs, err := c.kept(tx, name, c.In(tx, name), keep)
		if err != nil || slices.Contains(seqs, seq) != stay {
			return err
		}
		return root.Set(tx, RootOwner(name, seq), paths)
	})
}

// Roots are the paths that a release names, of the current one if seq is 0, with their store
// directory and its seq.
func (c *Channels) Roots(ctx context.Context, name string, seq int64) (dir string, paths []narinfo.Path, is int64, err error) {
	now := c.Get(name)
	if now.Release == nil && seq == 0 {
		return "", nil, 0, now.Absent()
	}
	entries := []signing.Entry{}
	if seq == 0 {
		entries, seq = now.Entries, now.Head.Seq
	} else {
		r, err := c.Past(ctx, name, seq)
		if err == nil {
			_, entries, err = r.Check()
		}
		if err != nil {
			return "", nil, 0, err
		}
	}
	return entries[0].StoreDir(), rootPaths(entries), seq, nil
}
