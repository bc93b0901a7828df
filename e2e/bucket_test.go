package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"narwharf/cache/blob/s3/s3test"
)

// bucketServer is a server with its content in a bucket of versitygw.
type bucketServer struct {
	*Server
	gateway *s3test.Gateway
	before  *Recorder // before the bucket
	line    *Proxy    // before that
	token   string
}

// newBucketServer does not start it. more are lines of [storage].
func newBucketServer(t *testing.T, more ...string) *bucketServer {
	t.Helper()
	b := &bucketServer{gateway: s3test.Versitygw(t)}
	b.before = NewRecorder(t, b.gateway.Endpoint(), "")
	// The host name is another one than the server's, whose password clients must not send there.
	b.line = NewProxy(t, b.before.Addr())
	endpoint := strings.Replace(b.line.URL(), "127.0.0.1", "localhost", 1)
	dir := scratch(t)
	b.Server = newServer(t, dir, func(c *Config) {
		c.PublicURL = strings.Replace(c.Listen[0], "127", "http://127", 1)
		c.More = append(c.More, "[storage]\n"+strings.Join(append([]string{
			fmt.Sprintf("content = %q", "s3://bucket?endpoint="+endpoint),
			`credentials_file = "bucket-key"`,
		}, more...), "\n")+"\n")
	})
	b.writeFile(filepath.Join(dir, "bucket-key"), "aws_access_key_id = "+s3test.AccessKey+"\naws_secret_access_key = "+s3test.SecretKey+"\n", 0o600)
	return b
}

func (b *bucketServer) start() {
	b.T.Helper()
	b.Start()
	if b.token == "" {
		b.token = b.Token("ci", "push", "admin")
	}
}

// forget removes the copies of what lies in the bucket from the stopped server's disk.
func (b *bucketServer) forget() {
	b.T.Helper()
	if err := os.RemoveAll(filepath.Join(b.Data, "disk-cache")); err != nil {
		b.T.Fatal(err)
	}
}

// public lets anybody read the bucket.
func (b *bucketServer) public() {
	b.T.Helper()
	client, err := minio.New(b.gateway.Address, &minio.Options{Creds: credentials.NewStaticV4(s3test.AccessKey, s3test.SecretKey, ""), Region: "us-east-1"})
	if err == nil {
		err = client.SetBucketPolicy(context.Background(), "bucket", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":["s3:GetObject"],"Resource":["arn:aws:s3:::bucket/*"]}]}`)
	}
	if err != nil {
		b.T.Fatal(err)
	}
}

// Stock clients upload to a server whose content is in a bucket, and substitute from it: from the copies,
// and after a restart without them. Nix 2.34 reads the bucket by itself.
func TestBucketWithNix(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		paths := c.Paths("a", "selfref", "zoo", "multi_dev")
		b := newBucketServer(t)
		b.start()
		NewNix(t, suite).In(c.Root).Netrc(b.token).Push(b.URL(), "?compression=zstd", paths...)
		b.Fsck()
		for _, restart := range []bool{false, true} {
			if restart {
				b.Stop()
				b.forget()
				b.start()
			}
			down := NewNix(t, suite).Trust(b.URL(), b.Key)
			down.Must("nix-store", append([]string{"--realise"}, paths...)...)
			down.Verify()
		}
		if entries, err := os.ReadDir(filepath.Join(b.gateway.Dir, "bucket", "nar")); err != nil || len(entries) < len(paths) {
			t.Errorf("%d NARs lie in the bucket, %v", len(entries), err)
		}
		if n := NewNix(t, suite); n.AtLeast(2, 34) {
			b.public()
			n.Pull("s3://bucket?region=us-east-1&scheme=http&endpoint="+b.gateway.Address, paths...)
			n.Verify()
		}
		dir := filepath.Join(scratch(t), "export")
		if out := b.CLI("export", dir); out.Code != 0 {
			t.Fatal(out)
		}
		copy := NewNix(t, suite)
		copy.Pull("file://"+dir, paths...)
		copy.Verify()
	})
}

// Clients are sent to the bucket for NARs, resume there, and do not show it the password for the server.
func TestBucketRedirect(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		big := c.Path("random")
		b := newBucketServer(t, "redirect = true")
		b.start()
		NewNix(t, suite).In(c.Root).Netrc(b.token).Push(b.URL(), "?compression=none", big, c.Path("a"))
		b.before.Reset()
		server := NewRecorder(t, b.URL(), "")
		b.line.Cut(Down, 8<<20, 2)
		down := NewNix(t, suite).Trust(server.URL(), b.Key).Netrc(b.token)
		down.Must("nix-store", "--realise", big, c.Path("a"))
		down.Verify()
		resumed := false
		for _, req := range b.before.Select(http.MethodGet, "/bucket/nar/") {
			if req.Header.Get("Authorization") != "" {
				t.Errorf("the bucket was shown the password for the server: %v", req)
			}
			resumed = resumed || req.Header.Get("Range") != ""
		}
		if !resumed {
			t.Error("nothing was resumed at the bucket")
		}
		asked := server.Select(http.MethodGet, "/nar/")
		if len(asked) < 2 {
			t.Errorf("the server was asked for %d NARs", len(asked))
		}
		for _, req := range asked {
			if req.Status != http.StatusFound {
				t.Errorf("%v", req)
			}
		}
	})
}

// A bucket that is away for a while is a delay: what has a copy goes out, an upload waits, and what
// Nix cannot repeat is refused in words.
func TestBucketAway(t *testing.T) {
	t.Parallel()
	b := newBucketServer(t)
	b.start()
	u, anyone := NewUploader(t, b.URL(), b.token), NewUploader(t, b.URL(), "")
	here, late := NewPath("here", RandomNAR(1, 3<<20)), NewPath("late", RandomNAR(2, 3<<20))
	u.Upload(here)
	b.gateway.Stop()
	soon(t, 30*time.Second, func() string { return wantStatus(anyone, "/readyz", http.StatusServiceUnavailable) })
	anyone.Fetch(here)
	done := make(chan error, 1)
	go func() {
		_, err := NewUploader(t, b.URL(), b.token).TryUpload(late)
		done <- err
	}()
	waits := make(chan error, 1)
	go func() {
		_, err := NewUploader(t, b.URL(), "").Try(http.MethodGet, "/nar/"+strings.Repeat("0", 52)+".nar", "", nil)
		waits <- err
	}()
	if reply, err := NewUploader(t, b.URL(), "").Try(http.MethodPut, "/"+late.Hash()+".narinfo", "text/x-nix-narinfo", []byte("x")); err != nil || reply.Status != http.StatusUnauthorized {
		t.Errorf("rights come first: %v, %v", reply, err)
	}
	select {
	case err := <-done:
		t.Fatalf("an upload did not wait: %v", err)
	case <-waits:
		t.Fatal("a download did not wait")
	case <-time.After(2 * time.Second):
	}
	b.gateway.Start()
	if err := <-done; err != nil {
		t.Error(err)
	}
	<-waits
	anyone.Fetch(late)
	soon(t, 10*time.Second, func() string { return wantStatus(anyone, "/readyz", http.StatusOK) })
}

// A promote while the bucket is away is refused in words, changes nothing, and is good once it is back.
func TestBucketAwayPromote(t *testing.T) {
	t.Parallel()
	b := newBucketServer(t)
	b.start()
	token := b.Token("op", "push", "promote:web", "operate")
	u, p := NewUploader(t, b.URL(), token), newPromoter(b.Server, b.bin, token, NewKey("deploy-1"))
	first, second := NewPath("first", RandomNAR(1, 5000)), NewPath("second", RandomNAR(2, 5000))
	u.Upload(first, second)
	p.promote(0, "promoted web to seq 1", storePath(first))
	b.gateway.Stop()
	soon(t, 30*time.Second, func() string {
		return wantStatus(NewUploader(t, b.URL(), ""), "/readyz", http.StatusServiceUnavailable)
	})
	p.promote(2, "the bucket that keeps this server's files does not answer", storePath(second))
	p.must(0, storePath(first), "channel", "show", "web") // what was released goes on
	b.gateway.Start()
	soon(t, 30*time.Second, func() string { return wantStatus(NewUploader(t, b.URL(), ""), "/readyz", http.StatusOK) })
	p.promote(0, "promoted web to seq 2", storePath(second))
}

// The server is killed at random moments of uploads: what was accepted is there, nothing torn is ever
// seen, and parts that nobody completes have no name.
func TestBucketKill(t *testing.T) {
	t.Parallel()
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	b := newBucketServer(t)
	b.start()
	var paths []*Path
	for i := range 40 {
		paths = append(paths, NewPath("killed", RandomNAR(uint64(700+i), 100_000*(1+i%20)), paths[max(0, i-1):i]...))
	}
	accepted := map[string]bool{}
	for round := range rounds {
		part := paths[:(round+1)*len(paths)/rounds]
		b.killedInUpload(b.token, part, accepted, 20*time.Millisecond)
		b.Start()
		b.Fsck()
		b.stillHas(accepted)
	}
	t.Logf("%d of %d paths were accepted in %d interrupted uploads", len(accepted), len(paths), rounds)
	u := NewUploader(t, b.URL(), b.token)
	u.Upload(paths...)
	b.Stop()
	b.forget()
	b.Start()
	for _, p := range paths {
		u.Fetch(p)
	}
	if key, err := os.ReadFile(b.Log); err != nil || bytes.Contains(key, []byte(s3test.SecretKey)) {
		t.Error("the log has the key of the bucket", err)
	}
}

// What nothing keeps goes out of the bucket, and what a channel names stays.
func TestBucketCollect(t *testing.T) {
	t.Parallel()
	b := newBucketServer(t)
	b.Reconfigure(func(c *Config) {
		c.Retention = []string{`grace = "2s"`, `lease = "1s"`, fmt.Sprintf("max_size = %d", 6<<20), `interval = "1s"`}
	})
	b.start()
	token := b.Token("op", "push", "promote:web", "operate")
	u, p := NewUploader(t, b.URL(), token), newPromoter(b.Server, b.bin, token, NewKey("deploy-1"))
	named := NewPath("named", RandomNAR(1, 1<<20))
	u.Upload(named)
	p.promote(0, "promoted web to seq 1", storePath(named))
	for i := range 12 {
		u.Upload(NewPath(fmt.Sprintf("build-%d", i), RandomNAR(uint64(10+i), 1<<20)))
	}
	soon(t, time.Minute, func() string {
		entries, err := os.ReadDir(filepath.Join(b.gateway.Dir, "bucket", "nar"))
		if err != nil || len(entries) > 6 {
			return fmt.Sprintf("%d NARs lie in the bucket, %v", len(entries), err)
		}
		return ""
	})
	u.Fetch(named)
	b.Fsck()
}

// A bucket that Nix wrote by itself is taken over in its place: rebuild makes the index of it.
func TestBucketTakenOver(t *testing.T) {
	t.Parallel()
	c := NeedClosures(t, newest())
	paths := c.Paths("a", "selfref", "multi_dev")
	b := newBucketServer(t)
	// Debian's Nix cannot sign for a bucket; versitygw's is a folder.
	NewNix(t, newest()).In(c.Root).Push("file://"+filepath.Join(b.gateway.Dir, "bucket"), "?compression=zstd", paths...)
	if out := b.CLI("rebuild"); out.Code != 0 {
		t.Fatal(out)
	}
	b.start()
	down := NewNix(t, newest()).Trust(b.URL(), b.Key)
	down.Must("nix-store", append([]string{"--realise"}, paths...)...)
	down.Verify()
	b.Fsck()
}
