// Package s3 keeps the files of a cache in an S3 bucket, in the plain layout of a Nix
// cache: Nix reads the bucket by s3://, without this program.
//
// # What it asks of a bucket
//
// Reading after writing, as S3 has promised since 2020. Objects are written by one PUT, or
// by a multipart upload: both appear whole or not at all. Bodies are signed with their
// SHA-256, which the bucket compares; trailing checksums are not sent, since versitygw
// 1.8 cannot take them in a multipart upload. Conditional writes are not used, either: who
// may write a name is for the state to decide, and a NAR's name says what it holds.
//
// # How it goes
//
// A file that is written lies on the local disk first. Prepare sends what is larger than a
// MiB, in parts of 64 MiB; Publish completes it, or sends what is small. So what others
// wait for in Publish is one short request. A process that is killed leaves parts without
// a name, which Clean removes after a day.
//
// NARs are read through a disk cache. Each object that was written here has its SHA-256 as
// metadata, and no reader gets the last byte of one whose bytes are others. A connection
// that breaks goes on where it was.
//
// A request that fails in a way that may pass is repeated some times. If none of them is
// answered the bucket is away: everything fails at once with blob.ErrAway, and one
// request a second looks whether it is back.
package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path"
	"strings"
	"time"
	"unicode"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/blob"
	"narwharf/cache/blob/diskcache"
	"narwharf/cache/blob/s3/location"
)

// Options of Open.
type Options struct {
	Where       *location.Location
	Credentials *credentials.Credentials
	Cache       *diskcache.Cache
	// Redirect has clients read NARs from the bucket itself.
	Redirect bool
	Log      *slog.Logger
	Metrics  prometheus.Registerer // nil: none
	// Hold is how long Wait waits; 0: a minute.
	Hold time.Duration
	// Patience is how long a request is tried, other than the sending of a large body;
	// 0: 15 seconds.
	Patience time.Duration
}

// Store is a blob.Remote in a bucket.
type Store struct {
	Options
	client    *minio.Core
	transport *http.Transport
	health    health
}

var _ blob.Remote = (*Store)(nil)

// New makes a Store. It asks the bucket nothing; see Check.
func New(o Options) (*Store, error) {
	if o.Patience == 0 {
		o.Patience = 15 * time.Second
	}
	if o.Hold == 0 {
		o.Hold = time.Minute
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: 20 * time.Second,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       60 * time.Second,
		DisableCompression:    true,
	}
	client, err := minio.NewCore(o.Where.Endpoint.Host, &minio.Options{
		Creds: o.Credentials, Secure: o.Where.Endpoint.Scheme == "https", Region: o.Where.Region, Transport: transport,
		MaxRetries: 1, // we do it
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Where, err)
	}
	s := &Store{Options: o, client: client, transport: transport}
	s.health.init(s)
	return s, nil
}

// Check asks whether the bucket is there and may be listed, and says what to do if not.
// One that does not answer is no error: it may come back.
func (s *Store) Check() error {
	err := s.List("", func(blob.Info) error { return errEnough })
	switch code := minio.ToErrorResponse(cause(err)).Code; {
	case err == nil, errors.Is(err, errEnough):
		return nil
	case errors.Is(err, blob.ErrAway):
		s.Log.Error("the bucket does not answer; what needs it waits", "bucket", s.String(), "error", err)
		return nil
	case code == "NoSuchBucket":
		return fmt.Errorf("%s: there is no such bucket: make it, or set another one as storage.content", s)
	case code == "InvalidAccessKeyId", code == "SignatureDoesNotMatch", code == "AccessDenied":
		return fmt.Errorf("%s: %s: the key of storage.credentials_file, or of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, needs GetObject, PutObject, DeleteObject, ListBucket and AbortMultipartUpload there", s, code)
	default:
		return fmt.Errorf("%s: %w", s, err)
	}
}

var errEnough = errors.New("enough")

// String says where the files are.
func (s *Store) String() string { return s.Where.String() }

// Close ends the fetches of the disk cache and the looking for a bucket that is away.
func (s *Store) Close() {
	s.health.close()
	s.Cache.Close()
	s.transport.CloseIdleConnections()
}

func (s *Store) key(name string) string { return s.Where.Prefix + name }

// cached tells whether a name says what it holds.
func cached(name string) bool { return strings.HasPrefix(name, "nar/") }

// Wait implements blob.Remote.
func (s *Store) Wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.Hold)
	defer cancel()
	return s.health.wait(ctx)
}

// Uncached implements blob.Remote.
func (s *Store) Uncached() blob.Store { return beneath{s} }

// beneath is the store without its copies.
type beneath struct{ *Store }

// Open implements blob.Store.
func (s beneath) Open(name string) (*blob.File, error) {
	if err := blob.CheckName(name); err != nil {
		return nil, err
	}
	return s.fetch(name)
}

// Copy implements blob.Remote.
func (s *Store) Copy(name string) (*blob.File, error) {
	if s.Redirect || !cached(name) {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return s.Cache.Copy(name)
}

// linkLife is how long a link may be used to begin reading.
const linkLife = 15 * time.Minute

// Link implements blob.Remote.
func (s *Store) Link(name string) (string, error) {
	if !s.Redirect || !cached(name) {
		return "", nil
	}
	u, err := s.client.PresignedGetObject(context.Background(), s.Where.Bucket, s.key(name), linkLife, nil)
	if err != nil {
		return "", fmt.Errorf("sign a link to %s: %w", name, err)
	}
	return u.String(), nil
}

// Open implements blob.Store.
func (s *Store) Open(name string) (*blob.File, error) {
	if err := blob.CheckName(name); err != nil {
		return nil, err
	}
	if !cached(name) {
		return s.fetch(name)
	}
	return s.Cache.Open(name, func() (*blob.File, error) { return s.fetch(name) })
}

// Stat implements blob.Store.
func (s *Store) Stat(name string) (info blob.Info, err error) {
	if err := blob.CheckName(name); err != nil {
		return info, err
	}
	err = s.do("head", name, s.Patience, func(ctx context.Context) error {
		o, err := s.client.StatObject(ctx, s.Where.Bucket, s.key(name), minio.StatObjectOptions{})
		info = infoOf(name, o)
		return err
	})
	return info, err
}

// infoOf is what a bucket says of an object. HTTP has seconds, a list less.
func infoOf(name string, o minio.ObjectInfo) blob.Info {
	return blob.Info{Name: name, Size: o.Size, ModTime: o.LastModified.Truncate(time.Second)}
}

// Remove implements blob.Store.
func (s *Store) Remove(names ...string) error {
	var errs []error
	var keys []string
	for _, name := range names {
		if err := blob.CheckName(name); err != nil {
			errs = append(errs, err)
			continue
		}
		keys = append(keys, name)
	}
	for len(keys) > 0 {
		n := min(len(keys), 1000) // of a request
		if err := s.removeSome(keys[:n]); err != nil {
			errs = append(errs, err)
		}
		for _, name := range keys[:n] {
			s.Cache.Drop(name)
		}
		keys = keys[n:]
	}
	return errors.Join(errs...)
}

func (s *Store) removeSome(names []string) error {
	if len(names) == 1 {
		return s.do("delete", names[0], s.Patience, func(ctx context.Context) error {
			return s.client.RemoveObject(ctx, s.Where.Bucket, s.key(names[0]), minio.RemoveObjectOptions{})
		})
	}
	return s.do("delete", fmt.Sprintf("%s and %d more", names[0], len(names)-1), s.Patience, func(ctx context.Context) error {
		all := make(chan minio.ObjectInfo, len(names))
		for _, name := range names {
			all <- minio.ObjectInfo{Key: s.key(name)}
		}
		close(all)
		var errs []error
		for e := range s.client.RemoveObjects(ctx, s.Where.Bucket, all, minio.RemoveObjectsOptions{}) {
			errs = append(errs, e.Err)
		}
		if len(errs) == 0 {
			return nil
		}
		return errs[0] // what may pass is tried again, for all
	})
}

// List implements blob.Store.
func (s *Store) List(dir string, fn func(blob.Info) error) error {
	return s.list(dir, func(name string, o minio.ObjectInfo) error {
		if strings.HasSuffix(name, "/") || blob.CheckName(name) != nil {
			return nil
		}
		return fn(infoOf(name, o))
	})
}

// Folders implements blob.Store.
func (s *Store) Folders(dir string) (names []string, err error) {
	err = s.list(dir, func(name string, _ minio.ObjectInfo) error {
		if folder, ok := strings.CutSuffix(name, "/"); ok && blob.CheckName(folder) == nil {
			names = append(names, path.Base(folder))
		}
		return nil
	})
	return names, err
}

// list calls fn for what is directly in dir, a folder with a slash at its end. After an
// error it goes on behind the last one.
func (s *Store) list(dir string, fn func(name string, o minio.ObjectInfo) error) error {
	prefix := s.Where.Prefix
	if dir != "" {
		if err := blob.CheckName(dir); err != nil {
			return err
		}
		prefix += dir + "/"
	}
	var after string
	var theirs error // of fn
	page := func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for o := range s.client.ListObjectsIter(ctx, s.Where.Bucket, minio.ListObjectsOptions{Prefix: prefix, StartAfter: after}) {
			if o.Err != nil {
				return o.Err
			}
			last := o.Key
			if strings.HasSuffix(last, "/") {
				last += string(unicode.MaxRune) // behind all in it
			}
			after = max(after, last)
			if o.Key == prefix {
				continue
			}
			if theirs = fn(strings.TrimPrefix(o.Key, s.Where.Prefix), o); theirs != nil {
				return nil
			}
		}
		return nil
	}
	for {
		before := after
		err := s.do("list", dir, listPatience, page)
		switch {
		case theirs != nil:
			return fmt.Errorf("list %s: %w", dir, theirs)
		case err == nil || after == before:
			return err
		}
	}
}

// listPatience is for all pages of a list. Each has to be answered within the transport's.
const listPatience = 24 * time.Hour
