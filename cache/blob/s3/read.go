package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"time"

	"github.com/minio/minio-go/v7"

	"narwharf/cache/blob"
)

// smallFile is read whole when it is opened, and written in one request.
const smallFile = 1 << 20

// sumKey is the metadata with the SHA-256 of an object, in hexadecimal.
const sumKey = "Sha256"

// bodyIdle is how long a body may be silent.
const bodyIdle = 20 * time.Second

// fetch opens a file in the bucket.
func (s *Store) fetch(name string) (*blob.File, error) {
	r := &reader{s: s, name: name, hash: sha256.New()}
	var small []byte
	err := s.do("get", name, s.Patience, func(ctx context.Context) (err error) {
		if err := r.request(ctx); err != nil {
			return err
		}
		if r.info.Size > smallFile {
			return nil
		}
		defer r.shut()
		small = make([]byte, r.info.Size)
		if _, err := io.ReadFull(r.body, small); err != nil {
			return fmt.Errorf("%w: %w", errCut, err)
		}
		return r.check(small)
	})
	if err != nil {
		r.shut()
		return nil, err
	}
	f := &blob.File{Info: r.info, Content: r}
	if r.body == nil {
		f.Content = inMemory{bytes.NewReader(small)}
	}
	return f, nil
}

type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

// reader reads an object. A connection that breaks goes on where it was; the bytes are
// compared with the SHA-256 that the object has, if they are read from its begin to its end.
type reader struct {
	s    *Store
	name string
	info blob.Info
	etag string
	sum  string // of the object, "" if it has none

	body   io.ReadCloser // nil: to be asked for
	cancel context.CancelFunc
	pos    int64     // of its next byte
	at     int64     // of the byte that is wanted next
	hash   hash.Hash // of the first hashed bytes; nil: they were not read in order
	hashed int64
	err    error
}

// request asks for the object from at on.
func (r *reader) request(ctx context.Context) error {
	r.shut()
	var o minio.GetObjectOptions
	if r.at > 0 {
		if err := o.SetRange(r.at, 0); err != nil {
			return err
		}
	}
	if r.etag != "" { // what a Nix wrote into a folder that is a bucket may have none
		if err := o.SetMatchETag(r.etag); err != nil {
			return err
		}
	}
	// The body outlives the context of the request.
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	body, info, _, err := r.s.client.GetObject(own, r.s.Where.Bucket, r.s.key(r.name), o)
	if !stop() && err == nil {
		body.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		cancel()
		return err
	}
	r.body, r.cancel, r.pos = body, cancel, r.at
	if r.info.Name == "" {
		r.info, r.etag, r.sum = infoOf(r.name, info), info.ETag, info.UserMetadata[sumKey]
	}
	return nil
}

func (r *reader) shut() {
	if r.body != nil {
		r.cancel()
		r.body.Close()
		r.body = nil
	}
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.at >= r.info.Size {
		return 0, io.EOF
	}
	if r.pos != r.at {
		r.shut()
	}
	if r.hashed != r.at {
		r.hash = nil
	}
	p = p[:min(int64(len(p)), r.info.Size-r.at)]
	n, err := r.next(p)
	for try := 0; n == 0 && err != nil; try++ {
		r.shut()
		if try == tries || !passing(err) && !errors.Is(err, errCut) {
			r.err = fmt.Errorf("read %s at %d: %w", r.name, r.at, err)
			return 0, r.err
		}
		r.s.health.requests.WithLabelValues("get", "retried").Inc()
		pause(context.Background(), r.s.health.closed, try)
		n, err = r.next(p)
	}
	if r.hash != nil {
		r.hash.Write(p[:n])
	}
	r.at += int64(n)
	r.pos, r.hashed = r.at, r.at
	if r.at == r.info.Size && r.hash != nil {
		if r.err = r.compare(r.hash.Sum(nil)); r.err != nil {
			return 0, r.err
		}
	}
	return n, nil
}

// next reads some bytes, for which it asks if need be.
func (r *reader) next(p []byte) (int, error) {
	if r.body == nil {
		if err := r.s.do("get", r.name, r.s.Patience, r.request); err != nil {
			return 0, err
		}
	}
	silent := time.AfterFunc(bodyIdle, r.cancel)
	n, err := r.body.Read(p)
	silent.Stop()
	if n == 0 && err != nil {
		err = fmt.Errorf("%w: %w", errCut, err)
	}
	return n, err
}

// check compares all bytes of the object.
func (r *reader) check(all []byte) error {
	sum := sha256.Sum256(all)
	return r.compare(sum[:])
}

func (r *reader) compare(sum []byte) error {
	if is := hex.EncodeToString(sum); r.sum != "" && is != r.sum {
		r.s.Log.Error("the bucket sent other bytes than were put there", "file", r.name, "sha256", is, "was", r.sum)
		return fmt.Errorf("%s: the bucket sent other bytes than were put there (SHA-256 %s, not %s)", r.name, is, r.sum)
	}
	return nil
}

// Seek implements io.Seeker.
func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.info.Size
	}
	if offset < 0 {
		return 0, fs.ErrInvalid
	}
	r.at = offset
	return offset, nil
}

// Close implements io.Closer.
func (r *reader) Close() error {
	if r.err == nil {
		r.err = fs.ErrClosed
	}
	r.shut()
	return nil
}
