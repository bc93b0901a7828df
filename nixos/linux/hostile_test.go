package linux_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/klauspost/compress/zstd"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/signing"
)

// left is what lies in the store of a path, its lock included.
func (f *field) left(i *narinfo.Info) (names []string) {
	f.t.Helper()
	names, err := filepath.Glob(f.dir + "/root/nix/store/*" + i.Path.Hash() + "*")
	if err != nil {
		f.t.Fatal(err)
	}
	return names
}

// hostilely lets the server do as a hostile one until the end, which it returns.
func (f *field) hostilely(handle func(w http.ResponseWriter, r *http.Request) (handled bool)) (end func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hostile = handle
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.hostile = nil
	}
}

// TestHostileBody: a genuine release and genuine narinfos, then a NAR without an end, or with another end.
// Of none more than its size reaches the disk, nothing stays, and a server that is cleaned is believed.
func TestHostileBody(t *testing.T) {
	parallel(t)
	for _, version := range nixVersions {
		for _, kind := range []string{"plain", "zstd", "late", "short"} {
			alone(t, version+"/"+kind, func(t *testing.T) {
				f := newField(t, version)
				a := f.system("a", "", true)
				lib := f.lib("a")
				f.promote(1, signing.Auto, a, lib)
				nar := f.files["/"+lib.URL]
				var sent atomic.Int64
				end := f.hostilely(func(w http.ResponseWriter, r *http.Request) bool {
					if r.URL.Path == "/"+lib.Path.Hash()+".narinfo" && kind == "zstd" {
						i := *lib
						i.Compression = "zstd"
						_, _ = w.Write(i.Append(nil))
						return true
					}
					if r.URL.Path != "/"+lib.URL {
						return false
					}
					junk := bytes.Repeat([]byte("junk"), 16<<10)
					if kind == "zstd" {
						e, _ := zstd.NewWriter(nil)
						junk = e.EncodeAll(junk, nil)
					}
					switch kind {
					case "late": // as it should be, up to the last file
						_, _ = w.Write(nar[:len(nar)-40])
					case "short":
						_, _ = w.Write(nar[:len(nar)-40])
						return true
					}
					for {
						n, err := w.Write(junk)
						if sent.Add(int64(n)); err != nil {
							return true
						}
					}
				})
				if words := stageFails(t, f); !strings.HasPrefix(words, "stage_failed") {
					t.Error(words)
				}
				if f.valid(lib) || f.valid(a) || len(f.left(lib)) > 0 || len(f.left(a)) > 0 {
					t.Errorf("left in the store: %q %q", f.left(lib), f.left(a))
				}
				if n := sent.Load(); n > 64<<20 {
					t.Errorf("%d bytes were taken", n)
				}
				end()
				if j, _ := f.once(); j.State != api.OK {
					t.Fatalf("%s: %s", j.State, j.Error)
				}
			})
		}
	}
}

// TestHostileNarinfo: between the comparison and the download the server gives another narinfo, which
// a content key has signed, too: with a reference more. What it refers to never becomes valid.
func TestHostileNarinfo(t *testing.T) {
	parallel(t)
	for _, version := range nixVersions {
		alone(t, version, func(t *testing.T) {
			f := newField(t, version)
			a := f.system("a", "", true)
			lib := f.lib("a")
			f.promote(1, signing.Auto, a, lib)
			f.system("evil", "", true)
			evil := f.lib("evil")
			other := *lib
			other.References = []narinfo.Path{evil.Path}
			other.Sigs = signInfo(&other, []signing.SecretKey{f.key})
			var asked atomic.Int32
			f.hostilely(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/"+lib.Path.Hash()+".narinfo" || asked.Add(1) == 1 {
					return false
				}
				_, _ = w.Write(other.Append(nil))
				return true
			})
			if words := stageFails(t, f); !strings.Contains(words, "other bytes") {
				t.Error(words)
			}
			if asked.Load() < 2 || f.valid(evil) || f.valid(lib) || len(f.left(evil)) > 0 {
				t.Errorf("asked %d times; left %q", asked.Load(), f.left(evil))
			}
		})
	}
}

// TestHostileRedirect: the server sends hosts to another port of its own name. They do not go
// there, and no token does; where the configuration lists it they go without one.
func TestHostileRedirect(t *testing.T) {
	parallel(t)
	for _, version := range nixVersions {
		for _, by := range []string{"redirect", "narinfo"} {
			alone(t, version+"/"+by, func(t *testing.T) {
				f := newField(t, version)
				a := f.system("a", "", true)
				lib := f.lib("a")
				f.promote(1, signing.Auto, a, lib)
				nar := f.files["/"+lib.URL]
				var mu sync.Mutex
				var stolen []string
				other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					defer mu.Unlock()
					stolen = append(stolen, fmt.Sprint(r.Header))
					_, _ = w.Write(nar)
				}))
				defer other.Close()
				f.hostilely(func(w http.ResponseWriter, r *http.Request) bool {
					switch {
					case by == "redirect" && r.URL.Path == "/"+lib.URL:
						http.Redirect(w, r, other.URL+"/x", http.StatusFound)
					case by == "narinfo" && r.URL.Path == "/"+lib.Path.Hash()+".narinfo":
						i := *lib
						i.URL = other.URL + "/x"
						_, _ = w.Write(i.Append(nil))
					default:
						return false
					}
					return true
				})
				if words := stageFails(t, f); !strings.Contains(words, "download.hosts") || len(stolen) > 0 {
					t.Errorf("%s; the other host got %q", words, stolen)
				}
				f.cfg.Download.Hosts = []string{"127.0.0.1"}
				if j, _ := f.once(); j.State != api.OK || len(stolen) == 0 || strings.Contains(fmt.Sprint(stolen), "Authorization") {
					t.Errorf("%s: %s; the other host got %q", j.State, j.Error, stolen)
				}
			})
		}
	}
}

// TestCacheURL: a cache of its own origin gets its own token and never the host's; one in a folder needs none.
func TestCacheURL(t *testing.T) {
	parallel(t)
	for _, version := range nixVersions {
		alone(t, version, func(t *testing.T) {
			f := newField(t, version)
			a, b := f.system("a", "", true), f.system("b", "", true)
			var mu sync.Mutex
			seen := map[string]bool{}
			cache := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, token, _ := r.BasicAuth()
				mu.Lock()
				seen[token] = true
				mu.Unlock()
				text, ok := f.files[r.URL.Path]
				if token != "nwt_cache" || !ok {
					http.Error(w, "who are you", http.StatusUnauthorized)
					return
				}
				_, _ = w.Write(text)
			}))
			defer cache.Close()
			f.cfg.CacheURL = cache.URL + "/?priority=10"
			f.promote(1, signing.Auto, a, f.lib("a"))
			if words := stageFails(t, f); !strings.Contains(words, "401") || len(seen) != 1 || !seen[""] {
				t.Errorf("without cache_token_file: %s; it saw %v", words, seen)
			}
			f.write("cache-token", "nwt_cache\n", 0o600)
			f.cfg.CacheTokenFile = f.dir + "/cache-token"
			if j, _ := f.once(); j.State != api.OK || len(seen) != 2 {
				t.Fatalf("%s: %s; it saw %v", j.State, j.Error, seen)
			}
			dir := t.TempDir()
			for name, text := range f.files {
				if strings.Count(name, "/") > 2 {
					continue
				}
				if err := errors.Join(os.MkdirAll(filepath.Dir(dir+name), 0o755), os.WriteFile(dir+name, text, 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			f.cfg.CacheURL, f.cfg.CacheTokenFile = "file://"+dir, ""
			f.promote(2, signing.Auto, b, f.lib("b"))
			if j, _ := f.once(); j.State != api.OK {
				t.Errorf("from a folder: %s: %s", j.State, j.Error)
			}
		})
	}
}

// TestRelaySecret: who looks at the processes of the host sees neither the relay's secret nor a token, and none
// stays in a file; what an older agent left is removed.
func TestRelaySecret(t *testing.T) {
	parallel(t)
	for _, version := range nixVersions {
		alone(t, version, func(t *testing.T) {
			f := newField(t, version)
			f.write("state/netrc", "machine x\nlogin narwharf\npassword nwt_test\n", 0o600)
			f.write("bin/nix-store", "#!/bin/sh\necho \"$@\" >> \"$FAKE/argv\"\nenv >> \"$FAKE/env\"\nexec "+nixDir(t, version)+"/nix-store \"$@\"\n", 0o755)
			a := f.system("a", "", true)
			f.promote(1, signing.Auto, a, f.lib("a"))
			if j, _ := f.once(); j.State != api.OK {
				t.Fatalf("%s: %s", j.State, j.Error)
			}
			argv, env := f.read("argv"), f.read("env")
			_, secret, ok := strings.Cut(env, "substituters = http://127.0.0.1:")
			if !ok {
				t.Fatalf("Nix was told nothing of a relay:\n%s", env)
			}
			_, secret, _ = strings.Cut(strings.Fields(secret)[0], "/")
			if len(secret) != 32 || strings.Contains(argv, secret) || strings.Contains(argv+env, "nwt_test") {
				t.Errorf("secret %q\n%s", secret, argv)
			}
			out, err := exec.Command("grep", "-rl", "-e", secret, "-e", "nwt_test", f.dir+"/state").CombinedOutput()
			if err == nil {
				t.Errorf("in files of the agent: %s", out)
			}
		})
	}
}

// TestEveryCompression: the relay unpacks what caches pack.
func TestEveryCompression(t *testing.T) {
	parallel(t)
	for _, version := range nixVersions {
		alone(t, version, func(t *testing.T) {
			f := newField(t, version)
			for i, program := range []string{"xz", "bzip2", "gzip", "zstd"} {
				if _, err := exec.LookPath(program); err != nil && os.Getenv("NARWHARF_CI") != "1" {
					continue
				}
				a, lib := f.system(program, "", true), f.lib(program)
				cmd := exec.Command(program, "-c")
				cmd.Stdin = bytes.NewReader(f.files["/"+lib.URL])
				packed, err := cmd.Output()
				if err != nil {
					t.Fatal(err)
				}
				lib.Compression = program
				f.put("/"+lib.URL, packed)
				f.put("/"+lib.Path.Hash()+".narinfo", lib.Append(nil))
				f.promote(int64(i+1), signing.Auto, a, lib)
				if j, _ := f.once(); j.State != api.OK || !f.valid(lib) {
					t.Errorf("%s: %s: %s", program, j.State, j.Error)
				}
			}
		})
	}
}
