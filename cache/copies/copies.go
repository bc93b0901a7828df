// Package copies copies store paths from one binary cache to another. An export writes a
// folder that is a plain static Nix cache; an import uploads to a server what another
// cache, or a folder, has.
//
// A Source is read and a Target is written. Folder and Files are both of them on a disk,
// package remote has those that speak HTTP, and a bucket is another Target.
//
// What it promises: a narinfo is written after its NAR, and after those of all that it
// refers to, each of which is durable by then. So a copy may be killed anywhere: every
// path that the target has is there with its closure, and the next run goes on from
// there. What cannot be copied is named, and what refers to it is left out with it.
package copies

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"narwharf/cache/state/progress"
	"narwharf/narinfo"
)

// Source is a cache that is read.
type Source interface {
	// Info returns the narinfo of a path by its hash part, fs.ErrNotExist if there is
	// none.
	Info(ctx context.Context, hash string) (*narinfo.Info, error)
	// NAR opens the file that a narinfo names.
	NAR(ctx context.Context, info *narinfo.Info) (io.ReadCloser, error)
}

// Target is a cache that is written. What it returned nil for is durable. An error
// ends the copy, but for a *Refused, which is of one path.
type Target interface {
	// Has tells whether a path is there with a narinfo of this text.
	Has(ctx context.Context, info *narinfo.Info) (bool, error)
	// HasNAR tells whether a NAR file, "nar/<SHA-256>.nar…", is there, whole by its size.
	HasNAR(ctx context.Context, name string, size int64) (bool, error)
	// PutNAR stores a NAR file of size bytes. body may be opened again. When a body ends
	// in an error nothing of it stays.
	PutNAR(ctx context.Context, name string, size int64, body func() (io.ReadCloser, error)) error
	// PutSidecar stores a file that lies beside a path, as Besides lists it.
	PutSidecar(ctx context.Context, name string, text []byte) error
	// PutInfo stores the narinfo of a path, whose NAR and references are there.
	PutInfo(ctx context.Context, info *narinfo.Info) error
}

// Refused says in words why a target does not take one path.
type Refused struct{ Words string }

func (e *Refused) Error() string { return e.Words }

// Failure is a path, or a file beside one, that was not copied.
type Failure struct {
	Path  string `json:"path"` // its hash part alone, where no more is known
	Error string `json:"error"`
}

// Result is what a copy did.
type Result struct {
	Copied int       `json:"copied"` // paths
	There  int       `json:"there"`  // paths that the target had already
	Bytes  int64     `json:"bytes"`  // of NAR files that were sent
	Failed []Failure `json:"failed,omitempty"`
}

// Copy is how paths are copied.
type Copy struct {
	From Source
	To   Target
	// Temp is the folder in which NARs are packed whose file's hash is not known.
	Temp string
	// Pack has plain NARs packed with zstd.
	Pack bool
	// Jobs is how many paths are under way at once; 0 is 8.
	Jobs int
	// Verb is what is done, for who watches: "exported".
	Verb string
	// Report is told of each path that is not copied, nil tells nobody. Calls do not overlap.
	Report func(Failure)
}

// errReference is of a path whose reference was not copied.
var errReference = errors.New("is not copied")

// item is a path that is to be copied.
type item struct {
	info  *narinfo.Info
	order int // its place in the copy, from 1 on; 0 while it is being looked for
	done  chan struct{}
	err   error // once done is closed
}

// Run copies paths, of which it is given the narinfos of the source. References that are
// not among them are for the target to judge. Paths of which one cannot be read or is
// refused do not keep others; any other error of the target ends the copy.
func (c *Copy) Run(ctx context.Context, infos []*narinfo.Info) (Result, error) {
	r := &run{Copy: c, items: make(map[narinfo.Path]*item, len(infos))}
	for _, info := range infos {
		if r.items[info.Path] == nil {
			r.items[info.Path] = &item{info: info, done: make(chan struct{})}
			r.total += sizeOf(info)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cmp.Or(c.Jobs, 8))
	for _, one := range r.inOrder(infos) {
		g.Go(func() error { return r.copy(ctx, one) })
	}
	err := g.Wait()
	return Result{int(r.copied.Load()), int(r.there.Load()), r.bytes.Load(), r.failed}, err
}

// sizeOf is what a path weighs in the bar.
func sizeOf(info *narinfo.Info) int64 { return cmp.Or(info.FileSize, info.NarSize) }

type run struct {
	*Copy
	items map[narinfo.Path]*item
	total int64

	copied, there, bytes, passed atomic.Int64

	mu     sync.Mutex
	failed []Failure
}

// inOrder sorts references before what refers to them.
func (r *run) inOrder(infos []*narinfo.Info) []*item {
	list := make([]*item, 0, len(r.items))
	seen := make(map[*item]bool, len(r.items))
	type step struct {
		one  *item
		next int // of its references
	}
	for _, info := range infos {
		stack := []step{{one: r.items[info.Path]}}
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			if top.next == 0 {
				if seen[top.one] {
					stack = stack[:len(stack)-1]
					continue
				}
				seen[top.one] = true
			}
			refs := top.one.info.References
			for top.next < len(refs) && (r.items[refs[top.next]] == nil || seen[r.items[refs[top.next]]]) {
				top.next++
			}
			if top.next < len(refs) {
				ref := r.items[refs[top.next]]
				top.next++
				stack = append(stack, step{one: ref})
				continue
			}
			list = append(list, top.one)
			top.one.order = len(list)
			stack = stack[:len(stack)-1]
		}
	}
	return list
}

// copy copies one path. Whoever waits for a reference waits for what began before, so one
// of them always moves; that a path refers to a later one is a circle, for the target to
// refuse.
func (r *run) copy(ctx context.Context, one *item) error {
	defer close(one.done)
	done, err := r.send(ctx, one)
	if err == nil {
		r.passed.Add(sizeOf(one.info))
		progress.Report(ctx, "MiB "+r.Verb, r.passed.Load()>>20, r.total>>20)
		if done {
			r.copied.Add(1)
		} else {
			r.there.Add(1)
		}
		return nil
	}
	one.err = err
	var bad *pathError
	var refused *Refused
	if ctx.Err() != nil || !errors.As(err, &bad) && !errors.As(err, &refused) {
		return err
	}
	r.fail(Failure{one.info.Path.In(one.info.StoreDir), err.Error()})
	return nil
}

// fail notes what was not copied.
func (r *run) fail(f Failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, f)
	if r.Report != nil {
		r.Report(f)
	}
}

// pathError is an error of one path, which does not keep others.
type pathError struct{ err error }

func (e *pathError) Error() string { return e.err.Error() }
func (e *pathError) Unwrap() error { return e.err }

// send copies a path, or tells that it was there.
func (r *run) send(ctx context.Context, one *item) (done bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if has, err := r.To.Has(ctx, one.info); has || err != nil {
		return false, err
	}
	info, err := r.sendNAR(ctx, one.info)
	if err != nil {
		return false, err
	}
	for _, ref := range info.References {
		other := r.items[ref]
		if other == nil || other.order >= one.order {
			continue
		}
		select {
		case <-other.done:
			if other.err != nil {
				return false, &pathError{fmt.Errorf("%s, which it refers to, %w", ref.In(info.StoreDir), errReference)}
			}
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
	if err := r.sendSidecars(ctx, one.info, info); err != nil {
		return false, err
	}
	return true, r.To.PutInfo(ctx, info)
}

// sendNAR sees to it that the NAR of a path is in the target, and returns the narinfo
// that names it there.
func (r *run) sendNAR(ctx context.Context, info *narinfo.Info) (*narinfo.Info, error) {
	open := func() (io.ReadCloser, error) { return r.From.NAR(ctx, info) }
	if info.FileHash.IsZero() || info.FileSize == 0 || r.Pack && info.Compression == "none" {
		packed, next, err := r.pack(ctx, info)
		if err != nil {
			return nil, &pathError{err}
		}
		defer packed.remove()
		info, open = next, packed.open
	} else {
		info = info.Clone()
		info.URL = nameOf(info)
	}
	if has, err := r.To.HasNAR(ctx, info.URL, info.FileSize); has || err != nil {
		return info, err
	}
	var last *checked
	err := r.To.PutNAR(ctx, info.URL, info.FileSize, func() (io.ReadCloser, error) {
		in, err := open()
		if err != nil {
			last = &checked{err: err}
			return nil, err
		}
		last = &checked{ReadCloser: in, want: info.FileHash, left: info.FileSize, sum: sha256.New()}
		return last, nil
	})
	if err != nil && last != nil && last.err != nil { // it is the source's
		return nil, &pathError{fmt.Errorf("read %s: %w", info.URL, last.err)}
	}
	if err == nil {
		r.bytes.Add(info.FileSize)
	}
	return info, err
}

// checked reads a NAR file and ends in an error unless it is what its narinfo says.
type checked struct {
	io.ReadCloser
	want narinfo.Hash
	left int64
	sum  hash.Hash
	err  error // sticky
}

// ErrOther is of a file that is not what its narinfo says.
var ErrOther = errors.New("the file is not what its narinfo says")

func (c *checked) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.ReadCloser.Read(p)
	c.sum.Write(p[:n])
	c.left -= int64(n)
	switch {
	case c.left < 0:
		err = fmt.Errorf("%w: it is longer", ErrOther)
	case err == io.EOF && c.left > 0:
		err = fmt.Errorf("%w: %d bytes are missing at its end", ErrOther, c.left)
	case c.left == 0 && narinfo.Hash(c.sum.Sum(nil)) != c.want:
		err = fmt.Errorf("%w: its SHA-256 is %s", ErrOther, narinfo.Hash(c.sum.Sum(nil)))
	case err == nil || err == io.EOF:
		return n, err
	}
	c.err = err
	return 0, err
}
