// Package root holds the roots of a cache: store paths that must stay, with all that
// they refer to. Each has owners, which say why: "release:<channel>:<seq>",
// "host:<name>", "pin:<name>". A root may name a path that is not here.
//
// Roots are in the state, so that a deletion reads again in its own transaction that
// a path is none:
//
//	cache/root        <hash> NUL <owner>  -> ""
//	cache/root-owner  <owner>             -> the base names of its roots, in JSON
package root

import (
	"context"
	"slices"
	"strings"

	"narwharf/cache/state"
	"narwharf/narinfo"
)

const (
	bucket      = "cache/root"
	ownerBucket = "cache/root-owner"
)

// Locks are what an Update holds that calls Set with these paths: a deletion of one of
// them comes before it or after it. Who may change an owner's roots is for another
// lock to say, which the caller takes.
func Locks(paths []narinfo.Path) []string {
	locks := make([]string, len(paths))
	for i, p := range paths {
		locks[i] = state.Shared("path:" + p.Hash()) // index.PathLock
	}
	return locks
}

// Set makes the roots of an owner exactly these; none ends them.
func Set(tx state.Tx, owner string, paths []narinfo.Path) error {
	old, err := Owner(tx, owner)
	if err != nil {
		return err
	}
	paths = slices.Clone(paths)
	slices.Sort(paths)
	paths = slices.Compact(paths)
	if slices.Equal(old, paths) {
		return nil
	}
	for _, p := range old {
		if _, stays := slices.BinarySearch(paths, p); !stays {
			if err := tx.Delete(bucket, key(p.Hash(), owner)); err != nil {
				return err
			}
		}
	}
	if len(paths) == 0 {
		return tx.Delete(ownerBucket, owner)
	}
	for _, p := range paths {
		if err := tx.Put(bucket, key(p.Hash(), owner), nil); err != nil {
			return err
		}
	}
	return state.PutJSON(tx, ownerBucket, owner, paths)
}

func key(hash, owner string) string { return hash + "\x00" + owner }

// OwnerKey is what Set reads of an owner, for state.Expect.
func OwnerKey(owner string) state.Key { return state.Key{Bucket: ownerBucket, Key: owner} }

// Owner returns the roots of an owner, sorted.
func Owner(tx state.Reader, owner string) ([]narinfo.Path, error) {
	list, err := state.GetJSON[[]narinfo.Path](tx, ownerBucket, owner)
	if list == nil || err != nil {
		return nil, err
	}
	return *list, nil
}

// Of returns the owners for whom the path with a hash part is a root.
func Of(tx state.Reader, hash string) (owners []string, err error) {
	prefix := key(hash, "")
	err = state.Each(tx, bucket, state.Prefix(prefix), func(e state.Entry) error {
		owners = append(owners, strings.TrimPrefix(e.Key, prefix))
		return nil
	})
	return owners, err
}

// Each calls fn with the roots in the order of hash parts, once for each owner. It reads
// in pages: a root that comes or goes meanwhile may be seen or not.
func Each(ctx context.Context, s state.Store, fn func(hash, owner string) error) error {
	return scan(ctx, s, bucket, "", func(key string) error {
		hash, owner, _ := strings.Cut(key, "\x00")
		return fn(hash, owner)
	})
}

// EachOwner calls fn with the owners whose name begins with prefix, in pages as Each.
func EachOwner(ctx context.Context, s state.Store, prefix string, fn func(owner string) error) error {
	return scan(ctx, s, ownerBucket, prefix, fn)
}

func scan(ctx context.Context, s state.Store, bucket, prefix string, fn func(key string) error) error {
	return s.Scan(ctx, bucket, state.Prefix(prefix), func(page []state.Entry) error {
		for _, e := range page {
			if err := fn(e.Key); err != nil {
				return err
			}
		}
		return nil
	})
}
