// Package room writes the files of uploads where there may be no room: compressed copies of local
// paths make way then, which can be made again.
package room

import (
	"errors"
	"fmt"
	"log/slog"
	"syscall"

	"narwharf/cache/blob"
)

// Room writes files.
type Room struct {
	Files blob.Store
	Local interface{ MakeRoom(n int64) (freed int64) } // see upload.LocalStore
	Log   *slog.Logger
}

// Create is that of Files.
func (r Room) Create(name string, size int64) (w blob.Writer, err error) {
	err = r.need(size, func() error {
		w, err = r.Files.Create(name, size)
		return err
	})
	return w, err
}

// Prepare is blob.Prepare.
func (r Room) Prepare(name string, text []byte) (w blob.Writer, err error) {
	err = r.need(int64(len(text)), func() error {
		w, err = blob.Prepare(r.Files, name, text)
		return err
	})
	return w, err
}

// need does once more what found the disk full, if there is more room then.
func (r Room) need(size int64, do func() error) error {
	err := do()
	if !errors.Is(err, blob.ErrFull) {
		return err
	}
	size = max(size, 0)
	if free, known, err := blob.Free(r.Files); known && err == nil {
		size -= free
	}
	freed := r.Local.MakeRoom(max(size, 1))
	if freed == 0 {
		return err
	}
	r.Log.Info("removed packed copies of local paths: an upload needs the room", "bytes", freed)
	return do()
}

// AsFull recognises a full disk in an error of the database, and makes it a blob.ErrFull.
func AsFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", blob.ErrFull, err)
	}
	return err
}
