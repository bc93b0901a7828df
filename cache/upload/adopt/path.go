package adopt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"narwharf/cache/blob"
	"narwharf/cache/nar/dump"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/cache/upload"
	"narwharf/narinfo"
)

func (a *Adopter) adopt(ctx context.Context, one *adoption, todo batch, by string, whole bool) error {
	f, err := a.copyNar(ctx, one.info)
	if err != nil {
		return err
	}
	for _, ref := range one.info.References {
		if other := todo[ref]; other != nil && other != one {
			select {
			case <-other.done:
				if whole && other.err != nil {
					return other.err
				}
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	info := one.info.Clone()
	info.URL, info.Compression, info.FileHash, info.FileSize = "nar/"+fileOf(f), f.Compression, f.FileHash, f.FileSize
	if info.Sigs, err = a.signatures(one.info); err != nil {
		return fmt.Errorf("adopt %s: %w", info.Path, err)
	}
	if err := a.Uploads.PutAdopted(info, by); err != nil {
		return fmt.Errorf("adopt %s: %w", info.Path, err)
	}
	a.Log.Info("adopted from the local store", "path", info.Path, "nar_size", info.NarSize, "by", by)
	return nil
}

func fileOf(f narfile.Facts) string { return f.FileHash.Base32() + ".nar.zst" }

// signatures are those of the database and ours, which stay even where
// sign_uploads is false: the key vouches for what this machine had in its own
// store. If there are too many, some of the database's are left out.
func (a *Adopter) signatures(info *narinfo.Info) ([]string, error) {
	all, err := a.Sign(info)
	if err != nil || len(all) <= upload.MaxSignatures {
		return all, err
	}
	rank := func(sig string) int {
		if slices.Contains(info.Sigs, sig) {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(all, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
	all = all[:upload.MaxSignatures]
	slices.Sort(all)
	return all, nil
}

// copyNar makes a file of the cache of a path's compressed NAR. One that was
// damaged on the disk is made anew, once.
func (a *Adopter) copyNar(ctx context.Context, i *narinfo.Info) (narfile.Facts, error) {
	f, err := a.copyOnce(ctx, i)
	if errors.Is(err, upload.ErrDamagedCopy) {
		a.Local.Discard(i, err)
		f, err = a.copyOnce(ctx, i)
	}
	return f, err
}

func (a *Adopter) copyOnce(ctx context.Context, i *narinfo.Info) (narfile.Facts, error) {
	in, hash, size, err := a.Local.Compress(ctx, i)
	if err != nil {
		return narfile.Facts{}, a.explain(ctx, i, err)
	}
	defer in.Close()
	f := narfile.Facts{Compression: "zstd", FileHash: hash, NarHash: i.NarHash, FileSize: size, NarSize: i.NarSize}
	if err := a.Uploads.PutCopy(fileOf(f), narfile.WithContext(ctx, in), f); err != nil {
		return f, fmt.Errorf("adopt %s: %w", i.Path, err)
	}
	return f, nil
}

// explain says what is wrong with a path that could not be compressed.
func (a *Adopter) explain(ctx context.Context, i *narinfo.Info, err error) error {
	full := i.Path.In(i.StoreDir)
	switch {
	case ctx.Err() != nil, errors.Is(err, blob.ErrFull):
		return err
	case errors.Is(err, dump.ErrChanged), errors.Is(err, fs.ErrNotExist):
		a.Log.Error("a path of the local store is not what Nix knows it as", "path", full, "error", err)
		return refusal.New(refusal.LocalDiffers, "%s in this cache's own store is not what Nix knows it as: run nix store verify --repair %s there, then promote again", full, full)
	}
	return fmt.Errorf("adopt %s: %w", i.Path, err)
}
