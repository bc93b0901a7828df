package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"narwharf/cache/blob"
	"narwharf/cache/blob/diskcache"
)

const (
	// partSize is that of the parts of a multipart upload; a file of more than
	// maxParts of them has larger ones.
	partSize = 64 << 20
	maxParts = 9000 // S3 takes 10,000
	// maxObject is what S3 takes as one object.
	maxObject = 5 << 40
	// partsAtOnce are sent of one file.
	partsAtOnce = 3
	// slowest is what a bucket has to take, bytes a second.
	slowest = 256 << 10
	// leftAfter is when a multipart upload that nobody completed is swept.
	leftAfter = 24 * time.Hour
)

// Create implements blob.Store.
func (s *Store) Create(name string, size int64) (blob.Writer, error) {
	if err := blob.CheckName(name); err != nil {
		return nil, err
	}
	if size > maxObject {
		return nil, fmt.Errorf("%w: %s needs %d bytes, a bucket takes %d", blob.ErrFull, name, size, int64(maxObject))
	}
	if _, why := s.health.state(); why != nil {
		return nil, fmt.Errorf("store %s: %w", name, why)
	}
	spool, err := s.Cache.Spool(name, size)
	if err != nil {
		return nil, err
	}
	return &writer{s: s, name: name, spool: spool, hash: sha256.New()}, nil
}

type writer struct {
	s     *Store
	name  string
	spool *diskcache.Spool
	hash  hash.Hash

	sum                       string // hexadecimal
	upload                    string // of a multipart upload
	parts                     []minio.CompletePart
	prepared, published, done bool
	err                       error
}

func (w *writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if w.prepared || w.done {
		return 0, fmt.Errorf("store %s: already ended", w.name)
	}
	n, err := w.spool.Write(p)
	w.hash.Write(p[:n])
	w.err = err
	return n, err
}

// finish takes a step towards the end. One that fails ends the writer.
func (w *writer) finish(step func() error) error {
	if w.err == nil && w.done {
		w.err = fmt.Errorf("store %s: already ended", w.name)
	}
	if w.err == nil {
		if err := step(); err != nil {
			w.err = fmt.Errorf("store %s: %w", w.name, err)
		}
	}
	if w.err != nil {
		w.Abort()
	}
	return w.err
}

func (w *writer) Prepare() error { return w.finish(w.prepare) }

func (w *writer) Publish() error { return w.finish(w.publish) }

func (w *writer) Commit() error {
	if err := w.finish(w.publish); err != nil {
		return err
	}
	w.done = true
	if cached(w.name) {
		w.spool.Keep()
	} else {
		w.spool.Abort()
		w.s.Cache.Drop(w.name)
	}
	return nil
}

func (w *writer) Abort() {
	if w.done {
		return
	}
	w.done = true
	w.spool.Abort()
	if w.upload != "" && !w.published {
		upload := w.upload
		go func() { // what this cannot, Clean does
			ctx, cancel := context.WithTimeout(context.Background(), w.s.Patience)
			defer cancel()
			_ = w.s.client.AbortMultipartUpload(ctx, w.s.Where.Bucket, w.s.key(w.name), upload)
		}()
	}
	if w.err == nil {
		w.err = fmt.Errorf("store %s: aborted", w.name)
	}
}

func (w *writer) options() minio.PutObjectOptions {
	return minio.PutObjectOptions{
		ContentType: contentType(w.name), UserMetadata: map[string]string{sumKey: w.sum},
		DisableContentSha256: true, // of the chunks: the whole is signed
	}
}

// prepare sends what is large.
func (w *writer) prepare() error {
	if w.prepared {
		return nil
	}
	w.sum = hex.EncodeToString(w.hash.Sum(nil))
	size := w.spool.Size()
	if size > smallFile {
		err := w.s.do("create", w.name, w.s.Patience, func(ctx context.Context) (err error) {
			w.upload, err = w.s.client.NewMultipartUpload(ctx, w.s.Where.Bucket, w.s.key(w.name), w.options())
			return err
		})
		if err != nil {
			return err
		}
		if err := w.sendParts(size); err != nil {
			return err
		}
	}
	w.prepared = true
	return nil
}

func (w *writer) sendParts(size int64) error {
	step := max(partSize, size/maxParts+1)
	w.parts = make([]minio.CompletePart, (size+step-1)/step)
	var all errgroup.Group
	all.SetLimit(partsAtOnce)
	for i := range w.parts {
		all.Go(func() error {
			from := int64(i) * step
			return w.sendPart(i, from, min(step, size-from))
		})
	}
	return all.Wait()
}

func (w *writer) sendPart(i int, from, size int64) error {
	sum := sha256.New()
	if _, err := io.Copy(sum, w.spool.Part(from, size)); err != nil {
		return err
	}
	return w.s.do("part", w.name, w.s.Patience+time.Duration(size/slowest)*time.Second, func(ctx context.Context) error {
		part, err := w.s.client.PutObjectPart(ctx, w.s.Where.Bucket, w.s.key(w.name), w.upload, i+1, w.spool.Part(from, size), size,
			minio.PutObjectPartOptions{Sha256Hex: hex.EncodeToString(sum.Sum(nil)), DisableContentSha256: true})
		w.parts[i] = minio.CompletePart{PartNumber: i + 1, ETag: part.ETag}
		return err
	})
}

// publish makes the file visible.
func (w *writer) publish() error {
	if w.published {
		return nil
	}
	if err := w.prepare(); err != nil {
		return err
	}
	var err error
	if w.upload == "" {
		size := w.spool.Size()
		err = w.s.do("put", w.name, w.s.Patience, func(ctx context.Context) error {
			_, err := w.s.client.PutObject(ctx, w.s.Where.Bucket, w.s.key(w.name), w.spool.Part(0, size), size, "", w.sum, w.options())
			return err
		})
	} else {
		err = w.complete()
	}
	w.published = err == nil
	return err
}

// complete ends a multipart upload. One whose answer was lost is not there for the
// second try: then the object is.
func (w *writer) complete() error {
	return w.s.do("complete", w.name, w.s.Patience, func(ctx context.Context) error {
		_, err := w.s.client.CompleteMultipartUpload(ctx, w.s.Where.Bucket, w.s.key(w.name), w.upload, w.parts, minio.PutObjectOptions{})
		if minio.ToErrorResponse(err).Code != "NoSuchUpload" {
			return err
		}
		o, err2 := w.s.client.StatObject(ctx, w.s.Where.Bucket, w.s.key(w.name), minio.StatObjectOptions{})
		if err2 == nil && o.UserMetadata[sumKey] == w.sum && o.Size == w.spool.Size() {
			return nil
		}
		return errors.Join(err, err2)
	})
}

// contentType is what a browser or another cache is told of a file.
func contentType(name string) string {
	switch {
	case cached(name):
		return "application/x-nix-nar"
	case len(name) == 32+len(".narinfo") && name[32:] == ".narinfo":
		return "text/x-nix-narinfo"
	}
	return "application/octet-stream"
}

// Clean removes the parts of uploads that nobody completed within a day: those of
// processes that were killed.
func (s *Store) Clean(now time.Time) error {
	var keyMarker, idMarker string
	for {
		var page minio.ListMultipartUploadsResult
		err := s.do("list", "uploads", s.Patience, func(ctx context.Context) (err error) {
			page, err = s.client.ListMultipartUploads(ctx, s.Where.Bucket, s.Where.Prefix, keyMarker, idMarker, "", 1000)
			return err
		})
		if err != nil {
			return err
		}
		for _, u := range page.Uploads {
			if now.Sub(u.Initiated) < leftAfter {
				continue
			}
			err := s.do("abort", u.Key, s.Patience, func(ctx context.Context) error {
				return s.client.AbortMultipartUpload(ctx, s.Where.Bucket, u.Key, u.UploadID)
			})
			if err != nil && minio.ToErrorResponse(cause(err)).Code != "NoSuchUpload" {
				return err
			}
			s.Log.Info("removed the parts of an upload that was broken off", "file", u.Key, "began", u.Initiated)
		}
		if !page.IsTruncated {
			return nil
		}
		keyMarker, idMarker = page.NextKeyMarker, page.NextUploadIDMarker
	}
}
