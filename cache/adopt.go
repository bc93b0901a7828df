package cache

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/local"
	"narwharf/cache/nar"
	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/narinfo"
)

// Adoption makes an upload of a local path: its packed NAR becomes a file of the
// cache, and its narinfo is stored with the signatures of Nix's database and
// ours. From then on nix-collect-garbage is no concern of the cache.

// hasLocal returns nil if the local store has a path, fs.ErrNotExist if not.
func (u *Uploads) hasLocal(p narinfo.Path) error {
	if u.local == nil {
		return fs.ErrNotExist
	}
	l, err := u.local.Info(context.Background(), p.Hash())
	if err == nil && l.Path != p {
		return fs.ErrNotExist
	}
	return err
}

// likeLocal refuses an upload of a path that the local store has with another
// content: clients have seen that one here. Of the same, it adds the signatures
// that the store has. A store that cannot be read now keeps nobody from
// uploading.
func (u *Uploads) likeLocal(info *narinfo.Info) error {
	if u.local == nil {
		return nil
	}
	l, err := u.local.Info(context.Background(), info.Path.Hash())
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			u.log.Warn("an upload could not be compared with the local store", "path", info.Path, "error", err)
		}
		return nil
	}
	if differs := differences(l, info); differs != "" {
		return refusal.New(refusal.Conflict, "%s is in this cache's own store with another content: %s; the first stays: rebuild with this cache as substituter", info.Path, differs)
	}
	for _, sig := range l.Sigs {
		if len(info.Sigs) < maxSignatures && !slices.Contains(info.Sigs, sig) {
			info.Sigs = append(info.Sigs, sig)
		}
	}
	slices.Sort(info.Sigs)
	return nil
}

// Adopt makes uploads of those paths that come from the local store alone, and
// returns how many. by is kept as the uploader. When it returns nil all of them
// are durable. What was adopted before an error stays, so that another call
// goes on from there; closures are whole at every moment if paths has whole
// ones, since references come first.
//
// An error of a path that is not what Nix knows it as, is in neither source, or
// was uploaded meanwhile with another content is a refusal.Error.
func (u *Uploads) Adopt(ctx context.Context, paths []narinfo.Path, by string) (int, error) {
	todo := make(map[narinfo.Path]*adoption)
	for _, p := range paths {
		r, err := u.index.Get(p.Hash())
		if err == nil && r.Info.Path == p {
			continue
		}
		if err != nil && !errors.Is(err, index.ErrNotFound) {
			return 0, err
		}
		if u.local == nil {
			return 0, gone(p)
		}
		l, err := u.local.Info(ctx, p.Hash())
		if err == nil && l.Path != p {
			err = fs.ErrNotExist
		}
		if errors.Is(err, fs.ErrNotExist) {
			return 0, gone(p)
		}
		if err != nil {
			return 0, err
		}
		todo[p] = &adoption{info: l, done: make(chan struct{})}
	}
	if len(todo) == 0 {
		return 0, nil
	}
	g, ctx := errgroup.WithContext(ctx)
	u.adoptAll(ctx, g, todo, by, true)
	err := g.Wait()
	if errors.Is(err, blob.ErrFull) {
		u.log.Error("no room to adopt local paths", "error", err)
		return 0, refusal.New(refusal.Full, "the cache has no room to keep the %d paths that are in its own Nix store alone: make room there, and promote again", len(todo))
	}
	return len(todo), err
}

// adoptAll starts all adoptions in g. Whoever waits for a reference waits for what
// began before, so one of them always moves. With whole, a path is not adopted if
// one that it refers to cannot be.
func (u *Uploads) adoptAll(ctx context.Context, g *errgroup.Group, todo map[narinfo.Path]*adoption, by string, whole bool) {
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	for _, a := range inOrder(todo) {
		g.Go(func() error {
			defer close(a.done)
			a.err = u.adopt(ctx, a, todo, by, whole)
			return a.err
		})
	}
}

func gone(p narinfo.Path) error {
	return refusal.New(refusal.Gone, "%s is not in this cache any more; upload it, or build it there again", p)
}

// adoption is one path that becomes an upload.
type adoption struct {
	info  *narinfo.Info // as the local store has it
	done  chan struct{} // closed when it is one, or cannot be
	err   error         // why it cannot, once done is closed
	order int
}

// inOrder sorts references before what refers to them.
func inOrder(todo map[narinfo.Path]*adoption) []*adoption {
	var list []*adoption
	var visit func(a *adoption)
	visit = func(a *adoption) {
		if a.order != 0 {
			return
		}
		a.order = -1 // a path may refer to itself
		for _, ref := range a.info.References {
			if next := todo[ref]; next != nil {
				visit(next)
			}
		}
		list = append(list, a)
		a.order = len(list)
	}
	paths := make([]narinfo.Path, 0, len(todo))
	for p := range todo {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, p := range paths {
		visit(todo[p])
	}
	return list
}

func (u *Uploads) adopt(ctx context.Context, a *adoption, todo map[narinfo.Path]*adoption, by string, whole bool) error {
	hash, size, err := u.adoptNar(ctx, a.info)
	if err != nil {
		return err
	}
	for _, ref := range a.info.References {
		if other := todo[ref]; other != nil && other != a {
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
	info := a.info.Clone()
	info.URL = "nar/" + hash.Base32() + local.CompressedSuffix
	info.FileHash, info.FileSize = hash, size
	info.Sigs = u.adoptedSigs(a.info)
	if err := u.PutInfo(info.Path.Hash(), info, by); err != nil {
		return fmt.Errorf("adopt %s: %w", info.Path, err)
	}
	u.log.Info("adopted from the local store", "path", info.Path, "nar_size", info.NarSize, "by", by)
	return nil
}

// adoptedSigs are those of the database and ours, which stay even where
// sign_uploads is false: the key vouches for what this machine had in its own
// store. Ours come first if there are too many.
func (u *Uploads) adoptedSigs(info *narinfo.Info) []string {
	all := u.vouch(info)
	if len(all) <= maxSignatures {
		return all
	}
	slices.SortStableFunc(all, func(a, b string) int {
		return cmp.Compare(count(slices.Contains(info.Sigs, a)), count(slices.Contains(info.Sigs, b)))
	})
	all = all[:maxSignatures]
	slices.Sort(all)
	return all
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// adoptNar makes a file of the cache of the compressed NAR.
func (u *Uploads) adoptNar(ctx context.Context, i *narinfo.Info) (hash narinfo.Hash, size int64, err error) {
	hash, size, err = u.copyCompressed(ctx, i)
	if errors.Is(err, errDamagedCopy) {
		if err := u.local.Discard(i, err); err != nil {
			return hash, size, err
		}
		hash, size, err = u.copyCompressed(ctx, i)
	}
	return hash, size, err
}

var errDamagedCopy = errors.New("the compressed NAR was damaged on the disk")

func (u *Uploads) copyCompressed(ctx context.Context, i *narinfo.Info) (hash narinfo.Hash, size int64, err error) {
	in, hash, size, err := u.local.Compress(ctx, i)
	if err != nil {
		return hash, size, u.adoptError(ctx, i, err)
	}
	defer in.Close()
	name := "nar/" + hash.Base32() + local.CompressedSuffix
	file := strings.TrimPrefix(name, "nar/")
	if st, err := u.HasNar(file, true); err != nil || st.Size != size {
		// Else it is by an earlier attempt, or of another path with the same
		// content.
		if err := u.copyFile(readerWith{ctx, in}, name, hash, size); err != nil {
			return hash, size, fmt.Errorf("adopt %s: %w", i.Path, err)
		}
	}
	// PutInfo need not read it all again.
	if users, err := u.index.Users(name); err != nil || len(users) == 0 {
		u.know(file, narfile.Facts{Compression: "zstd", FileHash: hash, NarHash: i.NarHash, FileSize: size, NarSize: i.NarSize})
	}
	return hash, size, nil
}

// copyFile stores a NAR file that has to have this hash and size.
func (u *Uploads) copyFile(in io.Reader, name string, hash narinfo.Hash, size int64) error {
	out, err := u.create(name, size)
	if err != nil {
		return err
	}
	defer out.Abort()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, sum), in)
	if err != nil {
		return err
	}
	if n != size || narinfo.Hash(sum.Sum(nil)) != hash {
		return errDamagedCopy
	}
	defer u.locks.Lock(name)()
	old, statErr := u.blobs.Stat(name)
	if err := out.Commit(); err != nil {
		return err
	}
	u.bytes.Add(n - old.Size)
	if statErr != nil {
		u.files.Add(1)
	}
	return nil
}

// adoptError says what is wrong with a path that could not be compressed.
func (u *Uploads) adoptError(ctx context.Context, i *narinfo.Info, err error) error {
	full := i.Path.In(i.StoreDir)
	switch {
	case ctx.Err() != nil, errors.Is(err, blob.ErrFull):
		return err
	case errors.Is(err, nar.ErrChanged), errors.Is(err, fs.ErrNotExist):
		u.log.Error("a path of the local store is not what Nix knows it as", "path", full, "error", err)
		return refusal.New(refusal.LocalDiffers, "%s in this cache's own store is not what Nix knows it as: run nix store verify --repair %s there, then promote again", full, full)
	}
	return fmt.Errorf("adopt %s: %w", i.Path, err)
}
