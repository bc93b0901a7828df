package stored

import (
	"context"
	"io"

	"narwharf/cache/blob"
)

// narinfoRoom is what a narinfo takes on the disk, roughly.
const narinfoRoom = 16 << 10

// PutNar takes in a NAR file of size bytes, -1 if that is not known (upload.Store.PutNar).
// On a full disk what may be deleted makes way before a byte of it is read.
func (c *Cache) PutNar(ctx context.Context, file string, body io.Reader, size int64) error {
	if size <= c.Uploads.MaxNarSize {
		c.makeRoom(ctx, size)
	}
	return c.Uploads.PutNar(file, body, size)
}

// makeRoom makes room on a full disk. Where it cannot, whoever writes is refused.
func (c *Cache) makeRoom(ctx context.Context, size int64) {
	if free, known, err := blob.Free(c.Uploads.Files); c.Collector != nil && known && err == nil && free < max(size, narinfoRoom) {
		c.Collector.Room(ctx, max(size, narinfoRoom))
	}
}

// free is how many bytes uploads find free, nil where files are not on a disk.
func free(files blob.Store) func() (int64, error) {
	if _, known, _ := blob.Free(files); !known {
		return nil
	}
	return func() (int64, error) { free, _, err := blob.Free(files); return free, err }
}
