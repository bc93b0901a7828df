package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// upstreamOf is a section [[upstream]].
func upstreamOf(url string, key Key, more ...string) string {
	return fmt.Sprintf("url = %q\npublic_keys = [%q]\n%s", url, key.Public(), strings.Join(more, "\n"))
}

// An upstream is a cache with nine tenths of the closure of "wide".
type anUpstream struct {
	url  string
	key  Key
	stop func()
	all  []string // the whole closure
	has  int      // how many of them it has
}

// upstreams are the kinds that are tested: a plain static cache behind nginx, whose NARs are xz, and another Narwharf.
var upstreamKinds = map[string]func(t *testing.T, suite string, c *Closures) *anUpstream{
	"nginx": func(t *testing.T, suite string, c *Closures) *anUpstream {
		u := &anUpstream{key: NewKey("static-1"), stop: func() {}}
		u.closure(t, suite, c)
		up := NewNix(t, suite).In(c.Root)
		folder := scratch(t)
		up.Push("file://"+folder, "?secret-key="+up.write("up.sec", u.key.Secret()), u.all[:u.has]...)
		u.url = StartStatic(t, folder)
		return u
	},
	"harmonia": imitatedUpstream("harmonia"),
	"attic":    imitatedUpstream("attic"),
	"narwharf": func(t *testing.T, suite string, c *Closures) *anUpstream {
		s := NewServer(t, nil)
		u := &anUpstream{key: s.Key, url: s.URL(), stop: s.Kill}
		u.closure(t, suite, c)
		NewNix(t, suite).In(c.Root).Netrc(s.Token("ci", "push")).Push(s.URL(), "?compression=zstd", u.all[:u.has]...)
		return u
	},
}

// imitatedUpstream answers as another program.
func imitatedUpstream(kind string) func(t *testing.T, suite string, c *Closures) *anUpstream {
	return func(t *testing.T, suite string, c *Closures) *anUpstream {
		u := &anUpstream{key: NewKey(kind + "-1"), stop: func() {}}
		u.closure(t, suite, c)
		up, folder := NewNix(t, suite).In(c.Root), scratch(t)
		up.Push("file://"+folder, "?compression=none&secret-key="+up.write("up.sec", u.key.Secret()), u.all[:u.has]...)
		u.url = NewImitated(t, kind, folder, "").URL
		return u
	}
}

func (u *anUpstream) closure(t *testing.T, suite string, c *Closures) {
	t.Helper()
	out := NewNix(t, suite).In(c.Root).Must("nix-store", "-qR", c.Path("wide"))
	u.all = strings.Fields(out.Stdout) // references first
	slices.SortStableFunc(u.all, func(a, b string) int {
		return strings.Compare(fmt.Sprint(a == c.Path("wide")), fmt.Sprint(b == c.Path("wide")))
	})
	u.has = len(u.all) * 9 / 10
	if len(u.all) < 50 {
		t.Fatalf("the closure has %d paths", len(u.all))
	}
}

// A closure of which 90 % is upstream sends 10 %; a host substitutes the whole from us alone, or from both.
func TestUpstream(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		for name, make := range upstreamKinds {
			t.Run(name, func(t *testing.T) {
				c := NeedClosures(t, suite)
				u := make(t, suite, c)
				for _, pull := range []bool{true, false} {
					s, rec, token := aServer(t, func(c *Config) {
						c.Upstreams = []string{upstreamOf(u.url, u.key, fmt.Sprintf("pull_through = %t", pull))}
					})
					up := NewNix(t, suite).In(c.Root).Netrc(token)
					up.Push(rec.URL(), "?compression=zstd", c.Path("wide"))
					expectPuts(t, rec, len(u.all)-u.has, len(u.all)-u.has)
					rec.Reset()
					up.Forget().Push(rec.URL(), "?compression=zstd", c.Path("wide"))
					expectNoPut(t, rec)

					from := s.URL()
					if !pull {
						from += " " + u.url
					}
					down := NewNix(t, suite).Trust(from, s.Key, u.key)
					down.Must("nix-store", "--realise", c.Path("wide"))
					down.Verify()
					if pull {
						NewNix(t, suite).Trust(from, s.Key).Fails(nil, "nix-store", "--realise", c.Path("wide"))
						signer := NewNix(t, suite).Netrc(token)
						signer.Must("nix", "store", "sign", "--store", s.URL(), "-k", signer.write("ci.sec", NewKey("ci-1").Secret()), u.all[0])
					}
				}
			})
		}
	})
}

// What we lean on an upstream for is complete to a promote while the upstream is away, and what a release needs of it
// is here soon.
func TestUpstreamPromote(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		u := upstreamKinds["narwharf"](t, suite, c)
		gate := NewProxy(t, strings.TrimPrefix(u.url, "http://"))
		s, rec, token := aServer(t, func(c *Config) { c.Upstreams = []string{upstreamOf(gate.URL(), u.key)} })
		NewNix(t, suite).In(c.Root).Netrc(token).Push(rec.URL(), "?compression=zstd", c.Path("wide"))
		wide := &Path{Base: strings.TrimPrefix(c.Path("wide"), "/nix/store/")}

		gate.Delay(time.Minute) // as good as away
		s.Stop()
		s.Start()
		deploy := NewKey("deploy-1")
		p := newPromoter(s, narwharfBin(t), s.Token("deploy", "promote:*"), deploy)
		p.must(0, "promoted", "promote", "web", "--key", "deploy.sec", "--from-cache", "--content-key", s.Key.Public(), "--content-key", u.key.Public(),
			"--kind", "path", "--origin", "127.0.0.1/web", storePath(wide))
		gate.Delay(0)
		s.Stop() // which tries again at once
		s.Start()

		kept := func() int {
			n := 0
			for _, path := range u.all {
				if doc := ParseDoc(t, NewUploader(t, s.URL(), "").Get("/"+hashOf(path)+".narinfo").Body); len(doc.URL) == len("nar/.nar.zst")+52 && doc.FileSize != "" {
					n++
				}
			}
			return n
		}
		for end := time.Now().Add(2 * time.Minute); kept() < len(u.all); time.Sleep(200 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d of %d paths are kept", kept(), len(u.all))
			}
		}
		u.stop()
		s.Stop()
		s.Start()
		down := NewNix(t, suite).Trust(s.URL(), s.Key, u.key)
		down.Must("nix-store", "--realise", c.Path("wide"))
		down.Verify()
		NewNix(t, suite).Trust(s.URL(), s.Key).Fails(nil, "nix-store", "--realise", c.Path("wide"))
	})
}

// Whatever an upstream does, no host gets another content, and who has another substitute goes on with it.
func TestUpstreamMisbehaves(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		key := NewKey("up-1")
		folder := scratch(t)
		up := NewNix(t, suite).In(c.Root)
		up.Push("file://"+folder, "?compression=none&secret-key="+up.write("up.sec", key.Secret()), c.Path("a"), c.Path("zoo"))
		files := http.FileServer(http.Dir(folder))
		var mode atomic.Pointer[string]
		hostile := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			narinfo, nar := strings.HasSuffix(r.URL.Path, ".narinfo"), strings.HasPrefix(r.URL.Path, "/nar/")
			switch m := *mode.Load(); {
			case m == "other bytes" && nar:
				text, _ := os.ReadFile(filepath.Join(folder, r.URL.Path))
				if len(text) > 200 {
					text[len(text)/2] ^= 1
				}
				_, _ = w.Write(text)
			case m == "wrong signature" && narinfo:
				text, _ := os.ReadFile(filepath.Join(folder, r.URL.Path))
				doc := ParseDoc(t, string(text))
				doc.Sigs = []string{NewKey("up-1").Sign("x")}
				_, _ = w.Write([]byte(doc.String()))
			case m == "NARs gone" && nar, m == "gone":
				http.NotFound(w, r)
			case m == "500":
				w.WriteHeader(500)
			case m == "slow":
				select {
				case <-r.Context().Done():
				case <-time.After(10 * time.Second):
				}
			case m == "cut" && nar && r.Header.Get("Range") == "":
				st, err := os.Stat(filepath.Join(folder, r.URL.Path))
				if err != nil {
					http.NotFound(w, r)
					return
				}
				text, _ := os.ReadFile(filepath.Join(folder, r.URL.Path))
				w.Header().Set("Accept-Ranges", "bytes")
				w.Header().Set("Content-Length", fmt.Sprint(st.Size()))
				_, _ = w.Write(text[:len(text)/2])
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			default:
				files.ServeHTTP(w, r)
			}
		}))
		hostile.Config.ErrorLog = nil
		t.Cleanup(hostile.Close)
		good := StartStatic(t, folder)
		for _, m := range []string{"well", "cut", "other bytes", "wrong signature", "NARs gone", "gone", "500", "slow"} {
			t.Run(m, func(t *testing.T) {
				mode.Store(&m)
				s := NewServer(t, func(c *Config) { c.Upstreams = []string{upstreamOf(hostile.URL, key)} })
				alone := NewNix(t, suite).Trust(s.URL(), s.Key, key)
				out := alone.Run("nix-store", "--realise", c.Path("a"), c.Path("zoo"))
				if well := m == "well" || m == "cut"; well != (out.Code == 0) {
					t.Errorf("from us alone: %v", out)
				}
				alone.Verify()
				both := NewNix(t, suite).Trust(s.URL()+" "+good, s.Key, key)
				out = both.Run("nix-store", "--realise", c.Path("a"), c.Path("zoo"))
				if out.Code != 0 { // a Nix that was sent half of another NAR does not ask the next one
					out = both.Forget().Run("nix-store", "--realise", c.Path("a"), c.Path("zoo"))
				}
				if out.Code != 0 {
					t.Errorf("from us and the upstream's mirror: %v", out)
				}
				both.Verify()
			})
		}
	})
}

// An upstream that collects what we lean on: that is found out when a release needs it, the channel has an alarm, and
// nix copy --refresh sends it.
func TestUpstreamCollects(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		key := NewKey("static-1")
		folder := scratch(t)
		up := NewNix(t, suite).In(c.Root)
		up.Push("file://"+folder, "?secret-key="+up.write("up.sec", key.Secret()), c.Path("b"))
		at := StartStatic(t, folder)
		s, rec, token := aServer(t, func(c *Config) { c.Upstreams = []string{upstreamOf(at, key)} })
		ci := NewNix(t, suite).In(c.Root).Netrc(token)
		ci.Push(rec.URL(), "", c.Path("a"))
		expectPuts(t, rec, 1, 1)

		for _, pattern := range []string{"nar/*", "*.narinfo"} {
			files, err := filepath.Glob(filepath.Join(folder, pattern))
			for _, f := range files {
				err = os.Remove(f)
			}
			if err != nil || len(files) == 0 {
				t.Fatal(files, err)
			}
		}
		p := newPromoter(s, narwharfBin(t), s.Token("deploy", "promote:*", "operate"), NewKey("deploy-1"))
		p.must(0, "promoted", "promote", "web", "--key", "deploy.sec", "--from-cache", "--content-key", s.Key.Public(), "--content-key", key.Public(),
			"--kind", "path", "--origin", "127.0.0.1/web", c.Path("a"))
		operator := NewUploader(t, s.URL(), p.token)
		for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
			if r := operator.Get("/api/v1/events"); strings.Contains(r.Body, "channel.lost") && strings.Contains(r.Body, c.Path("c")[len("/nix/store/"):]+" and 1 more") { // and b
				break
			}
			if time.Now().After(end) {
				t.Fatal("no alarm tells of it")
			}
		}
		rec.Reset()
		ci.Must("nix", "copy", "--refresh", "--to", rec.URL(), c.Path("a"))
		expectPuts(t, rec, 2, 2)
		down := NewNix(t, suite).Trust(s.URL(), s.Key, key)
		down.Must("nix-store", "--realise", c.Path("a"))
		down.Verify()
	})
}

// Two Narwharfs that are each other's upstream: each serves what the other has, and what neither has is soon said to be nowhere.
func TestUpstreamsOfEachOther(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		one := newServer(t, scratch(t), nil)
		two := newServer(t, scratch(t), nil)
		one.Reconfigure(func(c *Config) { c.Upstreams = []string{upstreamOf(two.URL(), two.Key)} })
		two.Reconfigure(func(c *Config) { c.Upstreams = []string{upstreamOf(one.URL(), one.Key)} })
		one.Start()
		two.Start()
		NewNix(t, suite).In(c.Root).Netrc(one.Token("ci", "push")).Push(one.URL(), "", c.Path("c"))
		rec := NewRecorder(t, two.URL(), "")
		NewNix(t, suite).In(c.Root).Netrc(two.Token("ci", "push")).Push(rec.URL(), "", c.Path("a"))
		expectPuts(t, rec, 2, 2) // c is at the other
		for _, s := range []*Server{one, two} {
			down := NewNix(t, suite).Trust(s.URL(), one.Key, two.Key)
			down.Must("nix-store", "--realise", c.Path("a"))
			down.Verify()
		}
		began := time.Now()
		nowhere := NewPath("nowhere", RandomNAR(1, 100))
		for _, s := range []*Server{one, two, one} {
			if r := NewUploader(t, s.URL(), "").Get("/" + nowhere.Hash() + ".narinfo"); r.Status != 404 {
				t.Error(r)
			}
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("what is nowhere took %v", took)
		}
	})
}

// A token that may push cannot give a path another content than its upstream has.
func TestUpstreamPathIsNotRebound(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		u := upstreamKinds["nginx"](t, suite, c)
		s, _, token := aServer(t, func(c *Config) { c.Upstreams = []string{upstreamOf(u.url, u.key)} })
		victim := u.all[0]
		evil := &Path{Base: strings.TrimPrefix(victim, "/nix/store/"), NAR: RandomNAR(7, 1000)}
		up := NewUploader(t, s.URL(), token)
		doc, file := up.Describe(evil)
		if r := up.PutNAR(doc, file); !r.OK() {
			t.Fatal(r)
		}
		if r := up.PutDoc(evil.Hash(), doc.String()); r.Status != 409 || !strings.Contains(r.Body, "another content") {
			t.Errorf("%v", r)
		}
		down := NewNix(t, suite).Trust(s.URL(), s.Key, u.key)
		down.Must("nix-store", "--realise", victim)
		down.Verify()
	})
}
