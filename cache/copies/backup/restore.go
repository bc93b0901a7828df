package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"narwharf/cache/state/durable"
)

// Unfinished tells whether a restore of a data_dir was cut: it must not be served.
func Unfinished(dataDir string) bool {
	_, err := os.Stat(filepath.Join(dataDir, unfinished))
	return err == nil
}

// Restore makes dir a data_dir of a backup, which it leaves as it is. It overwrites
// nothing: dir is absent, empty, or from a Restore that was cut. It returns when the
// backup was made.
func Restore(ctx context.Context, from, dir string) (r Result, made time.Time, err error) {
	n, err := readNote(from)
	if errors.Is(err, fs.ErrNotExist) {
		return r, made, fmt.Errorf("%s is no backup: it has no %s", from, noteName)
	}
	if err != nil {
		return r, made, err
	}
	if n.Finished.IsZero() {
		return r, made, fmt.Errorf("the backup in %s was never finished: run narwharf backup %s again", from, from)
	}
	if inside(dir, from) || inside(from, dir) {
		return r, made, fmt.Errorf("%s and the backup %s lie in each other: name another folder", dir, from)
	}
	if err := makeRoom(dir); err != nil {
		return r, made, err
	}
	m, err := newMirror(from, dir)
	if err != nil {
		return r, made, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	err = m.walk(ctx, ".", func(rel string, _ fs.DirEntry) (skip bool) {
		return rel == noteName || rel == database || rel == database+".new"
	})
	if err == nil {
		err = m.copyAs(filepath.Join(from, database), database)
	}
	if err == nil {
		err = m.sync()
	}
	if err != nil {
		return m.result(), n.Finished, err
	}
	if err := os.Chmod(dir, n.Mode); err != nil {
		return m.result(), n.Finished, err
	}
	if os.Geteuid() == 0 {
		if err := os.Lchown(dir, n.UID, n.GID); err != nil {
			return m.result(), n.Finished, err
		}
	}
	if err := os.Remove(filepath.Join(dir, unfinished)); err != nil {
		return m.result(), n.Finished, err
	}
	return m.result(), n.Finished, durable.SyncDir(dir)
}

// makeRoom makes dir a folder that nothing is lost in.
func makeRoom(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	if Unfinished(dir) {
		return nil
	}
	if empty, err := isEmpty(dir); err != nil {
		return err
	} else if !empty {
		return fmt.Errorf("%s is not empty, and a restore overwrites nothing: name a new folder, or move what is there away", dir)
	}
	return durable.WriteFile(filepath.Join(dir, unfinished), []byte("narwharf restore was cut here: run it again\n"), 0o600)
}
