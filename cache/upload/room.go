package upload

import (
	"errors"
	"fmt"
	"log/slog"
	"syscall"

	"narwharf/cache/blob"
)

// room writes files. Where the disk is full, compressed copies of local paths
// make way: they can be made again.
type room struct {
	files blob.Store
	local LocalStore
	log   *slog.Logger
}

func (r room) create(name string, size int64) (w blob.Writer, err error) {
	err = r.need(size, func() error {
		w, err = r.files.Create(name, size)
		return err
	})
	return w, err
}

func (r room) prepare(name string, text []byte) (w blob.Writer, err error) {
	err = r.need(int64(len(text)), func() error {
		w, err = blob.Prepare(r.files, name, text)
		return err
	})
	return w, err
}

// need does once more what found the disk full, if there is more room then.
func (r room) need(size int64, do func() error) error {
	err := do()
	if !errors.Is(err, blob.ErrFull) {
		return err
	}
	size = max(size, 0)
	if free, known, err := blob.Free(r.files); known && err == nil {
		size -= free
	}
	freed := r.local.MakeRoom(max(size, 1))
	if freed == 0 {
		return err
	}
	r.log.Info("removed packed copies of local paths: an upload needs the room", "bytes", freed)
	return do()
}

// asFull recognises a full disk in an error of the database.
func asFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", blob.ErrFull, err)
	}
	return err
}
