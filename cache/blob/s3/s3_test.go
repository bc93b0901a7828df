package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
	"go.uber.org/goleak"

	"narwharf/cache/blob"
	"narwharf/cache/blob/blobtest"
	"narwharf/cache/blob/diskcache"
	"narwharf/cache/blob/s3"
	"narwharf/cache/blob/s3/location"
	"narwharf/cache/blob/s3/s3test"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a store in a bucket, behind a disk cache of limit bytes.
func open(t testing.TB, where string, limit int64, change ...func(*s3.Options)) *s3.Store {
	t.Helper()
	at, err := location.Parse(where)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	near, err := diskcache.Open(diskcache.Options{Dir: t.TempDir(), Limit: limit, Log: log, Linger: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	o := s3.Options{Where: at, Credentials: credentials.NewStaticV4(s3test.AccessKey, s3test.SecretKey, ""), Cache: near, Log: log, Patience: 5 * time.Second}
	for _, c := range change {
		c(&o)
	}
	s, err := s3.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func fake(t testing.TB, limit int64, change ...func(*s3.Options)) (*s3.Store, *s3test.Bucket) {
	b, endpoint := s3test.Start(t)
	return open(t, "s3://bucket/some/where?endpoint="+endpoint, limit, change...), b
}

func TestContract(t *testing.T) {
	blobtest.Contract(t, func(t *testing.T) blob.Store {
		s, b := fake(t, 1<<30)
		t.Cleanup(func() {
			if n := b.Uploads(); n != 0 {
				t.Errorf("%d multipart uploads were left", n)
			}
		})
		return s
	})
}

// The real thing: versitygw keeps a bucket in a folder.
func TestContractVersitygw(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 15 seconds")
	}
	endpoint := s3test.Versitygw(t).Endpoint()
	n := 0
	blobtest.Contract(t, func(t *testing.T) blob.Store {
		n++
		return open(t, fmt.Sprintf("s3://bucket/%d?endpoint=%s", n, endpoint), 1<<30)
	})
	t.Run("large", func(t *testing.T) {
		s := open(t, "s3://bucket/large?endpoint="+endpoint, 1<<10)
		data := random(130 << 20) // three parts
		if err := blob.WriteFile(s, "nar/large", data); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(read(t, s, "nar/large"), data) {
			t.Error("other bytes came back")
		}
		w := begin(t, s, "nar/broken", data)
		if err := w.Prepare(); err != nil {
			t.Fatal(err)
		}
		blobtest.MustMiss(t, s, "nar/broken")
		if err := s.Clean(time.Now().Add(25 * time.Hour)); err != nil { // as after a kill
			t.Fatal(err)
		}
		if err := w.Commit(); err == nil {
			t.Error("what was swept was completed")
		}
		blobtest.MustMiss(t, s, "nar/broken")
	})
}

func random(n int) []byte {
	data := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(data)
	return data
}

func begin(t *testing.T, s blob.Store, name string, data []byte) blob.Writer {
	t.Helper()
	w, err := s.Create(name, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	return w
}

func read(t *testing.T, s blob.Store, name string) []byte {
	t.Helper()
	f, err := s.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f.Content)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// failing answers requests of a method wrong, the first n of them.
func failing(method string, n int64, how http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
	var seen atomic.Int64
	return func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method != method || seen.Add(1) > n {
			return false
		}
		_, _ = io.Copy(io.Discard, req.Body)
		how(w, req)
		return true
	}
}

func status(code int, name string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { s3test.Refuse(w, code, name) }
}

func broken(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// What passes is tried again, in each kind of request.
func TestPassingFaults(t *testing.T) {
	faults := map[string]http.HandlerFunc{
		"500": status(500, "InternalError"), "503": status(503, "SlowDown"), "the connection breaks": broken,
	}
	data := random(3 << 20)
	for name, how := range faults {
		for _, method := range []string{"GET", "HEAD", "PUT", "POST", "DELETE"} {
			t.Run(name+"/"+method, func(t *testing.T) {
				s, b := fake(t, 1<<10)
				b.Fault(failing(method, 2, how))
				for _, file := range []struct {
					name string
					data []byte
				}{{"nar/large", data}, {"small.narinfo", []byte("x")}} {
					if err := blob.WriteFile(s, file.name, file.data); err != nil {
						t.Fatal(err)
					}
					if st, err := s.Stat(file.name); err != nil || st.Size != int64(len(file.data)) {
						t.Errorf("%+v, %v", st, err)
					}
					if !bytes.Equal(read(t, s, file.name), file.data) {
						t.Error("other bytes came back")
					}
				}
				if err := s.Remove("nar/large", "small.narinfo"); err != nil {
					t.Error(err)
				}
				if keys := b.Keys(); len(keys) > 0 || b.Uploads() > 0 {
					t.Error(keys, b.Uploads())
				}
			})
		}
	}
}

// A body that is cut goes on where it was.
func TestCutBodies(t *testing.T) {
	s, b := fake(t, 1<<10)
	data := random(5 << 20)
	if err := blob.WriteFile(s, "nar/a", data); err != nil {
		t.Fatal(err)
	}
	cuts := 0
	b.Fault(func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodGet || cuts == 4 {
			return false
		}
		cuts++
		cut := &cutter{w, 1 << 20}
		b.Serve(cut, req)
		return true
	})
	if !bytes.Equal(read(t, s, "nar/a"), data) || cuts != 4 {
		t.Error("other bytes came back, after", cuts)
	}
}

// cutter sends some bytes and breaks the connection.
type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) > c.left {
		_, _ = c.ResponseWriter.Write(p[:c.left])
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

// Seeking costs no request, and reading on from where somebody is none either.
func TestSeek(t *testing.T) {
	s, b := fake(t, 0)
	data := random(3 << 20)
	if err := blob.WriteFile(s, "nar/a", data); err != nil {
		t.Fatal(err)
	}
	before := b.Count("GET")
	f, err := s.Open("nar/a")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, at := range []int{0, 5, 2 << 20, 0} {
		for _, to := range []struct {
			offset int64
			whence int
		}{{0, io.SeekEnd}, {int64(at), io.SeekStart}} {
			if _, err := f.Content.Seek(to.offset, to.whence); err != nil {
				t.Fatal(err)
			}
		}
		got, err := io.ReadAll(f.Content)
		if err != nil || !bytes.Equal(got, data[at:]) {
			t.Errorf("from %d: %d bytes, %v", at, len(got), err)
		}
		if n := b.Count("GET") - before; n != i+1 {
			t.Errorf("%d requests after %d reads", n, i+1)
		}
	}
}

// Other bytes than were written are an error at their end, never an end.
func TestDamagedObject(t *testing.T) {
	for _, limit := range []int64{1 << 10, 1 << 30} {
		for _, size := range []int{100, 3 << 20} {
			s, b := fake(t, limit)
			if err := blob.WriteFile(s, "nar/a", random(size)); err != nil {
				t.Fatal(err)
			}
			s.Cache.Drop("nar/a")
			b.Damage("some/where/nar/a")
			f, err := s.Open("nar/a")
			var got []byte
			if err == nil {
				got, err = io.ReadAll(f.Content)
				f.Close()
			}
			if err == nil || len(got) >= size || !strings.Contains(err.Error(), "other bytes") {
				t.Errorf("limit %d, size %d: %d bytes and %v", limit, size, len(got), err)
			}
			if _, err := s.Copy("nar/a"); !errors.Is(err, fs.ErrNotExist) {
				t.Error("it was kept", err)
			}
		}
	}
}

// A PUT whose answer says nothing true of what came is found when it is read; one that is
// answered with an ETag of something else cannot be completed.
func TestWrongETagOfAPart(t *testing.T) {
	s, b := fake(t, 1<<10)
	b.Fault(failing("PUT", 1, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"0123456789abcdef0123456789abcdef"`)
	}))
	if err := blob.WriteFile(s, "nar/a", random(3<<20)); err == nil {
		t.Error("it was taken")
	}
	blobtest.MustMiss(t, s, "nar/a")
}

// The answer of a completion is lost: the second finds it done.
func TestCompletedTwice(t *testing.T) {
	s, b := fake(t, 1<<10)
	var once sync.Once
	b.Fault(func(w http.ResponseWriter, req *http.Request) bool {
		lost := false
		if req.Method == http.MethodPost && req.URL.Query().Has("uploadId") {
			once.Do(func() { lost = true })
		}
		if lost {
			b.Serve(w, req)
			panic(http.ErrAbortHandler)
		}
		return false
	})
	data := random(2 << 20)
	if err := blob.WriteFile(s, "nar/a", data); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, s, "nar/a"), data) {
		t.Error("other bytes")
	}
}

// A bucket that is away is said to be so at once, copies go out, and it is found again.
func TestAway(t *testing.T) {
	s, b := fake(t, 1<<30)
	data := random(2 << 20)
	if err := blob.WriteFile(s, "nar/a", data); err != nil {
		t.Fatal(err)
	}
	away := atomic.Bool{}
	away.Store(true)
	b.Fault(func(w http.ResponseWriter, req *http.Request) bool {
		if away.Load() {
			s3test.Refuse(w, 503, "SlowDown")
		}
		return away.Load()
	})
	if _, err := s.Stat("nar/a"); !errors.Is(err, blob.ErrAway) {
		t.Fatal(err)
	}
	before := b.Count("PUT")
	if _, err := s.Create("nar/b", 1); !errors.Is(err, blob.ErrAway) || b.Count("PUT") != before {
		t.Error("an upload began:", err)
	}
	if !bytes.Equal(read(t, s, "nar/a"), data) {
		t.Error("other bytes")
	}
	if _, err := s.Open("nar/c"); !errors.Is(err, blob.ErrAway) {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Wait(ctx); !errors.Is(err, blob.ErrAway) {
		t.Error(err)
	}
	away.Store(false)
	if err := s.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	blobtest.Put(t, s, "nar/b", "x")
}

// Many who ask at once cause one request, and read while it comes.
func TestSingleFlight(t *testing.T) {
	s, b := fake(t, 1<<30)
	data := random(3 << 20)
	if err := blob.WriteFile(s, "nar/a", data); err != nil {
		t.Fatal(err)
	}
	s.Cache.Drop("nar/a")
	half, go1 := make(chan struct{}), make(chan struct{})
	b.Fault(func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodGet {
			return false
		}
		b.Serve(&halting{w, 1 << 20, half, go1}, req)
		return true
	})
	before := b.Count("GET")
	var all sync.WaitGroup
	first := make(chan struct{}, 8)
	for range 8 {
		all.Go(func() {
			f, err := s.Open("nar/a")
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			got := make([]byte, len(data))
			if _, err := io.ReadFull(f.Content, got[:1000]); err != nil {
				t.Error(err)
			}
			first <- struct{}{}
			if _, err := io.ReadFull(f.Content, got[1000:]); err != nil || !bytes.Equal(got, data) {
				t.Error("other bytes", err)
			}
			if _, err := f.Content.Seek(-5, io.SeekEnd); err != nil {
				t.Error(err)
			}
			if end, err := io.ReadAll(f.Content); err != nil || !bytes.Equal(end, data[len(data)-5:]) {
				t.Error("a range has other bytes", err)
			}
		})
	}
	<-half
	for range 8 {
		<-first // though the bucket has sent a third
	}
	close(go1)
	all.Wait()
	if n := b.Count("GET") - before; n != 1 {
		t.Errorf("%d requests", n)
	}
	f, err := s.Copy("nar/a")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, ok := f.Content.(*os.File); !ok {
		t.Errorf("%T cannot go out by sendfile", f.Content)
	}
}

// halting sends some bytes and waits.
type halting struct {
	http.ResponseWriter
	left     int
	half, on chan struct{}
}

func (h *halting) Write(p []byte) (int, error) {
	if h.left -= len(p); h.left < 0 && h.half != nil {
		if f, ok := h.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
		close(h.half)
		<-h.on
		h.half = nil
	}
	return h.ResponseWriter.Write(p)
}

// The least recently used copies go.
func TestDiskCacheIsBounded(t *testing.T) {
	s, _ := fake(t, 10<<10)
	for i := range 5 {
		blobtest.Put(t, s, fmt.Sprintf("nar/%d", i), strings.Repeat("x", 4<<10))
		if i == 1 {
			read(t, s, "nar/0")
		}
		if n := s.Cache.Size(); n > 10<<10 {
			t.Errorf("%d bytes are kept", n)
		}
		if i != 2 {
			continue
		}
		if f, err := s.Copy("nar/1"); err == nil {
			f.Close()
			t.Error("nar/1 was used before nar/0 and stayed")
		}
	}
	blobtest.Put(t, s, "nar/large", strings.Repeat("x", 9<<10)) // would drive out all others
	if _, err := s.Copy("nar/large"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a file larger than half of it was kept", err)
	}
	blobtest.MustHold(t, s, "nar/large", strings.Repeat("x", 9<<10))
}

func TestClean(t *testing.T) {
	s, b := fake(t, 1<<10)
	w := begin(t, s, "nar/a", random(2<<20))
	if err := w.Prepare(); err != nil {
		t.Fatal(err)
	}
	if err := s.Clean(time.Now()); err != nil || b.Uploads() != 1 {
		t.Error("one that goes on was swept", err)
	}
	b.Age(25 * time.Hour)
	if err := s.Clean(time.Now()); err != nil || b.Uploads() != 0 {
		t.Error("an old one stayed", err)
	}
	w.Abort()
}
