package cache

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"narwharf/signing/access/scope"
)

const (
	someHash = "0123456789abcdfghijklmnpqrsvwxyz"
	someFile = someHash + "01234567890123456789"
	someID   = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef!out"
)

// examples has a good name for each row of Routes.
var examples = map[string]string{
	"landing":        "/",
	"nix-cache-info": "/nix-cache-info",
	"narinfo":        "/" + someHash + ".narinfo",
	"ls":             "/" + someHash + ".ls",
	"nar":            "/nar/" + someFile + ".nar.zst",
	"packed-nar":     "/nar/" + someHash + "-" + someFile + ".nar.zst",
	"plain-nar":      "/nar/" + someHash + "-" + someFile + ".nar",
	"log":            "/log/" + someHash + "-hello-2.12.drv",
	"debuginfo":      "/debuginfo/0123456789abcdef0123456789abcdef01234567.debug",
	"realisation":    "/realisations/" + someID + ".doi",
	"build-trace":    "/build-trace-v2/" + someHash + "-hello.drv/out.doi",
	"serve":          "/serve/" + someHash + "/file",
	"pubkey":         "/pubkey",
	"version":        "/version",
	"healthz":        "/healthz",
	"readyz":         "/readyz",
	"metrics":        "/metrics",
}

// stocked is a world in which every example is there.
func stocked(t *testing.T, choose ...func(*setup)) (w *world, have map[string]string) {
	w = newWorld(t, choose...)
	p := newUpload(t, "stocked", "zstd")
	w.putAll(p)
	w.must(w.get("/"+p.info.Path.Hash()+".ls", "Authorization", "Bearer "+w.token), 200)
	for name, text := range map[string]string{
		"log":         "a log\n",
		"debuginfo":   `{"archive":"../nar/` + p.file + `","member":"lib/debug/.build-id/ab/cd.debug"}`,
		"realisation": `{"id":"` + someID + `","outPath":"` + string(p.info.Path) + `","signatures":[],"dependentRealisations":{}}`,
		"build-trace": `{"outPath":"` + string(p.info.Path) + `","signatures":[]}`,
	} {
		w.must(w.put(examples[name], []byte(text)), 201)
	}
	have = map[string]string{"narinfo": p.infoURL(), "ls": "/" + p.info.Path.Hash() + ".ls", "nar": p.narURL(),
		"packed-nar": "/nar/" + p.info.Path.Hash() + "-" + p.info.NarHash.Base32() + ".nar.zst",
		"serve":      "/serve/" + p.info.Path.Hash() + "/file",
		"plain-nar":  "/nar/" + p.info.Path.Hash() + "-" + p.info.NarHash.Base32() + ".nar"}
	for name, path := range examples {
		if have[name] == "" {
			have[name] = path
		}
	}
	return w, have
}

func TestRoutesHaveExamples(t *testing.T) {
	for _, r := range Routes {
		if examples[r.Name] == "" {
			t.Errorf("%s has no example", r.Name)
		}
		if !r.Read.Is() || r.Write != nil && !r.Write.Is() {
			t.Errorf("%s is neither public nor has a scope", r.Name)
		}
	}
}

func TestRoutesByMethod(t *testing.T) {
	w, have := stocked(t)
	for _, row := range Routes {
		t.Run(row.Name, func(t *testing.T) {
			path := have[row.Name]
			get := w.must(w.get(path), 200)
			if row.Name != "metrics" { // which change with each request
				sameHead(t, get, w.head(path))
			}
			allow := "GET, HEAD"
			if row.Write != nil {
				allow += ", PUT"
			} else {
				a := w.must(w.put(path, []byte("x")), 405)
				if a.header.Get("Allow") != allow {
					t.Errorf("PUT: Allow is %q, want %q", a.header.Get("Allow"), allow)
				}
			}
			for _, method := range []string{"POST", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "FOO", "get"} {
				a := w.must(w.do(method, path, nil), 405, allow)
				if a.header.Get("Allow") != allow {
					t.Errorf("%s: Allow is %q, want %q", method, a.header.Get("Allow"), allow)
				}
			}
			// What is not there: text for people, and nothing for HEAD.
			if row.Valid != nil {
				missing := w.must(w.get(examples[row.Name]+"x"), 404)
				sameHead(t, missing, w.head(examples[row.Name]+"x"))
			}
		})
	}
	w.check()
}

// sameHead compares the answer to HEAD with that to GET.
func sameHead(t *testing.T, get, head answer) {
	t.Helper()
	if head.status != get.status || head.body != "" {
		t.Errorf("HEAD is %v, GET is %d", head, get.status)
	}
	for name, want := range get.header {
		if name != "Date" && !slices.Equal(head.header[name], want) {
			t.Errorf("%s is %q on HEAD and %q on GET", name, head.header[name], want)
		}
	}
	for name := range head.header {
		if get.header[name] == nil {
			t.Errorf("%s is on HEAD alone", name)
		}
	}
}

func TestRoutesThatAreMissing(t *testing.T) {
	w := newWorld(t)
	for _, row := range Routes {
		if row.Valid == nil {
			continue
		}
		get := w.must(w.get(examples[row.Name]), 404, "not in this cache")
		sameHead(t, get, w.head(examples[row.Name]))
	}
}

// Names outside the grammar are 404 with words, whatever is asked of them, and
// never reach the disk.
func TestRoutesBadNames(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.anonymous = scope.Set{pull, push} })
	w.breakAt(func(op, name string) error {
		t.Errorf("%s of %s on the disk", op, name)
		return nil
	})
	long := strings.Repeat("x", 300)
	for _, path := range []string{
		"/x", "//", "/index.html", "/favicon.ico", "/.git/config", "/narwharf.db", "/tmp/1.1", "/quarantine/nar/x",
		"/" + someHash, "/" + someHash + ".narinfo/", "/" + someHash + ".narinfo.narinfo", "/" + someHash + ".NARINFO",
		"/" + someHash[1:] + ".narinfo", "/0" + someHash + ".narinfo", "/e" + someHash[1:] + ".narinfo",
		"/" + strings.ToUpper(someHash) + ".narinfo", "/.narinfo", "/..narinfo", "/.ls", "/" + someHash + ".lss",
		"/" + someHash + "%0a.narinfo", "/%0a" + someHash + ".narinfo", "/" + someHash + ".narinfo%00",
		"/nar", "/nar/", "/nar//" + someFile + ".nar", "/nar/" + someFile, "/nar/" + someFile + ".nar.", "/nar/" + someFile + ".nar.zst.x",
		"/nar/" + someFile + ".nar.ZST", "/nar/" + someFile + ".nar%2f..%2fx", "/nar/..%2f" + someHash + ".narinfo", "/nar/../nix-cache-info",
		"/nar/%2e%2e/nix-cache-info", "/nar/%2e%2e%2fnix-cache-info", "/%2e%2e/%2e%2e/etc/passwd", "/nar/..", "/nar/.", "/./nix-cache-info",
		"/nar/" + someFile[1:] + ".nar", "/nar/" + someFile + ".nar/x", "/nar/" + someFile + ".narinfo", "/nar\\" + someFile + ".nar",
		"/log/", "/log/x.drv", "/log/" + someHash + "-", "/log/" + someHash + "-a%2fb.drv", "/log/" + someHash + "-a%00.drv", "/log/" + someHash + "-" + long,
		"/log/" + someHash + "-caf%c3%a9.drv", "/log/.." + someHash[2:] + "-x",
		"/debuginfo/", "/debuginfo/xyz.debug", "/debuginfo/abc.debug", "/debuginfo/" + long + ".debug", "/debuginfo/..%2f..%2fx", "/debuginfo/ABCDEF0123.debug",
		"/realisations/", "/realisations/x.doi", "/realisations/" + someID, "/realisations/" + someID + long + ".doi", "/realisations/" + someID + "%2f.doi",
		"/realisations/" + strings.TrimSuffix(someID, "out") + ".doi", "/realisations/..%2f" + someID + ".doi",
		"/build-trace-v2/" + someHash + "-x.drv", "/build-trace-v2/" + someHash + "-x.drv/", "/build-trace-v2/" + someHash + "-x.drv/out",
		"/build-trace-v2/" + someHash + "-x.drv/.doi", "/build-trace-v2/" + someHash + "-x.drv/..doi", "/build-trace-v2/" + someHash + "-x.drv/.hidden.doi",
		"/build-trace-v2/" + someHash + "-x.drv/...doi", "/build-trace-v2/../x/out.doi", "/build-trace-v2/x/out.doi", "/build-trace-v2/" + someHash + "-x.drv/" + long + ".doi",
		"/build-trace-v2/" + someHash + "-x.drv/a/b.doi", "/pubkey/", "/healthz/x",
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut} {
			req, err := http.NewRequest(method, w.http.URL, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			u, err := url.Parse(w.http.URL + path)
			if err != nil {
				u = &url.URL{Scheme: "http", Host: req.URL.Host, Opaque: path}
			}
			req.URL = u
			a := w.send(req)
			if w.must(a, 404); t.Failed() {
				t.Fatalf("%s %s", method, path)
			}
			if strings.HasPrefix(u.Path, "/nar/") && a.header.Get("Accept-Ranges") != "bytes" {
				t.Errorf("%s %s: a NAR's error without Accept-Ranges", method, path)
			}
		}
	}
}

// "!" and "%21" are one name, as are all letters and their escapes.
func TestRoutesMatchTheDecodedPath(t *testing.T) {
	w, have := stocked(t)
	for _, name := range []string{"narinfo", "realisation", "nar", "build-trace"} {
		path := have[name]
		escaped := strings.NewReplacer("!", "%21", ".", "%2e", "a", "%61", "0", "%30").Replace(path)
		if a, b := w.must(w.get(path), 200), w.must(w.get(escaped), 200); a.body != b.body {
			t.Errorf("%s and %s differ", path, escaped)
		}
	}
	w.must(w.get(strings.ReplaceAll(have["realisation"], "!", "%2521")), 404)
}

// Request lines that no client sends must not do harm either.
func TestRoutesOddRequestLines(t *testing.T) {
	w := newWorld(t)
	for line, want := range map[string]int{
		"GET http://elsewhere/nix-cache-info HTTP/1.1": 200, "GET /nix-cache-info?x=1 HTTP/1.1": 200, "GET / HTTP/1.0": 200,
		"GET * HTTP/1.1": 404, "CONNECT x:443 HTTP/1.1": 405, "GET //nix-cache-info HTTP/1.1": 404, "GET /%zz HTTP/1.1": 400, "GET x HTTP/1.1": 400,
	} {
		c := w.dial(t)
		c.say("%s\r\nHost: x\r\nConnection: close\r\n\r\n", line)
		if a := c.hear(http.MethodGet); a.status != want {
			t.Errorf("%s: %v, want %d", line, a, want)
		}
	}
}

// FuzzGet asks for anything: it is there, or not, and nothing else happens.
func FuzzGet(f *testing.F) {
	w := newWorld(f)
	p := newUpload(f, "p", "none")
	w.putAll(p)
	for _, path := range examples {
		f.Add(path)
	}
	for _, path := range []string{p.infoURL(), p.narURL(), "/nar/../x", "//", "*", "", "/nar/" + someFile + ".nar/\x00", "/:object", "/nar/:file"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			req := httptest.NewRequest(method, "/", http.NoBody)
			req.URL.Path = path
			rec := httptest.NewRecorder()
			w.s.ServeHTTP(rec, req)
			if rec.Code != 200 && rec.Code != 404 {
				t.Errorf("%s %q is answered %d %q", method, path, rec.Code, rec.Body)
			}
		}
	})
}

func TestPublicURLPrefix(t *testing.T) {
	w, have := stocked(t, func(s *setup) {
		s.PublicURL = &url.URL{Scheme: "https", Host: "cache.example.org", Path: "/some/prefix"}
	})
	for name, path := range have {
		w.must(w.get(path), 200)                 // the proxy took it off
		w.must(w.get("/some/prefix"+path), 200)  // or not
		w.must(w.get("/some/prefixx"+path), 404) // another
		if name == "nar" {
			if a := w.get("/some/prefix/nar/nonsense"); a.header.Get("Accept-Ranges") != "bytes" {
				t.Error("an error of a NAR below the prefix has no Accept-Ranges")
			}
		}
	}
	w.must(w.get("/some/prefix"), 200, "https://cache.example.org/some/prefix?compression=zstd")
	p := newUpload(t, "prefixed", "none")
	w.must(w.put("/some/prefix"+p.narURL(), p.body), 201)
	w.must(w.put("/some/prefix"+p.infoURL(), p.text()), 201)
	w.mustServe(p)
	w.check()
}

// ---- who may do what

func TestPrivateCache(t *testing.T) {
	w, have := stocked(t, func(s *setup) { s.anonymous = nil })
	for _, row := range Routes {
		path := have[row.Name]
		a := w.get(path)
		if row.Read[0].Public {
			w.must(a, 200)
		} else {
			token := w.token // push reads too
			if row.Read[0].Kind == scope.Metrics {
				token = w.prometheus
				w.must(w.get(path, "Authorization", "Bearer "+w.token), 403, "narwharf token new --name prometheus --scope metrics --out FILE")
			}
			w.must(a, 401, row.Read.String())
			if a.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s: 401 without a challenge", row.Name)
			}
			sameHead(t, a, w.head(path))
			w.must(w.get(path, "Authorization", "Bearer "+token), 200)
		}
		if row.Write != nil {
			w.must(w.do(http.MethodPut, path, []byte("x")), 401, "push")
		}
	}
}

// TestWhatProxiesMayKeep goes through the table: each answer says what a cache on the way may
// do with it, and only NARs that are there may be kept.
func TestWhatProxiesMayKeep(t *testing.T) {
	for name, c := range map[string]struct {
		anonymous scope.Set
		immutable string
		fast      bool
	}{
		"public":            {scope.Set{pull}, "public, max-age=31536000, immutable", true},
		"private":           {nil, "private, max-age=31536000, immutable", true},
		"without fast path": {scope.Set{pull}, "public, max-age=31536000, immutable", false},
	} {
		t.Run(name, func(t *testing.T) {
			w, have := stocked(t, func(s *setup) {
				s.anonymous = c.anonymous
				if !c.fast {
					viaNetHTTP(s)
				}
			})
			auth := []string{"Authorization", "Bearer " + w.token}
			says := func(what, want string, a answer) {
				t.Helper()
				if cc := a.header.Values("Cache-Control"); !slices.Equal(cc, []string{want}) {
					t.Errorf("%s: %d with Cache-Control %q, want %q", what, a.status, cc, want)
				}
			}
			for _, row := range Routes {
				found := "no-cache"
				switch {
				case slices.Contains([]string{"nar", "packed-nar", "plain-nar"}, row.Name):
					found = c.immutable
				case row.Name == "landing":
					found = "no-store" // it names the host that this client used
				}
				path, auth := have[row.Name], auth
				if row.Read[0].Kind == scope.Metrics {
					auth = []string{"Authorization", "Bearer " + w.prometheus}
				}
				get := w.must(w.get(path, auth...), 200)
				says(row.Name, found, get)
				says(row.Name+", again", found, w.must(w.get(path, auth...), 200)) // in memory by now
				says(row.Name+", HEAD", found, w.head(path, auth...))
				if etag := get.header.Get("Etag"); etag != "" {
					says(row.Name+", 304", found, w.must(w.get(path, append(auth, "If-None-Match", etag)...), 304))
				}
				if get.header.Get("Accept-Ranges") != "" {
					says(row.Name+", a range", found, w.must(w.get(path, append(auth, "Range", "bytes=1-2")...), 206))
					says(row.Name+", no such range", "no-cache", w.must(w.get(path, append(auth, "Range", "bytes=99999999-")...), 416))
				}
				if row.Valid != nil {
					says(row.Name+", missing", "no-cache", w.must(w.get(examples[row.Name][:len(examples[row.Name])-1], auth...), 404))
					says(row.Name+", bad name", "no-cache", w.must(w.head(path+"\\", auth...), 404))
				}
				says(row.Name+", method", "no-cache", w.must(w.do("DELETE", path, nil, auth...), 405))
				if row.Write != nil {
					says(row.Name+", a bad PUT", "no-cache", w.put(path, []byte("x")))
					says(row.Name+", no right to PUT", "no-cache", w.must(w.do("PUT", path, []byte("x"), "Authorization", "Bearer x"), 401))
				}
				if !row.Read[0].Public && c.anonymous == nil {
					says(row.Name+", no right", "no-cache", w.must(w.get(path), 401))
				}
			}
			says("nowhere", "no-cache", w.must(w.get("/x/y/z", auth...), 404))
		})
	}
	// A NAR while it is being made has no other answer.
	w, m := localWorld(t)
	packed, _ := m.build("p", map[string]string{"a": "b"}).urls()
	if a := w.must(w.get(packed), 200); a.header.Get("Cache-Control") != "public, max-age=31536000, immutable" {
		t.Errorf("while it is made: %v", a.header)
	}
	w.must(w.get(strings.Replace(packed, packed[5:10], "00000", 1)), 404)
}

// A netrc with an old password goes with every request of Nix.
func TestStaleCredentials(t *testing.T) {
	w, have := stocked(t)
	for _, header := range []string{"Bearer nwt_0000000000_" + strings.Repeat("0", 59), "Bearer x", "Basic !!", "Negotiate x", ""} {
		for _, row := range Routes {
			w.must(w.get(have[row.Name], "Authorization", header), 200)
			if row.Write != nil {
				w.must(w.do(http.MethodPut, have[row.Name], []byte("x"), "Authorization", header), 401, "push")
			}
		}
	}
	// As netrc has it: a Basic password, whoever the user.
	p := newUpload(t, "netrc", "none")
	req, err := http.NewRequest(http.MethodPut, w.http.URL+p.narURL(), strings.NewReader(string(p.body)))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("anybody", w.token)
	w.must(w.send(req), 201)
	w.check()
}
