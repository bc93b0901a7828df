package cache

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"narwharf/cache/blob"
	"narwharf/cache/blob/diskcache"
	"narwharf/cache/blob/s3"
	"narwharf/cache/blob/s3/location"
	"narwharf/cache/blob/s3/s3test"
)

// bucketWorld is a world whose files are in a bucket, which can be away.
type bucketWorld struct {
	*world
	store  *s3.Store
	bucket *s3test.Bucket
	away   atomic.Bool
}

// content is where the uploads of a world lie.
func (w *world) content() blob.Store {
	if w.setup.content != nil {
		return w.setup.content()
	}
	return w.files
}

func newBucketWorld(t *testing.T, redirect bool) *bucketWorld {
	b := new(bucketWorld)
	bucket, endpoint := s3test.Start(t)
	bucket.Fault(func(w http.ResponseWriter, req *http.Request) bool {
		if b.away.Load() {
			_, _ = io.Copy(io.Discard, req.Body)
			s3test.Refuse(w, http.StatusServiceUnavailable, "SlowDown")
		}
		return b.away.Load()
	})
	where, err := location.Parse("s3://bucket/nix?endpoint=" + endpoint)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	near, err := diskcache.Open(diskcache.Options{Dir: t.TempDir(), Limit: 1 << 30, Log: log, Linger: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	b.store, err = s3.New(s3.Options{Where: where, Credentials: credentials.NewStaticV4("key", "secret", ""), Cache: near, Redirect: redirect, Log: log, Hold: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	b.bucket = bucket
	b.world = newWorld(t, func(s *setup) { s.content = func() blob.Store { return b.store } })
	t.Cleanup(b.store.Close)
	return b
}

// Uploads lie in the bucket as a plain cache, and are served like files: from the copy on
// the connection, from the bucket when that is gone.
func TestBucket(t *testing.T) {
	w := newBucketWorld(t, false)
	p := newUpload(t, "p", "zstd")
	q := newUpload(t, "q", "none", p)
	w.putAll(p, q)
	want := []string{"nix/nix-cache-info", "nix" + p.infoURL(), "nix" + q.infoURL(), "nix" + p.narURL(), "nix" + q.narURL()}
	for _, key := range want {
		if !strings.Contains(strings.Join(w.bucket.Keys(), "\n"), key) {
			t.Errorf("%s is not in the bucket, which has %q", key, w.bucket.Keys())
		}
	}
	gets := w.bucket.Count("GET")
	w.mustServe(p, q)
	if n := w.bucket.Count("GET") - gets; n != 0 {
		t.Errorf("the bucket was asked for %d files that have copies", n)
	}
	w.store.Cache.Drop(p.info.URL)
	w.must(w.head(p.narURL()), 200)
	if n := w.bucket.Count("GET") - gets; n != 0 {
		t.Error("a HEAD fetched the file")
	}
	part := w.get(p.narURL(), "Range", "bytes=5-9")
	if part.status != 206 || part.body != string(p.body[5:10]) {
		t.Error(part)
	}
	w.mustServe(p)
	w.must(w.get("/"+p.info.Path.Hash()+".ls"), 200)
	if lines, _ := w.fsck(false); !strings.HasSuffix(strings.Join(lines, ""), ": clean") {
		t.Error(lines)
	}
	w.bucket.Damage("nix/" + q.info.URL)
	if lines, _ := w.fsck(false); strings.HasSuffix(strings.Join(lines, ""), ": clean") {
		t.Error("a damaged object was not found: a copy was read")
	}
}

// A client is sent to the bucket for a NAR, and for nothing else.
func TestRedirect(t *testing.T) {
	w := newBucketWorld(t, true)
	p := newUpload(t, "p", "zstd")
	w.putAll(p)
	for range 2 { // the fast path must not send the copy, either
		a := w.get(p.narURL())
		to := a.header.Get("Location")
		if a.status != 302 || !strings.Contains(to, "/bucket/nix/"+p.info.URL+"?") || !strings.Contains(to, "X-Amz-Expires=900") || !strings.Contains(to, "X-Amz-Signature=") {
			t.Fatal(a, a.header)
		}
		for name, want := range map[string]string{"Accept-Ranges": "bytes", "Cache-Control": "no-store", "Etag": ""} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		resp, err := w.client.Get(to)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != string(p.body) {
			t.Error("the link leads to something else", resp.Status, err)
		}
	}
	if a := w.head(p.narURL()); a.status != 200 || a.header.Get("Content-Length") == "" || a.header.Get("Location") != "" {
		t.Error(a, a.header)
	}
	w.must(w.get(p.infoURL()), 200)
	w.must(w.get(newUpload(t, "other", "zstd").narURL()), 404)
	w.away.Store(true)
	_, _ = w.store.Stat("x")
	if a := w.get(p.narURL()); a.status != 200 || a.body != string(p.body) {
		t.Error("the copy here does not go out", a)
	}
}

// While the bucket is away uploads wait before a byte of their body is read, copies and
// narinfos go out, and what is not here is to be asked for again.
func TestBucketAway(t *testing.T) {
	w := newBucketWorld(t, false)
	p, q, late := newUpload(t, "p", "zstd"), newUpload(t, "q", "zstd"), newUpload(t, "late", "zstd")
	w.putAll(p, q)
	w.store.Cache.Drop(q.info.URL)
	w.away.Store(true)
	if _, err := w.store.Stat("x"); !errors.Is(err, blob.ErrAway) {
		t.Fatal(err)
	}
	for agent, status := range map[string]int{"curl/8 Nix/2.26.3": 403, "curl/8 Nix/2.34.8": 503} {
		w.must(w.put(late.narURL(), late.body, "User-Agent", agent), status, "does not answer")
	}
	if a := w.do(http.MethodPut, late.narURL(), late.body); a.status != 401 {
		t.Error("rights come first", a)
	}
	w.mustServe(p)
	w.must(w.get(q.infoURL()), 200)
	if a := w.must(w.get(q.narURL()), 503, "does not answer"); a.header.Get("Accept-Ranges") != "bytes" {
		t.Error(a.header)
	}
	w.must(w.get("/readyz"), 503, "files", "does not answer")
	w.must(w.get("/healthz"), 200)

	w.store.Hold = time.Minute
	w.away.Store(false)
	w.putAll(late) // it waits until the bucket is seen to be back
	w.mustServe(late, q)
	w.must(w.get("/readyz"), 200)
	if _, err := w.store.Stat("nar/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
