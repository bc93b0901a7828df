package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/blob/s3/s3test"
	"narwharf/cache/state/postgres/postgrestest"
)

// places are a database and a bucket, and servers of one cache.
type places struct {
	t       *testing.T
	key     Key
	db      *postgrestest.Server
	gateway *s3test.Gateway
}

func newPlaces(t *testing.T) *places {
	t.Helper()
	db := postgrestest.Need(t, "max_connections=60", "fsync=off")
	return &places{t: t, key: NewKey("cluster-1"), db: db, gateway: s3test.Versitygw(t)}
}

func (p *places) state() string {
	p.t.Helper()
	name, err := p.db.Database()
	if err != nil {
		p.t.Fatal(err)
	}
	return fmt.Sprintf("state = %q\n", p.db.URL(name))
}

func (p *places) bucket() string {
	return fmt.Sprintf("content = %q\ncredentials_file = \"bucket-key\"\n", "s3://bucket?endpoint="+p.gateway.Endpoint())
}

// server is one with a section [storage], not started, in a folder of its own.
func (p *places) server(storage string) *Server {
	p.t.Helper()
	s := newServer(p.t, scratch(p.t), func(c *Config) {
		if storage != "" {
			c.More = append(c.More, "[storage]\n"+storage)
		}
	})
	s.Key = p.key
	s.writeFile(filepath.Join(s.Dir, "bucket-key"), "aws_access_key_id = "+s3test.AccessKey+"\naws_secret_access_key = "+s3test.SecretKey+"\n", 0o600)
	s.Reconfigure(func(c *Config) { c.SecretKeyFiles = []string{s.WriteKey(p.key)} })
	return s
}

// migrated is what narwharf migrate --json says.
type migrated struct {
	Content, State *struct{ Files, Rows, Changed int64 }
	ReadOnly       int64 `json:"read_only_ms"`
	Done           bool
}

func migrate(from, to *Server, args ...string) migrated {
	from.T.Helper()
	out := from.CLI(append([]string{"migrate", "--json", "--to", to.configFile()}, args...)...)
	var m migrated
	if err := json.Unmarshal([]byte(out.Stdout), &m); out.Code != 0 || err != nil {
		from.T.Fatalf("%v\n%v\n%s", err, out, from.LogTail())
	}
	return m
}

// writer uploads and promotes until it is told to end, and knows what was answered.
type writer struct {
	mu       sync.Mutex
	paths    []*Path
	refused  string
	stop     chan struct{}
	finished sync.WaitGroup
}

func (w *writer) begin(t *testing.T, s *Server, token string) {
	w.stop = make(chan struct{})
	for i := range 2 {
		w.finished.Go(func() {
			u := NewUploader(t, s.URL(), token)
			for n := 0; ; n++ {
				select {
				case <-w.stop:
					return
				default:
				}
				p := NewPath(fmt.Sprintf("w%d-%d", i, n), RandomNAR(uint64(100_000*i+n), 20_000))
				accepted, err := u.TryUpload(p)
				w.mu.Lock()
				if len(accepted) == 1 {
					w.paths = append(w.paths, p)
				} else if err != nil {
					w.refused = err.Error()
				}
				w.mu.Unlock()
			}
		})
	}
}

func (w *writer) end() {
	close(w.stop)
	w.finished.Wait()
}

// A data_dir moves to a bucket and a database while it is written to, by a command that is killed again and again, and
// back. What was answered is there.
func TestMigrate(t *testing.T) {
	t.Parallel()
	p := newPlaces(t)
	old, next, back := p.server(""), p.server(p.state()+p.bucket()), p.server("")
	old.Start()
	token := old.Token("op", "push", "promote:*", "operate")
	u, op := NewUploader(t, old.URL(), token), newPromoter(old, old.bin, token, NewKey("deploy-1"))
	var paths []*Path
	for i := range 40 {
		paths = append(paths, NewPath(fmt.Sprintf("p%d", i), RandomNAR(uint64(i), 30_000*(1+i%8)), paths[max(0, i-2):i]...))
	}
	u.Upload(paths...)
	log := "/log/" + strings.Repeat("a", 32) + "-x.drv"
	u.Do(http.MethodPut, log, "text/plain", []byte("a build log"))
	op.promote(0, "promoted web to seq 1", storePath(paths[3]))
	out := old.CLI("migrate", "--to", next.configFile(), "--ahead")
	if out.Code != 0 || !strings.Contains(out.Stdout, "goes on as before") {
		t.Fatal(out)
	}
	if out := next.CLI("fsck"); out.Code != 2 || !strings.Contains(out.Stderr, "is not at its end: run narwharf migrate again") {
		t.Errorf("a half of a cache was opened\n%v", out)
	}

	w := &writer{}
	w.begin(t, old, token)
	kills := 8
	if testing.Short() {
		kills = 3
	}
	r := rand.New(rand.NewPCG(7, uint64(os.Getpid())))
	for range kills {
		cmd := exec.Command(old.bin, "migrate", "--config", old.configFile(), "--to", next.configFile())
		cmd.Dir = old.Dir
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(50+r.IntN(900)) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		NewUploader(t, old.URL(), "").Fetch(paths[0]) // reads go on, whatever it had come to
	}
	done := migrate(old, next)
	w.end()
	t.Logf("%+v; %d uploads were answered while it was moved; refused: %s", done, len(w.paths), Tail(w.refused, 300))
	if !done.Done || len(w.paths) == 0 || !strings.Contains(w.refused, "moved") {
		t.Errorf("%+v, %d uploads, refused: %q", done, len(w.paths), w.refused)
	}

	// The old side is read, and takes nothing.
	NewUploader(t, old.URL(), "").Fetch(paths[5])
	op.promote(2, "this cache has moved to another server", storePath(paths[4]))
	if reply := u.Do(http.MethodPut, "/log/"+strings.Repeat("b", 32)+"-y.drv", "text/plain", []byte("late")); reply.Status != http.StatusForbidden || !strings.Contains(reply.Body, "moved") {
		t.Errorf("a build log: %v", reply)
	}

	check := func(s *Server, seq int) {
		t.Helper()
		s.Fsck()
		anyone := NewUploader(t, s.URL(), "")
		for _, path := range append(append([]*Path(nil), paths...), w.paths...) {
			anyone.Fetch(path)
		}
		if reply := anyone.Get(log); reply.Body != "a build log" {
			t.Error(reply)
		}
		op := newPromoter(s, s.bin, token, op.key)
		op.must(0, storePath(paths[3]), "channel", "show", "web")
		op.promote(0, fmt.Sprintf("promoted web to seq %d", seq), storePath(paths[3]), "--force")
		events := op.must(0, "", "events", "--json")
		if !strings.Contains(events.Stdout, "channel.promoted") {
			t.Error(events)
		}
	}
	next.Start()
	check(next, 2)

	if out := old.CLI("migrate", "--to", next.configFile()); out.Code != 2 || !strings.Contains(out.Stderr, "is not empty, and no migration from here has begun it") {
		t.Errorf("a second move over the first\n%v", out)
	}
	again := migrate(next, back)
	t.Logf("back: %+v", again)
	next.Stop()
	back.Start()
	check(back, 3)
	for _, s := range []*Server{old, next} {
		if out := s.CLI("migrate", "--cancel"); out.Code != 0 || !strings.Contains(out.Stdout, "takes writes again") {
			t.Error(out)
		}
	}
	u.Upload(NewPath("late", RandomNAR(99, 1000)))
}
