package fleet

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A hijacker is a server, or a network, in hostile hands: what hosts ask goes on to the server, but for
// what it answers itself.
type hijacker struct {
	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request) (answered bool)
	edit   func(desired map[string]any, host string)
	sent   map[string]int64 // to each host, of its own
	stolen []string         // what came to where it sends hosts
}

const hijackerPort, lootPort = 8088, 8089

func newHijacker(f *Fleet) *hijacker {
	f.T.Helper()
	h := &hijacker{sent: map[string]int64{}}
	back := &url.URL{Scheme: "http", Host: serverName}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(back)
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.edit != nil { // it has another answer at once
				r.Out.Header.Del("If-None-Match")
				r.Out.Header.Del("Prefer")
			}
		},
		Transport:      &http.Transport{DialContext: f.CI().DialContext},
		ErrorLog:       log.New(io.Discard, "", 0),
		ModifyResponse: h.modify,
	}
	h.serve(f, hijackerPort, func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		answer := h.answer
		h.mu.Unlock()
		if answer == nil || !answer(w, r) {
			proxy.ServeHTTP(w, r)
		}
	})
	h.serve(f, lootPort, func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.stolen = append(h.stolen, fmt.Sprint(r.URL, r.Header))
	})
	return h
}

func (h *hijacker) serve(f *Fleet, port int, handler http.HandlerFunc) {
	listener, err := f.CI().Listen(port)
	if err != nil {
		f.T.Fatal(err)
	}
	server := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.Serve(listener) }()
	f.T.Cleanup(func() { _ = server.Close() })
}

// modify edits what hosts shall do.
func (h *hijacker) modify(resp *http.Response) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	parts := strings.Split(resp.Request.URL.Path, "/")
	if h.edit == nil || parts[len(parts)-1] != "desired" || resp.StatusCode != http.StatusOK {
		return nil
	}
	var desired map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&desired); err != nil {
		return err
	}
	h.edit(desired, parts[len(parts)-2])
	text, err := json.Marshal(desired)
	if err != nil {
		return err
	}
	resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(string(text))), int64(len(text))
	resp.Header.Set("Content-Length", strconv.Itoa(len(text)))
	resp.Header.Set("ETag", fmt.Sprintf("%q", strconv.FormatInt(time.Now().UnixNano(), 36)))
	return nil
}

// turn makes it hostile in another way; nil and nil is an honest server.
func (h *hijacker) turn(answer func(w http.ResponseWriter, r *http.Request) bool, edit func(desired map[string]any, host string)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer, h.edit = answer, edit
	clear(h.sent)
}

// TestHijackedServer: h1 with Nix 2.8 and a small disk, h2 with 2.34 by its daemon. Whatever the server does, they
// go on with what they run, and once it is clean they converge.
func TestHijackedServer(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	var evil *hijacker
	fw := follow(t, 2, func(toml string) string {
		return strings.Replace(toml, "http://cache", fmt.Sprintf("http://ci:%d", hijackerPort), 1)
	}, func(f *Fleet, name string, h *HostOptions) {
		if evil == nil {
			evil = newHijacker(f)
		}
		if h.Suite = newNix; name == "h1" {
			h.Suite, h.StoreSize = "bookworm", 256<<20
		}
	})
	before := fw.system("1")
	fw.promote(0, before)
	free := func(name string) int64 {
		n, err := strconv.ParseInt(strings.TrimSpace(fw.Host(name).Sh("df -B1 --output=avail /nix/store | tail -1")), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	fails := func(s *Story, fw *follower, seq int64, words string) {
		for _, name := range []string{"h1", "h2"} {
			j, err := fw.Host(name).await(90*time.Second, seq, "stage_failed")
			if err != nil || !strings.Contains(j.Error, words) {
				s.Errorf("%s: %v: %+v", name, err, j)
			}
			if st := fw.Host(name).State(); st.Current != before || st.BootEntry != before {
				s.Errorf("%s: %+v", name, st)
			}
		}
	}
	seq := int64(1)
	converge := func(s *Story, fw *follower, path, version string) {
		evil.turn(nil, nil)
		Eventually(s, 2*time.Minute, "both converge", func() error {
			for name, r := range fw.reported() {
				if r.Status.State != "ok" || r.Status.Current != path {
					return fmt.Errorf("%s: %+v", name, r)
				}
			}
			return nil
		})
		fw.run(path, version, "ok")
		before = path
	}
	release := func(fw *follower, version string) string {
		path := fw.system(version)
		out := fw.narwharf("promote", "web", path)
		if out.Code != 0 {
			fw.T.Fatalf("%v", out)
		}
		seq++
		return path
	}

	fw.story(t, "12: genuine narinfos, then a body without an end", func(s *Story, fw *follower) {
		was := free("h1") // h2's disk is also the machine's
		evil.turn(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasPrefix(r.URL.Path, "/nar/") {
				return false
			}
			zeros := make([]byte, 64<<10)
			for {
				n, err := w.Write(zeros)
				evil.mu.Lock()
				evil.sent["all"] += int64(n)
				evil.mu.Unlock()
				if err != nil {
					return true
				}
			}
		}, nil)
		path := release(fw, "endless")
		fails(s, fw, seq, "")
		if now := free("h1"); was-now > 8<<20 {
			s.Errorf("h1 had %d bytes and has %d", was, now)
		}
		for _, name := range []string{"h1", "h2"} {
			if left := fw.Host(name).Sh("ls -d /nix/store/*endless* 2> /dev/null || true"); left != "" {
				s.Errorf("left on %s: %s", name, left)
			}
			fw.Host(name).Must("logger", "the journal can be written")
		}
		converge(s, fw, path, "endless")
	})

	fw.story(t, "12: other narinfos, and ways to other hosts", func(s *Story, fw *follower) {
		loot := fmt.Sprintf("http://ci:%d/loot", lootPort)
		evil.turn(func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, "/nar/") {
				http.Redirect(w, r, loot, http.StatusFound)
				return true
			}
			return false
		}, nil)
		path := release(fw, "elsewhere")
		fails(s, fw, seq, "download.hosts")
		evil.mu.Lock()
		if len(evil.stolen) > 0 {
			s.Errorf("hosts went where they were sent: %q", evil.stolen)
		}
		evil.mu.Unlock()
		converge(s, fw, path, "elsewhere")
	})

	fw.story(t, "12: directives that lead to and fro", func(s *Story, fw *follower) {
		path, old := release(fw, "flap"), before
		converge(s, fw, path, "flap")
		asked := map[string]int{}
		evil.turn(nil, func(desired map[string]any, host string) {
			asked[host]++
			desired["directive"] = map[string]any{"type": []string{"revert", "retry"}[asked[host]%2], "seq": seq, "id": fmt.Sprintf("%s-%d", host, asked[host]), "serial": asked[host]}
		})
		runs := map[string]string{}
		for _, name := range []string{"h1", "h2"} {
			Eventually(s, 3*time.Minute, name+" has enough of it", func() error {
				out := fw.Host(name).Must("narwharf", "agent", "status")
				if !strings.Contains(out, "directives.retries") || fw.Host(name).State().Current != old {
					return fmt.Errorf("%s", out)
				}
				return nil
			})
			runs[name] = fw.Host(name).Sh("ls /nix/var/narwharf/runs")
		}
		time.Sleep(15 * time.Second)
		for name, before := range runs {
			if now := fw.Host(name).Sh("ls /nix/var/narwharf/runs"); now != before {
				s.Errorf("%s switched again:\n%s\nbefore:\n%s", name, now, before)
			}
			if st := fw.Host(name).State(); st.Current != old || st.BootEntry != old {
				s.Errorf("%s: %+v", name, st)
			}
			s.Note("%s was asked %d times", name, asked[name])
		}
		converge(s, fw, release(fw, "after"), "after")
	})
}
