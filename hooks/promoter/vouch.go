package promoter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"narwharf/cache/nixstore"
	"narwharf/cache/state/progress"
	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/signing"
)

// vouchAtOnce is how many paths are signed side by side.
const vouchAtOnce = 8

// Vouch signs what a server's cache has of the closures of store paths, as a content key that
// Nix cannot hold: one in a device or a key service. What is signed is what this machine's store
// has of each path; where the server has other bytes it is an error. Paths that the key has
// signed are left alone.
func Vouch(ctx context.Context, client *api.Client, key signing.Signer, store nixstore.Options, paths []string, out io.Writer) error {
	local, err := nixstore.Open(store)
	if err != nil {
		return err
	}
	defer local.Close()
	closure := make(map[narinfo.Path]*narinfo.Info)
	for _, typed := range paths {
		path, rest, err := local.Resolve(typed)
		if err == nil && rest != "" {
			err = fmt.Errorf("%s is inside of the store path %s: name the path itself", typed, path)
		}
		var infos []*narinfo.Info
		if err == nil {
			infos, err = local.Closure(ctx, path)
		}
		if err != nil {
			return err
		}
		for _, i := range infos {
			closure[i.Path] = i
		}
	}
	var signed, done atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(vouchAtOnce)
	for _, i := range closure {
		group.Go(func() error {
			fresh, err := vouch(ctx, client, key, i)
			if err != nil {
				return err
			}
			if fresh {
				signed.Add(1)
			}
			progress.Report(ctx, "paths signed", done.Add(1), int64(len(closure)))
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	fmt.Fprintf(out, "signed %d of %d paths with %s; the others were\n", signed.Load(), len(closure), key.Public().Name())
	return nil
}

// vouch signs one path, unless the key has.
func vouch(ctx context.Context, client *api.Client, key signing.Signer, mine *narinfo.Info) (fresh bool, err error) {
	theirs, err := client.Narinfo(ctx, mine.Path)
	var e *api.Error
	if errors.As(err, &e) && e.Kind == api.NotFound {
		return false, fmt.Errorf("%s is not in the cache: nix copy it first", mine.Path)
	}
	if err != nil {
		return false, err
	}
	msg := mine.AppendFingerprint(nil)
	if !slices.Equal(msg, theirs.AppendFingerprint(nil)) {
		return false, fmt.Errorf("%s has other bytes in the cache than here: build it anew with the cache as a substituter", mine.Path)
	}
	if _, ok := signing.VerifyAny(msg, theirs.Sigs, []signing.PublicKey{key.Public()}); ok {
		return false, nil
	}
	sig, err := key.Signature(msg)
	if err != nil {
		return false, fmt.Errorf("%s: %w", mine.Path, err)
	}
	theirs.Sigs = []string{sig} // those that it has stay
	_, err = client.Do(ctx, api.Call{Method: "PUT", Path: "/" + mine.Path.Hash() + ".narinfo", Body: theirs.Append(nil)})
	return err == nil, err
}
