package scrub

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"narwharf/cache/blob"
	"narwharf/narinfo"
)

// file reads a NAR file at a bounded rate and says what is wrong with it, "" if nothing.
func (s *Scrubber) file(ctx context.Context, name string) (text string, err error) {
	in, err := blob.Uncached(s.Uploads.Files).Open(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "it is gone", nil
	case errors.Is(err, blob.ErrAway):
		return "", err // that says nothing of the file
	case err != nil:
		return "it cannot be read: " + err.Error(), nil
	}
	defer in.Close()
	forget(in.Content) // else it is memory that is read
	defer forget(in.Content)
	sum := sha256.New()
	buf := make([]byte, 256<<10)
	begun, n := time.Now(), int64(0)
	for {
		k, err := in.Content.Read(buf)
		sum.Write(buf[:k])
		n += int64(k)
		s.read.Add(int64(k))
		if err == io.EOF {
			break
		}
		if errors.Is(err, blob.ErrAway) {
			return "", err
		}
		if err != nil {
			return "it cannot be read: " + err.Error(), nil
		}
		wait(ctx, time.Duration(float64(n)/float64(s.Rate)*float64(time.Second))-time.Since(begun))
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
	}
	if is := narinfo.Hash(sum.Sum(nil)).Base32(); len(name) < 56 || name[4:56] != is {
		return fmt.Sprintf("the SHA-256 of its %d bytes is %s", n, is), nil
	}
	return "", nil
}
