package cache

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"narwharf/cache/narfiletest"
	"narwharf/cache/upstream"
	"narwharf/narinfo"
	"narwharf/signing"
)

// What does not have a good signature of its own upstream is not there, however it comes.
func TestUpstreamNarinfosThatDoNotCount(t *testing.T) {
	up, other := newStranger(t, "up-1"), newStranger(t, "other-1")
	p := newUpload(t, "p", "zstd")
	up.has(p)
	good := p.info.Sigs
	change := func(fn func(i *narinfo.Info)) http.HandlerFunc {
		return text(p.edited(fn))
	}
	namesake := makeKey(t, "up-1")
	for name, fn := range map[string]http.HandlerFunc{
		"no signature": change(func(i *narinfo.Info) { i.Sigs = nil }),
		"another's": change(func(i *narinfo.Info) {
			i.Sigs = signInfo(&narinfo.Info{StoreDir: i.StoreDir, Path: i.Path, NarHash: i.NarHash, NarSize: i.NarSize}, []signing.SecretKey{other.key})
		}),
		"of a key of that name": change(func(i *narinfo.Info) {
			i.Sigs = signInfo(&narinfo.Info{StoreDir: i.StoreDir, Path: i.Path, NarHash: i.NarHash, NarSize: i.NarSize}, []signing.SecretKey{namesake})
		}),
		"another NAR":     change(func(i *narinfo.Info) { i.NarHash = sha256.Sum256([]byte("x")) }),
		"another size":    change(func(i *narinfo.Info) { i.NarSize++ }),
		"more references": change(func(i *narinfo.Info) { i.References = []narinfo.Path{pathNamed("x")} }),
		"another path":    change(func(i *narinfo.Info) { i.Path = pathNamed("y") }),
		"no narinfo":      text([]byte("<html>")),
		"endless":         text(bytes.Repeat([]byte("X: y\n"), 1<<20)),
		"another host's": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+r.URL.Path, http.StatusFound)
		},
		"in circles": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) },
		"forbidden":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) },
		"a token":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) },
	} {
		up.set(p.infoURL(), fn)
		other.set(p.infoURL(), text(p.text()))
		w, _ := behindOf(t, up.config(), other.config())
		if a := w.get(p.infoURL(), w.asPusher()...); a.status != 404 || leaning(t, w) != 0 {
			t.Errorf("%s: %v", name, a)
		}
		w.stop()
	}
	// Signatures that claim to be by its key and are not are taken out, those of others stay.
	up.set(p.infoURL(), change(func(i *narinfo.Info) {
		i.Sigs = append(signInfo(&narinfo.Info{StoreDir: i.StoreDir, Path: i.Path, NarHash: i.NarHash, NarSize: i.NarSize}, []signing.SecretKey{namesake, other.key}), good...)
	}))
	w, _ := behindOf(t, up.config())
	if got := signers(w.info(p)); got != "other-1 up-1" {
		t.Errorf("signed by %s", got)
	}
}

// A NAR that is not what was signed never comes out whole; the path is then taken from elsewhere, or counts as not
// there.
func TestUpstreamSendsAnotherNAR(t *testing.T) {
	other := newUpload(t, "other", "zstd")
	for name, send := range map[string]func(p *testPath) http.HandlerFunc{
		"another": func(*testPath) http.HandlerFunc { return file(other.body) },
		"longer": func(p *testPath) http.HandlerFunc {
			return file(narfiletest.Compress(t, "zstd", append(bytes.Clone(p.nar), p.nar...)))
		},
		"a bit of it": func(p *testPath) http.HandlerFunc {
			b := bytes.Clone(p.nar)
			b[len(b)/2] ^= 1
			return file(narfiletest.Compress(t, "zstd", b))
		},
		"no zstd": func(*testPath) http.HandlerFunc { return file([]byte("hello")) },
		"nothing": func(*testPath) http.HandlerFunc { return file(nil) },
		"endless": func(*testPath) http.HandlerFunc {
			return file(narfiletest.Compress(t, "zstd", make([]byte, 64<<20)))
		},
		"gone": func(*testPath) http.HandlerFunc { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			up, good := newStranger(t, "up-1"), newStranger(t, "good-1")
			p := large(t, "p")
			up.has(p)
			up.set(p.narURL(), send(p))
			w, _ := behindOf(t, up.config(), good.config())
			packed, plain := p.urls()
			w.info(p, w.asPusher()...)
			for _, u := range []string{packed, plain} {
				a, err := w.fetch(u)
				if err == nil && a.status == 200 {
					t.Errorf("%s came whole: %d bytes", u, len(a.body))
				}
			}
			for range 2 {
				w.must(w.get(p.infoURL(), w.asPusher()...), 404)
			}
			good.has(p)
			w.restart() // the minute for which it is not looked up is over
			if w.info(p).Sigs[0] == p.info.Sigs[0] {
				t.Error("the first upstream is not asked first")
			}
			if _, err := w.fetch(packed); err != nil && name == "gone" { // the first does not send the NAR
				t.Error(err)
			}
			w.mustSubstitute(p)
			if got := signers(w.info(p)); got != "good-1" {
				t.Errorf("signed by %s", got)
			}
			w.check()
			if name == "gone" {
				w.putAll(p) // what we leaned on can be uploaded again
				w.mustServe(p)
			}
		})
	}
}

// fetch is get for an answer that may break off.
func (w *world) fetch(path string) (a answer, err error) {
	w.t.Helper()
	a = w.get(path)
	return a, a.cut
}

// When two upstreams have a path, the second one helps out at once if the first has lost the NAR.
func TestAnotherUpstreamHasIt(t *testing.T) {
	up, good := newStranger(t, "up-1"), newStranger(t, "good-1")
	p := large(t, "p")
	good.has(p)
	up.has(p)
	up.set(p.narURL(), nil)
	w, _ := behindOf(t, up.config(), good.config())
	if got := signers(w.info(p)); got != "up-1" {
		t.Errorf("signed by %s", got)
	}
	packed, _ := p.urls()
	if got := unzstd(t, w.must(w.get(packed), 200).body); !bytes.Equal(got, p.nar) {
		t.Error("another NAR")
	}
	if got := signers(w.mustSubstitute(p)); got != "good-1" {
		t.Errorf("signed by %s", got)
	}
}

// What breaks off or stands still is gone on with.
func TestBrokenDownloadsGoOn(t *testing.T) {
	up := newStranger(t, "up-1")
	p := large(t, "p")
	up.has(p)
	var cuts atomic.Int32
	up.set(p.narURL(), func(rw http.ResponseWriter, r *http.Request) {
		if cuts.Add(1) > 3 {
			file(p.body)(rw, r)
			return
		}
		from := 0
		if text := r.Header.Get("Range"); text != "" {
			from, _ = strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(text, "bytes="), "-"))
			rw.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(p.body)-1, len(p.body)))
		}
		rw.Header().Set("Accept-Ranges", "bytes")
		rw.Header().Set("Content-Length", strconv.Itoa(len(p.body)-from))
		if from > 0 {
			rw.WriteHeader(206)
		}
		_, _ = rw.Write(p.body[from : from+700_000])
		panic(http.ErrAbortHandler)
	})
	up.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	w, _ := behindOf(t, up.config())
	w.mustSubstitute(p)
	if n := cuts.Load(); n != 4 {
		t.Errorf("asked %d times", n)
	}
}

// A lookup takes two seconds at most, and an upstream that does not answer is left alone for a while.
func TestUpstreamIsDown(t *testing.T) {
	for name, fn := range map[string]http.HandlerFunc{
		"slow": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"slow in the middle": func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte("StorePath: "))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
		"500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"429": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) },
		"cut": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := newStranger(t, "up-1")
			up.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
			var paths []*testPath
			for i := range 12 {
				p := newUpload(t, fmt.Sprintf("p%d", i), "none")
				up.has(p)
				up.set(p.infoURL(), fn)
				paths = append(paths, p)
			}
			w, _ := behindOf(t, up.config())
			var all sync.WaitGroup
			began := time.Now()
			for _, p := range paths[:6] {
				all.Go(func() { w.must(w.get(p.infoURL()), 404) })
			}
			all.Wait()
			if took := time.Since(began); took > 4*time.Second {
				t.Errorf("took %v", took)
			}
			asked := up.count(".narinfo")
			began = time.Now()
			for _, p := range paths[6:] {
				w.must(w.get(p.infoURL()), 404)
			}
			if took := time.Since(began); took > time.Second || up.count(".narinfo") != asked {
				t.Errorf("it was asked %d times more, in %v", up.count(".narinfo")-asked, took)
			}
		})
	}
}

// Two that are each other's upstream do not ask in circles, and each has what the other has.
func TestUpstreamsOfEachOther(t *testing.T) {
	key := [2]signing.SecretKey{makeKey(t, "one-1"), makeKey(t, "two-1")}
	// The one is told of the other by a proxy, since neither is there before the other.
	var at [2]atomic.Pointer[world]
	var asked [2]atomic.Int32
	var gates [2]*httptest.Server
	for i := range gates {
		gates[i] = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			asked[i].Add(1)
			at[i].Load().s.ServeHTTP(rw, r)
		}))
		t.Cleanup(gates[i].Close)
	}
	open := func(i int) *world {
		w := newWorld(t, func(s *setup) {
			s.upstreams = []upstream.Config{upstreamAt(t, gates[1-i].URL, key[1-i].Public())}
			s.keys = func() ([]signing.SecretKey, error) { return []signing.SecretKey{key[i]}, nil }
		})
		at[i].Store(w)
		return w
	}
	one, two := open(0), open(1)
	nowhere, p, q := newUpload(t, "nowhere", "zstd"), large(t, "p"), newUpload(t, "q", "zstd")
	began := time.Now()
	one.must(one.get(nowhere.infoURL()), 404)
	two.must(two.get(nowhere.infoURL()), 404)
	if took := time.Since(began); took > time.Second || asked[0].Load() != 2 || asked[1].Load() != 1 {
		t.Errorf("a path that is nowhere: asked %d and %d times in %v", asked[0].Load(), asked[1].Load(), took)
	}
	one.putAll(p)
	two.putAll(q)
	if got := signers(two.mustSubstitute(p)); got != "one-1" {
		t.Errorf("signed by %s", got)
	}
	one.mustSubstitute(q)
	// The one loses it, and asks the other, which has it from nobody else.
	if _, err := one.index.Get(p.info.Path.Hash()); err != nil {
		t.Fatal(err)
	}
	one.lose(p)
	one.restart()
	at[0].Store(one)
	began = time.Now()
	one.must(one.get(p.infoURL()), 404)
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v", took)
	}
}

// lose takes a path out behind the server's back.
func (w *world) lose(p *testPath) {
	w.t.Helper()
	if err := errors.Join(w.files.Remove(p.info.Path.Hash()+".narinfo"), w.files.Remove(p.info.URL)); err != nil {
		w.t.Fatal(err)
	}
}

// Via ends what goes in circles, and says so to upstreams; those of other proxies do not count.
func TestVia(t *testing.T) {
	up := newStranger(t, "up-1")
	p := newUpload(t, "p", "zstd")
	up.has(p)
	w, _ := behindOf(t, up.config())
	own := newUpload(t, "own", "zstd")
	w.putAll(own)
	w.must(w.get(p.infoURL(), "Via", "1.1 narwharf-aa, 1.1 varnish (x), 1.1 narwharf-bb, 1.1 narwharf-cc"), 404)
	w.must(w.get(own.infoURL(), "Via", "1.1 narwharf-aa, 1.1 narwharf-bb, 1.1 narwharf-cc"), 200)
	a := w.must(w.get(p.infoURL(), "Via", "1.1 varnish, 1.1 narwharf-aa", "Via", "1.0 fred, 1.1 narwharf-bb"), 200)
	id := strings.TrimPrefix(a.header.Get("Via"), "1.1 narwharf-")
	up.mu.Lock()
	via := up.asked[len(up.asked)-1].Header.Get("Via")
	up.mu.Unlock()
	if want := "1.1 narwharf-aa, 1.1 narwharf-bb, 1.1 narwharf-" + id; len(id) != 16 || via != want {
		t.Errorf("the upstream was sent %q, we answered %q", via, a.header.Get("Via"))
	}
	w.must(w.get(p.infoURL(), "Via", "1.1 narwharf-"+id), 404)
	if a := w.must(w.get(p.infoURL()), 200); a.header.Get("Via") != "" {
		t.Error("a Via to whoever came by no cache like us")
	}
}

// The token goes to the upstream and nowhere else; a NAR may be at another host.
func TestTokenOfAnUpstream(t *testing.T) {
	up, bucket := newStranger(t, "up-1"), newStranger(t, "bucket")
	p, q := large(t, "p"), large(t, "q")
	up.has(p, q)
	bucket.has(p)
	bucket.set("/q", file(q.body))
	up.set(p.narURL(), func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, bucket.URL+r.URL.Path, http.StatusFound)
	})
	up.set(q.infoURL(), text(q.edited(func(i *narinfo.Info) { i.URL = bucket.URL + "/q" })))
	c := up.config()
	c.Token = "nwt_secret"
	w, _ := behindOf(t, c)
	w.mustSubstitute(p)
	w.mustSubstitute(q)
	for _, s := range []*stranger{up, bucket} {
		s.mu.Lock()
		for _, r := range s.asked {
			if _, password, ok := r.BasicAuth(); ok != (s == up) || ok && password != "nwt_secret" {
				t.Errorf("%s: %q", r.URL, r.Header)
			}
		}
		s.mu.Unlock()
	}
}
