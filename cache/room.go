package cache

import (
	"errors"

	"narwharf/cache/blob"
)

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
	if !errors.Is(err, blob.ErrFull) || u.local == nil {
		return err
	}
	need := max(size, 0)
	if disk, ok := u.blobs.(*blob.FS); ok {
		if free, err := disk.Free(); err == nil {
			need -= free
		}
	}
	freed := u.local.MakeRoom(max(need, 1))
	if freed == 0 {
		return err
	}
	u.log.Info("removed packed copies of local paths: an upload needs the room", "bytes", freed)
	return do()
}
