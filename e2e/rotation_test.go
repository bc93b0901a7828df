package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Story 3: the key is changed while hosts keep substituting. First the new key signs beside the old
// one, then alone; a host that trusts either works as long as its key signs, and no request fails.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	suites := Suites()
	c := NeedClosures(t, newest())
	s, _, token := aServer(t, nil)
	NewNix(t, newest()).In(c.Root).Netrc(token).Push(s.URL(), "?compression=zstd", c.Path("a"))
	old, fresh := s.Key, NewKey("rotated-2")
	a := c.Path("a")

	var failed, asked atomic.Int64
	stop := background(t, func() {
		res, err := http.Get(s.URL() + "/" + hashOf(a) + ".narinfo")
		if err != nil || res.StatusCode != http.StatusOK {
			failed.Add(1)
		}
		if err == nil {
			_ = res.Body.Close()
		}
		asked.Add(1)
	})
	works := func(key Key) {
		t.Helper()
		for _, suite := range suites {
			NewNix(t, suite).Trust(s.URL(), key).Must("nix-store", "--realise", a)
		}
	}
	refused := func(key Key) {
		t.Helper()
		for _, suite := range suites {
			NewNix(t, suite).Trust(s.URL(), key).Fails(nil, "nix-store", "--realise", a)
		}
	}
	reload := func(keys ...Key) {
		t.Helper()
		s.Reconfigure(func(c *Config) {
			c.SecretKeyFiles = nil
			for _, k := range keys {
				c.SecretKeyFiles = append(c.SecretKeyFiles, s.WriteKey(k))
			}
		})
		s.Signal(syscall.SIGHUP)
		eventually(t, 5*time.Second, func() string { return wrongKeys(t, s, a, keys...) })
	}

	works(old)
	refused(fresh)
	reload(old, fresh)
	works(old)
	works(fresh)
	reload(fresh)
	works(fresh)
	refused(old)
	stop()
	if failed.Load() > 0 || asked.Load() == 0 {
		t.Errorf("%d of %d requests failed during the rotation", failed.Load(), asked.Load())
	}

	// The order of a restart makes no difference.
	s.Stop()
	s.Start()
	if wrong := wrongKeys(t, s, a, fresh); wrong != "" {
		t.Error(wrong)
	}
}

// wrongKeys says how the keys that the server shows and signs with differ from keys; "" if not.
func wrongKeys(t *testing.T, s *Server, path string, keys ...Key) string {
	t.Helper()
	u := NewUploader(t, s.URL(), "")
	doc := ParseDoc(t, u.Get("/"+hashOf(path)+".narinfo").Body)
	if len(doc.Sigs) != len(keys) {
		return fmt.Sprintf("%d signatures, want %d", len(doc.Sigs), len(keys))
	}
	public := u.Get("/pubkey")
	if lines := strings.Fields(public.Body); len(lines) != len(keys) || public.Status != 200 {
		return "/pubkey: " + public.String()
	}
	for _, k := range keys {
		if doc.SignedBy(k) != 1 {
			return "not signed by " + k.Name
		}
		if !strings.Contains(public.Body, k.Public()+"\n") {
			return "/pubkey does not show " + k.Name
		}
	}
	return ""
}

// background repeats work until stop is called.
func background(t *testing.T, work func()) (stop func()) {
	t.Helper()
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			case <-time.After(5 * time.Millisecond):
				work()
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

// Two keys of one name are legal, and both sign.
func TestTwoKeysOfOneName(t *testing.T) {
	t.Parallel()
	one, two := NewKey("same-name"), NewKey("same-name")
	dir := scratch(t)
	files := []string{filepath.Join(dir, "one.sec"), filepath.Join(dir, "two.sec")}
	for i, k := range []Key{one, two} {
		if err := os.WriteFile(files[i], []byte(k.Secret()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := NewServer(t, func(c *Config) { c.SecretKeyFiles = files })
	u := NewUploader(t, s.URL(), s.Token("ci", "push"))
	p := NewPath("twice", RandomNAR(5, 100))
	u.Upload(p)
	if wrong := wrongKeys(t, s, "/nix/store/"+p.Base, one, two); wrong != "" {
		t.Error(wrong)
	}
}

// A configuration that cannot be read, or a key that is gone, leaves the server as it is.
func TestBadReload(t *testing.T) {
	t.Parallel()
	s := NewServer(t, nil)
	u := NewUploader(t, s.URL(), s.Token("ci", "push"))
	p := NewPath("reloaded", RandomNAR(4, 100))
	u.Upload(p)
	path := "/nix/store/" + p.Base
	for _, edit := range []func(){
		func() { s.writeFile(s.configFile(), "listen = [\n", 0o644) },
		func() { s.writeFile(s.configFile(), s.config.TOML()+"\nunknown_key = 1\n", 0o644) },
		func() { s.Reconfigure(func(c *Config) { c.SecretKeyFiles = []string{"not-there.sec"} }) },
		func() {
			s.writeFile(s.Dir+"/bad.sec", "no key\n", 0o600)
			s.Reconfigure(func(c *Config) { c.SecretKeyFiles = []string{"bad.sec"} })
		},
	} {
		log, err := os.ReadFile(s.Log)
		if err != nil {
			t.Fatal(err)
		}
		edit()
		s.Signal(syscall.SIGHUP)
		eventually(t, 5*time.Second, func() string {
			now, err := os.ReadFile(s.Log)
			if err != nil || !strings.Contains(string(now[len(log):]), "level=ERROR") {
				return "a reload that failed is no error in the log"
			}
			return ""
		})
		if !s.Running() {
			t.Fatalf("a bad configuration ended the server\n%s", s.LogTail())
		}
		if wrong := wrongKeys(t, s, path, s.Key); wrong != "" {
			t.Error(wrong)
		}
	}
	s.Reconfigure(func(c *Config) { c.SecretKeyFiles = []string{s.WriteKey(s.Key)} })
}
