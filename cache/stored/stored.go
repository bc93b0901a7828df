// Package stored is what a cache holds, without HTTP: what was uploaded, the machine's own
// Nix store and the caches behind this one, as one. An upload wins where several have a path,
// then the local store.
//
// Open finds it on the disk. A Cache then answers the questions of the handlers: where
// the NAR of a path can be read, its listing, one file out of it. Those of channels,
// whose interface package hooks declares, are in channels.go. Putting something in is
// for packages upload and adopt.
//
// An error of looking up is fs.ErrNotExist, a refusal, or a fault of what is stored. The
// last is never a refusal, though the reader of an upload would call it one.
package stored

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/limits"
	"narwharf/cache/local"
	"narwharf/cache/refusal"
	"narwharf/cache/retention"
	"narwharf/cache/sidecar"
	"narwharf/cache/signed"
	"narwharf/cache/state"
	"narwharf/cache/state/lease"
	"narwharf/cache/state/namelock"
	"narwharf/cache/stored/trees"
	"narwharf/cache/upload"
	"narwharf/cache/upload/adopt"
	"narwharf/cache/upload/recovery"
	"narwharf/cache/upstream"
	"narwharf/narinfo"
)

// Options say where a cache lies and how it takes things in.
type Options struct {
	Files blob.Store
	State state.Store
	Alone *lease.Lease // that lets one server at a time collect; nil: no other has the state
	Index index.Options
	Rules upload.Options // Open sets Local, Counted, Grace and Changed
	// Retention is what is kept, and for how long.
	Retention retention.Policy
	// Local is the machine's own store, nil if it is not served.
	Local *local.Store
	// Upstreams are the caches behind this one, nil if there are none.
	Upstreams *upstream.Upstreams
	// Signer is nil where nothing is served.
	Signer *signed.Signer
	Log    *slog.Logger
}

// Cache is what a cache holds. It is safe for concurrent use.
type Cache struct {
	*adopt.Adopter
	Uploads   *upload.Store
	Sidecars  *sidecar.Store
	Collector *retention.Collector // nil where nothing is collected
	Signer    *signed.Signer
	Local     *local.Store        // nil if it is not served
	Upstreams *upstream.Upstreams // nil if there are none

	log        *slog.Logger
	index      *index.Table
	consistent bool // files and index agree

	locks namelock.Set // of the listings being made and parsed
	work  *limits.Work // of unpacking NARs for a listing or a file
	trees trees.Trees
}

// New makes a Cache of its parts.
func New(adopter *adopt.Adopter, uploads *upload.Store, signer *signed.Signer, own *local.Store, ups *upstream.Upstreams, log *slog.Logger) *Cache {
	return &Cache{Adopter: adopter, Uploads: uploads, Sidecars: sidecar.New(uploads.Files), Signer: signer, Local: own, Upstreams: ups, log: log, work: limits.NewWork()}
}

// Open opens files and index. After a kill they may not agree before Recover or
// Rebuild.
func Open(opts Options) (*Cache, error) {
	files := opts.Files
	idx, err := index.Open(opts.State, opts.Index)
	if err != nil {
		return nil, err
	}
	opts.Rules.Grace = opts.Retention.Grace
	adoption := adopt.Options{Log: opts.Log, Grace: opts.Retention.Grace, Sign: func(i *narinfo.Info) ([]string, error) { return i.Sigs, nil }}
	opts.Rules.Counted = idx.Files()
	if opts.Local != nil {
		adoption.Local = opts.Local
	}
	if opts.Local != nil || opts.Upstreams != nil {
		opts.Rules.Local = Behind(opts.Local, opts.Upstreams)
	}
	if opts.Signer != nil {
		opts.Rules.Changed, adoption.Sign = opts.Signer.Forget, opts.Signer.Signatures
	}
	if adoption.Uploads, err = upload.New(files, idx, opts.Rules, opts.Log); err != nil {
		return nil, fmt.Errorf("open the content files: %w", err)
	}
	c := New(adopt.New(adoption), adoption.Uploads, opts.Signer, opts.Local, opts.Upstreams, opts.Log)
	c.index, c.consistent, c.Sidecars.State = idx, !idx.Dirty(), opts.State
	collection := retention.Options{
		Policy: opts.Retention, State: opts.State, Alone: opts.Alone, Index: idx, Uploads: c.Uploads, Sidecars: c.Sidecars, Free: free(files), Log: opts.Log,
	}
	if opts.Local != nil || opts.Upstreams != nil {
		collection.Local, collection.Leaning = marked{c.behind()}, Leaning(opts.Upstreams)
	}
	c.Collector = retention.New(collection)
	return c, nil
}

// Recover makes files and index agree, if the last process was killed, and goes on with
// deletions that were begun.
func (c *Cache) Recover() (err error) {
	if c.consistent {
		return c.Uploads.Finish(context.Background())
	}
	_, _, err = recovery.Recover(c.Uploads)
	c.consistent = err == nil
	return err
}

// Check looks, beside everything else, for what Recover need not: what somebody did to the
// files after a stop in order, and NARs that are lost. Once a day it looks for NARs of which
// the index knows nothing, until ctx ends.
func (c *Cache) Check(ctx context.Context) {
	err := recovery.Check(ctx, c.Uploads, c.index.Closed())
	daily := time.NewTicker(24 * time.Hour)
	defer daily.Stop()
	for ctx.Err() == nil {
		if err != nil {
			c.log.Error("compare the index with the files", "error", err)
		}
		select {
		case <-daily.C:
			err = recovery.FindUnnamed(ctx, c.Uploads)
		case <-ctx.Done():
		}
	}
}

// Rebuild makes the index anew; see upload.Store.
func (c *Cache) Rebuild(ctx context.Context, report func(format string, args ...any)) (lost int64, err error) {
	if err = c.Uploads.Finish(ctx); err == nil {
		lost, err = recovery.Rebuild(ctx, c.Uploads, report)
	}
	c.consistent = err == nil
	return lost, err
}

// Close tells the next start that files and index agree, if they do. If that cannot be written, on a
// full disk, nothing is lost: the next start compares them.
func (c *Cache) Close() {
	if !c.consistent || c.Uploads.NeedsRecovery() {
		return
	}
	err := c.Uploads.Keep()
	if err == nil {
		n := c.Uploads.Counts()
		err = c.index.Close(index.Files{Count: n.NarFiles, Size: n.NarBytes})
	}
	if err != nil {
		c.log.Warn("the next start compares all files with the index", "error", err)
	}
}

// uploaded returns what was uploaded under a hash part, nil if it is for the local
// store to say.
func (c *Cache) uploaded(hash string) (*index.Record, error) {
	r, err := c.Uploads.Index.Get(hash)
	switch {
	case !errors.Is(err, index.ErrNotFound):
		return r, err
	case c.Local == nil:
		return nil, fs.ErrNotExist
	}
	return nil, nil
}

// Narinfo returns the signed narinfo of a path. One who may upload remembers for 30 days
// that a path is here, and does not send it. So an upload is kept for a lease, and a path of
// the local store is held there. What nothing can hold is adopted.
func (c *Cache) Narinfo(ctx context.Context, hash string, uploader bool) (*signed.Narinfo, error) {
	t, err := c.Signer.Get(ctx, hash, c.Uploads.Index)
	if missing(err) && c.Upstreams != nil {
		return c.upstreamNarinfo(ctx, hash, uploader)
	}
	if err != nil || !uploader {
		return t, err
	}
	if t.Local == nil {
		if there, err := c.use(ctx, hash); there || err != nil {
			return t, err
		}
		return c.Narinfo(ctx, hash, uploader)
	}
	held, err := c.Local.Hold(ctx, t.Local.Info.Path)
	if err != nil {
		return nil, err
	}
	if !held {
		c.Want([]narinfo.Path{t.Local.Info.Path})
	}
	return t.Whole()
}

// UsedLately tells whether a narinfo may be shown to one who may upload as it is.
func (c *Cache) UsedLately(hash string, t *signed.Narinfo) bool {
	lately, err := c.Uploads.Index.UsedLately(hash)
	return t.Local == nil && lately && err == nil
}

// use keeps an uploaded path for a lease. If it is not here any more, what the signer has of
// it is old.
func (c *Cache) use(ctx context.Context, hash string) (there bool, err error) {
	gone, err := c.Uploads.Index.Use(ctx, []string{hash})
	if err != nil || len(gone) == 0 {
		return err == nil, err
	}
	c.Signer.Forget(hash)
	return false, ctx.Err()
}

// PutInfo takes in a narinfo (upload.Store.PutInfo). What it refers to in the local store
// is held there, or adopted before, and becomes an upload later.
//
// A narinfo that names the NAR as ours did is one that came from here and has a signature
// more: it is taken as one of what was uploaded, or is adopted for it.
func (c *Cache) PutInfo(ctx context.Context, hash string, info *narinfo.Info, by string) error {
	info, err := c.named(ctx, hash, info, by)
	if err != nil {
		return err
	}
	c.makeRoom(ctx, narinfoRoom)
	err = c.Uploads.PutInfo(hash, info, by)
	var loose *upload.LooseError
	if errors.As(err, &loose) {
		if err = c.AdoptNow(ctx, loose.Refs); err == nil {
			err = c.Uploads.PutInfo(hash, info, by)
		}
	}
	if err == nil {
		c.Want(info.References)
	}
	return err
}

// named returns info with the file of the upload, if it has one of our URLs for local paths.
func (c *Cache) named(ctx context.Context, hash string, info *narinfo.Info, by string) (*narinfo.Info, error) {
	if !local.IsURL(info) {
		return info, nil
	}
	src, err := c.find(ctx, hash)
	switch {
	case missing(err) && c.Local == nil:
		return info, nil // and its NAR is missing
	case missing(err), err == nil && src.Local:
		_, err = c.Adopter.Adopt(ctx, []narinfo.Path{info.Path}, by)
	case err == nil && src.Upstream != nil:
		err = c.Keep(ctx, src.Upstream)
	}
	var r *index.Record
	if err == nil {
		r, err = c.Uploads.Index.Get(hash)
	}
	if err != nil {
		return nil, err
	}
	if r.Info.NarHash != info.NarHash {
		return nil, refusal.New(refusal.Conflict, "%s is here with another content: NarHash %s there, %s here; the first stays", info.Path, r.Info.NarHash, info.NarHash)
	}
	info = info.Clone()
	info.URL, info.Compression, info.FileHash, info.FileSize = r.Info.URL, r.Info.Compression, r.Info.FileHash, r.Info.FileSize
	return info, nil
}

// Index is that of Uploads.
func (c *Cache) Index() *index.Table { return c.index }

// After is index.Table.After.
func (c *Cache) After(hash string) (string, *index.Record, error) { return c.index.After(hash) }
