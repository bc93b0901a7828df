package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/state/postgres/postgrestest"
)

// replicas are servers that share a database and a folder with content files, behind nginx, which
// sends each request to another one.
type replicas struct {
	t   *testing.T
	db  *postgrestest.Server
	in  string // the name of the database
	all []*Server
	url string // of nginx
}

// newReplicas starts n of them. edit may change the configuration of one and be nil.
func newReplicas(t *testing.T, n int, edit func(i int, c *Config)) *replicas {
	t.Helper()
	return newReplicasOf(t, n, narwharfBin(t), edit)
}

// newReplicasOf is newReplicas of another build.
func newReplicasOf(t *testing.T, n int, bin string, edit func(i int, c *Config)) *replicas {
	t.Helper()
	db := postgrestest.Need(t, "max_connections=60", "fsync=off")
	name, err := db.Database()
	if err != nil {
		t.Fatal(err)
	}
	r := &replicas{t: t, db: db, in: name}
	content := filepath.Join(scratch(t), "content")
	var upstreams string
	key := NewKey("cluster-1")
	for i := range n {
		s := newServer(t, scratch(t), func(c *Config) {
			c.More = append(c.More, fmt.Sprintf("[storage]\nstate = %q\ncontent = %q\n", db.URL(name), content))
			if edit != nil {
				edit(i, c)
			}
		})
		s.Key = key // one cache, one key
		s.Reconfigure(func(c *Config) { c.SecretKeyFiles = []string{s.WriteKey(key)} })
		s.Use(bin)
		s.Start()
		r.all = append(r.all, s)
		upstreams += fmt.Sprintf("    server %s max_fails=0;\n", s.Addr())
	}
	r.url = startWebProxy(t, "nginx", r.all[0].Addr(), func(block string) string {
		return strings.Replace(block, "    server 127.0.0.1:8080;\n", upstreams, 1)
	})
	return r
}

// soon asks again until ask has nothing to complain of, and returns how long that took.
func soon(t testing.TB, limit time.Duration, ask func() string) time.Duration {
	t.Helper()
	begun := time.Now()
	for {
		complaint := ask()
		if complaint == "" {
			return time.Since(begun)
		}
		if time.Since(begun) > limit {
			t.Errorf("after %v: %s", limit, complaint)
			return limit
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func wantStatus(u *Uploader, path string, want int) string {
	r, err := u.Try(http.MethodGet, path, "", nil)
	if err != nil || r.Status != want {
		return fmt.Sprintf("%v, %v; want %d", r, err, want)
	}
	return ""
}

// What one server is told another knows: paths, releases, tokens, what wakes polls.
func TestReplicas(t *testing.T) {
	t.Parallel()
	r := newReplicas(t, 2, nil)
	a, b := r.all[0], r.all[1]
	token := a.Token("op", "push", "promote:*", "operate", "admin")
	atA, atB, either := NewUploader(t, a.URL(), token), NewUploader(t, b.URL(), token), NewUploader(t, r.url, token)

	// One closure through both, each path from two clients at once.
	leaf := NewPath("leaf", RandomNAR(1, 200_000))
	paths := []*Path{leaf}
	for i := range 12 {
		paths = append(paths, NewPath(fmt.Sprintf("p%d", i), RandomNAR(uint64(10+i), 5000), paths[max(0, i-1)], leaf))
	}
	together(2, func(int) { NewUploader(t, r.url, token).Upload(paths...) })
	for _, u := range []*Uploader{atA, atB} {
		for _, p := range paths {
			u.Fetch(p)
		}
	}
	// What a server has in memory goes when another deletes it.
	alone := NewPath("alone", RandomNAR(2, 1000))
	atA.Upload(alone)
	anyone := NewUploader(t, b.URL(), "")
	anyone.Fetch(alone)
	soon(t, 30*time.Second, func() string {
		reply := atA.Do(http.MethodDelete, "/api/v1/paths/"+alone.Hash(), "", nil)
		if reply.Status == 409 && strings.Contains(reply.Body, "retention.lease") {
			return ""
		}
		return reply.String()
	})

	// A promote on one wakes who is parked on the other.
	p := newPromoter(a, narwharfBin(t), token, NewKey("deploy-1"))
	p.promote(0, "promoted web", storePath(paths[1]))
	host := b.Token("host", "follow:web", "pull")
	etag := ""
	soon(t, 5*time.Second, func() string {
		reply := NewUploader(t, b.URL(), host).Get("/api/v1/channels/web/store-path")
		etag = reply.Header.Get("Etag")
		if reply.Status != 200 || strings.TrimSpace(reply.Body) != storePath(paths[1]) {
			return reply.String()
		}
		return ""
	})
	woken := make(chan time.Time, 1)
	go func() {
		res := longPoll(context.Background(), http.DefaultClient, b.URL(), host, etag, 50)
		if res.err != nil || res.status != 200 || res.etag == etag {
			t.Errorf("the poll at the other server: %+v", res)
		}
		woken <- time.Now()
	}()
	soon(t, 10*time.Second, func() string {
		if n := b.metric("narwharf_polls_parked"); n != 1 {
			return fmt.Sprintf("%d polls are parked", n)
		}
		return ""
	})
	p.promote(0, "promoted web", storePath(paths[2]))
	seen := time.Now() // the promote was answered a moment before
	select {
	case at := <-woken:
		t.Logf("woken %v after the promoting command had ended", at.Sub(seen))
	case <-time.After(10 * time.Second):
		t.Error("a promote at one server did not wake a poll at the other")
	}

	// A token that is revoked at one ends at the other.
	const desired = "/api/v1/hosts/h1/desired?channel=web&target=h1"
	if complaint := wantStatus(NewUploader(t, b.URL(), host), desired, 200); complaint != "" {
		t.Error(complaint)
	}
	if out := a.CLI("token", "revoke", "host"); out.Code != 0 {
		t.Fatal(out)
	}
	took := soon(t, 5*time.Second, func() string {
		return wantStatus(NewUploader(t, b.URL(), host), desired, 401)
	})
	t.Logf("a revoked token ended at the other server after %v", took)

	// Whoever asks either reads what he wrote a second ago at the latest.
	a.setPolicy(token, "web", `{"windows":["Sat,Sun 22:00-04:00 Europe/Berlin"]}`)
	soon(t, time.Second, func() string {
		reply := atB.Get("/api/v1/channels/web/policy")
		if !strings.Contains(reply.Body, "Europe/Berlin") {
			return reply.String()
		}
		return ""
	})
	if reply := either.Get("/readyz"); reply.Status != 200 {
		t.Error(reply)
	}
	soon(t, 20*time.Second, func() string {
		out := p.must(0, "", "replicas", "--json")
		var list []struct {
			Version, Name string
			Silent        bool
			Lag           int64 `json:"lag_ms"`
			Does, Differs []string
		}
		if err := json.Unmarshal([]byte(out.Stdout), &list); err != nil {
			return err.Error() + out.String()
		}
		var does []string
		for _, r := range list {
			does = append(does, r.Does...)
			if r.Silent || len(r.Differs) > 0 || r.Lag > 1500 {
				return fmt.Sprintf("%+v", r)
			}
		}
		if slices.Sort(does); len(list) != 2 || !slices.Contains(does, "scrub") || len(slices.Compact(slices.Clone(does))) != len(does) {
			return fmt.Sprintf("%+v", list)
		}
		return ""
	})
}

// Whatever was answered is there, whichever server is killed while it takes uploads.
func TestReplicaKilled(t *testing.T) {
	t.Parallel()
	r := newReplicas(t, 2, nil)
	token := r.all[0].Token("push", "push")
	stop := make(chan struct{})
	var mu sync.Mutex
	var answered []*Path
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			u := NewUploader(t, r.url, token)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				p := NewPath(fmt.Sprintf("k%d-%d", w, i), RandomNAR(uint64(1000*w+i), 40_000))
				if accepted, _ := u.TryUpload(p); len(accepted) == 1 {
					mu.Lock()
					answered = append(answered, p)
					mu.Unlock()
				}
			}
		})
	}
	for i := range 4 {
		time.Sleep(700 * time.Millisecond)
		s := r.all[i%2]
		s.Kill()
		time.Sleep(100 * time.Millisecond)
		s.Start()
	}
	close(stop)
	wg.Wait()
	if len(answered) < 10 {
		t.Errorf("only %d uploads were answered", len(answered))
	}
	for i, p := range answered {
		NewUploader(t, r.all[i%2].URL(), "").Fetch(p)
	}
	t.Logf("%d uploads were answered, all are there", len(answered))
}

// A database that is started anew is waited for.
func TestDatabaseRestarts(t *testing.T) {
	t.Parallel()
	r := newReplicas(t, 2, nil)
	token := r.all[0].Token("op", "push", "promote:*", "operate")
	p := NewPath("p", RandomNAR(5, 1000))
	NewUploader(t, r.url, token).Upload(p)
	newPromoter(r.all[0], narwharfBin(t), token, NewKey("deploy-1")).promote(0, "promoted web", storePath(p))
	for _, s := range r.all { // it has seen token and path
		NewUploader(t, s.URL(), token).Fetch(p)
	}
	r.db.Down(true)
	for _, s := range r.all {
		u := NewUploader(t, s.URL(), token)
		NewUploader(t, s.URL(), "").Fetch(p)
		if complaint := wantStatus(u, "/"+p.Hash()+".narinfo", 503); complaint != "" { // who may upload counts on it
			t.Error(complaint)
		}
		reply := u.Get("/readyz")
		if reply.Status != 503 {
			t.Errorf("without the database: %v", reply)
		}
		if reply, err := u.Try(http.MethodPut, "/"+p.Hash()+".narinfo", "text/x-nix-narinfo", []byte("StorePath: x")); err != nil || reply.Status < 400 {
			t.Errorf("a write without the database: %v, %v", reply, err)
		}
	}
	if err := r.db.Up(); err != nil {
		t.Fatal(err)
	}
	for _, s := range r.all {
		soon(t, 20*time.Second, func() string { return wantStatus(NewUploader(t, s.URL(), token), "/readyz", 200) })
		NewUploader(t, s.URL(), token).Fetch(p)
	}
}
