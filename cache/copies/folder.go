package copies

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"narwharf/cache/blob"
	"narwharf/narinfo"
)

// maxNarinfo bounds a narinfo's text in bytes.
const maxNarinfo = 1 << 20

// Folder is a static Nix cache on the disk, to be read: what `nix copy --to file://…`
// writes, an export, the folder cache of a data_dir.
type Folder struct {
	dir    string
	beside sidecars
}

// OpenFolder looks whether a folder is a cache for paths of a store directory; "" is any.
func OpenFolder(dir, storeDir string) (*Folder, error) {
	text, err := os.ReadFile(filepath.Join(dir, cacheInfo))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no %s: is it a folder that nix copy --to file://… or narwharf export wrote?", dir, cacheInfo)
	}
	if err != nil {
		return nil, err
	}
	if is := StoreDir(text); storeDir != "" && is != "" && is != storeDir {
		return nil, fmt.Errorf("%s is a cache for paths of %s, not of %s", dir, is, storeDir)
	}
	return &Folder{dir: dir}, nil
}

const cacheInfo = "nix-cache-info"

// StoreDir is what the text of nix-cache-info says, "" if nothing.
func StoreDir(text []byte) string {
	for line := range strings.Lines(string(text)) {
		if dir, ok := strings.CutPrefix(line, "StoreDir:"); ok {
			return strings.TrimSpace(dir)
		}
	}
	return ""
}

// Hashes are the hash parts of all paths.
func (f *Folder) Hashes() ([]string, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	var hashes []string
	for _, e := range entries {
		if hash, ok := strings.CutSuffix(e.Name(), ".narinfo"); ok && narinfo.ValidHash(hash) {
			hashes = append(hashes, hash)
		}
	}
	return hashes, nil
}

// Info implements Source.
func (f *Folder) Info(_ context.Context, hash string) (*narinfo.Info, error) {
	name := filepath.Join(f.dir, hash+".narinfo")
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxNarinfo {
		return nil, fmt.Errorf("%s has %d bytes", name, st.Size())
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return ParseInfo(hash, text)
}

// ParseInfo reads a narinfo that was found under a hash part.
func ParseInfo(hash string, text []byte) (*narinfo.Info, error) {
	info, err := narinfo.Parse(text)
	if err == nil && info.Path.Hash() != hash {
		err = fmt.Errorf("it is for %s", info.Path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s.narinfo: %w", hash, err)
	}
	return info, nil
}

// NAR implements Source.
func (f *Folder) NAR(_ context.Context, info *narinfo.Info) (io.ReadCloser, error) {
	if !fs.ValidPath(info.URL) {
		return nil, fmt.Errorf("%s is no file of the folder", info.URL)
	}
	return os.Open(filepath.Join(f.dir, filepath.FromSlash(info.URL)))
}

// Files is a static Nix cache that is written: a Target over content files, in a folder
// or elsewhere.
type Files struct {
	store blob.Store
	done  func() error
}

// NewFiles begins or goes on with a cache for paths of a store directory. Close calls done.
func NewFiles(store blob.Store, storeDir string, done func()) (*Files, error) {
	text, err := blob.ReadFile(store, cacheInfo, 1<<16)
	switch is := StoreDir(text); {
	case errors.Is(err, fs.ErrNotExist):
		// As of other static caches: a server that can be asked comes before them.
		err = blob.WriteFile(store, cacheInfo, fmt.Appendf(nil, "StoreDir: %s\nWantMassQuery: 1\nPriority: 40\n", storeDir))
	case err == nil && is != "" && is != storeDir:
		err = fmt.Errorf("there is a cache for paths of %s already, and these are of %s", is, storeDir)
	}
	return &Files{store: store, done: func() error { done(); return nil }}, err
}

// work is the folder beside the files in which they are written. Nix does not look there.
const work = ".narwharf"

// WriteFolder begins or goes on with a cache in a folder. One process at a time does so.
func WriteFolder(dir, storeDir string) (*Files, error) {
	temp := filepath.Join(dir, work)
	if err := os.MkdirAll(temp, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lock(temp)
	if err != nil {
		return nil, err
	}
	store, err := blob.NewFS(dir, temp)
	if err == nil {
		err = store.Clean()
	}
	var f *Files
	if err == nil {
		f, err = NewFiles(store, storeDir, func() {})
	}
	if err != nil {
		return nil, errors.Join(err, unlock())
	}
	f.done = func() error { return errors.Join(os.RemoveAll(temp), unlock()) }
	return f, nil
}

// lock keeps other processes from a folder until it is unlocked, or we end.
func lock(dir string) (unlock func() error, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another narwharf is writing to %s", filepath.Dir(dir)), f.Close())
	}
	return f.Close, nil
}

// Close ends the writing.
func (f *Files) Close() error { return f.done() }

// Has implements Target.
func (f *Files) Has(_ context.Context, info *narinfo.Info) (bool, error) {
	text, err := blob.ReadFile(f.store, info.Path.Hash()+".narinfo", maxNarinfo)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return string(text) == string(info.Append(nil)), err
}

// HasNAR implements Target.
func (f *Files) HasNAR(_ context.Context, name string, size int64) (bool, error) {
	st, err := f.store.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return st.Size == size, err
}

// PutNAR implements Target.
func (f *Files) PutNAR(_ context.Context, name string, size int64, body func() (io.ReadCloser, error)) error {
	in, err := body()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := f.store.Create(name, size)
	if err != nil {
		return err
	}
	defer out.Abort()
	if _, err := io.Copy(struct{ io.Writer }{out}, in); err != nil {
		return err
	}
	return out.Commit()
}

// PutInfo implements Target.
func (f *Files) PutInfo(_ context.Context, info *narinfo.Info) error {
	for _, ref := range info.References {
		if ref == info.Path {
			continue
		}
		if _, err := f.store.Stat(ref.Hash() + ".narinfo"); errors.Is(err, fs.ErrNotExist) {
			return &Refused{fmt.Sprintf("%s, which it refers to, is not there", ref.In(info.StoreDir))}
		} else if err != nil {
			return err
		}
	}
	return blob.WriteFile(f.store, info.Path.Hash()+".narinfo", info.Append(nil))
}

// PutSidecar implements Target.
func (f *Files) PutSidecar(_ context.Context, name string, text []byte) error {
	is, err := blob.ReadFile(f.store, name, maxSidecar)
	if err == nil && bytes.Equal(is, text) || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return blob.WriteFile(f.store, name, text)
}
