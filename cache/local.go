package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"narwharf/cache/blob"
	pack "narwharf/cache/local/compress"
	"narwharf/cache/nixstore"
	"narwharf/narinfo"
)

// LocalStore is what the cache needs of a Nix store on this machine, as a
// *nixstore.Store gives it. Every method tells what is true now.
type LocalStore interface {
	// StoreDir is the directory that paths are named by.
	StoreDir() string
	// InfoByHash returns what Nix knows of a path, nixstore.ErrNotValid if
	// nothing, nixstore.ErrUnavailable or ErrLocked if it cannot be asked.
	InfoByHash(ctx context.Context, hashPart string) (*narinfo.Info, error)
	// PathInfo adds when it became valid.
	PathInfo(ctx context.Context, p narinfo.Path) (*nixstore.PathInfo, error)
	// RealPath is where the files of a path are.
	RealPath(narinfo.Path) string
	// Version and Still tell whether anything may have changed.
	Version(ctx context.Context) (nixstore.Version, error)
	Still(nixstore.Version) bool
}

// Local is the second source of paths: the store of this machine. What is also
// uploaded is served from the uploads.
type Local struct {
	store  LocalStore
	packed *pack.Store
	logs   string // the folder with Nix's build logs
	log    *slog.Logger

	mu       sync.Mutex
	troubled time.Time // when the log last said that the store cannot be read
}

// NewLocal makes a source of a store. packed keeps what is encoded; logs is the
// folder of Nix's build logs, <root>/nix/var/log/nix.
func NewLocal(store LocalStore, packed *pack.Store, logs string, log *slog.Logger) *Local {
	return &Local{store: store, packed: packed, logs: logs, log: log}
}

// localPath is a path of the store as it is advertised.
type localPath struct {
	info    *narinfo.Info // with everything but FileHash and FileSize
	name    string        // of its NAR without the suffix, "<hash part>-<NAR hash>"
	version nixstore.Version
	sum     [sha256.Size]byte // of the unsigned text
	packed  bool              // FileHash and FileSize are in the narinfo
}

// find looks a path up, index.ErrNotFound's peer being fs.ErrNotExist.
func (l *Local) find(ctx context.Context, hash string) (*localPath, error) {
	version, err := l.store.Version(ctx) // before: if it is the same later, so is the rest
	var info *narinfo.Info
	if err == nil {
		info, err = l.store.InfoByHash(ctx, hash)
	}
	if err != nil {
		return nil, l.explain(ctx, err)
	}
	p := &localPath{info: info, name: info.Path.Hash() + "-" + info.NarHash.Base32(), version: version}
	info.URL, info.Compression = "nar/"+p.name+packedSuffix, "zstd"
	p.sum = sha256.Sum256(info.Append(nil))
	return p, nil
}

// The two forms of a local path's NAR.
const (
	packedSuffix = ".nar.zst"
	plainSuffix  = ".nar"
)

// current tells whether all that the narinfo of p says is what it would say
// now.
func (l *Local) current(p *localPath) bool {
	if !p.packed {
		if _, known := l.packed.Facts(p.name + packedSuffix); known {
			return false
		}
	}
	return l.store.Still(p.version)
}

// complete returns the info of p with what is known of its packed NAR.
func (l *Local) complete(p *localPath) *narinfo.Info {
	f, known := l.packed.Facts(p.name + packedSuffix)
	p.packed = known
	if !known {
		return p.info
	}
	i := *p.info
	i.FileHash, i.FileSize = f.FileHash, f.FileSize
	return &i
}

// explain turns an error of the store into what a client is told: that a path
// is not there, or that this cannot be said now. A 404 would be remembered.
func (l *Local) explain(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, nixstore.ErrNotValid):
		return fs.ErrNotExist
	case ctx.Err() != nil:
		return err
	case errors.Is(err, nixstore.ErrUnavailable), errors.Is(err, nixstore.ErrLocked):
		l.mu.Lock()
		defer l.mu.Unlock()
		if now := time.Now(); now.Sub(l.troubled) > time.Minute { // not for each request
			l.troubled = now
			l.log.Error("the local Nix store cannot be read; uploads are served", "error", err)
		}
		return refuse(http.StatusServiceUnavailable, "local-store", "this cache cannot read its own Nix store now, only what was uploaded; try again later, the server's log says why")
	}
	return err
}

// create starts a file of the cache. Where the disk has no room for it, packed
// copies of local paths make way: they can be made again.
func (u *Uploads) create(name string, size int64) (w blob.Writer, err error) {
	err = u.makingRoom(size, func() error {
		w, err = u.blobs.Create(name, size)
		return err
	})
	return w, err
}

// makingRoom does once more what found the disk full, if there is more room then.
func (u *Uploads) makingRoom(size int64, do func() error) error {
	err := do()
	if !errors.Is(err, blob.ErrFull) || u.local == nil || u.local.packed == nil {
		return err
	}
	need := max(size, 0)
	if disk, ok := u.blobs.(*blob.FS); ok {
		if free, err := disk.Free(); err == nil {
			need -= free
		}
	}
	freed := u.local.packed.MakeRoom(max(need, 1))
	if freed == 0 {
		return err
	}
	u.log.Info("removed packed copies of local paths: an upload needs the room", "bytes", freed)
	return do()
}
