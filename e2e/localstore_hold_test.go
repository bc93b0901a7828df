package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// `nix copy` of what the cache's own store has sends nothing and ends well: so the store
// keeps it, and what an upload refers to, over its collections and over a kill. What only
// readers saw goes.
func TestLocalStoreHolds(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		m := aMachine(t, suite, c, "b", "wide", "zoo", "multi")
		s, rec := serveStore(t, m)
		up := NewNix(t, suite).In(c.Root).Netrc(s.Token("ci", "push"))

		up.Push(rec.URL(), "?compression=zstd", c.Path("wide"))
		if sent := rec.Select("PUT", ""); len(sent) > 1 { // nix-cache-info
			t.Errorf("sent what is there: %v", sent)
		}
		up.Push(rec.URL(), "?compression=zstd", c.Path("a")) // b and c are in the cache's store
		if a := NewUploader(t, s.URL(), "").Get("/" + hashOf(c.Path("zoo")) + ".narinfo"); a.Status != 200 {
			t.Fatalf("%v", a)
		}
		s.Kill()
		m.Must("nix-collect-garbage")
		for _, name := range []string{"wide", "b", "c"} {
			if !m.Has(c.Path(name)) {
				t.Errorf("the collection took %s", name)
			}
		}
		if m.Has(c.Path("zoo")) || m.Has(c.Path("multi")) {
			t.Error("what no uploader saw was kept")
		}
		keepOpen(t, m)
		s.Start()
		down := NewNix(t, suite).Trust(s.URL(), s.Key)
		down.Must("nix-store", "--realise", c.Path("wide"), c.Path("b"))
		// A restart goes on with what the upload refers to.
		eventually(t, 20*time.Second, func() string {
			for _, name := range []string{"b", "c"} {
				if _, there := s.Files()["cache/"+hashOf(c.Path(name))+".narinfo"]; !there {
					return name + " is not adopted"
				}
			}
			return ""
		})
	})
}

// A whole system is looked up beside a collection: whatever an uploader was told to be
// there stays, and nothing is encoded for it.
func TestLocalStoreHoldsThousands(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		const n = 5000
		c := NeedClosures(t, suite)
		m := aMachine(t, suite, c, "a")
		s, _ := serveStore(t, m)
		args := []string{"--add"}
		for i := range n {
			args = append(args, m.write(fmt.Sprintf("one-of-many-%d", i), fmt.Sprint(i)))
		}
		paths := strings.Fields(m.Must("nix-store", args...).Stdout)
		keepOpen(t, m)
		token := s.Token("ci", "push")
		var told sync.Map
		var clients sync.WaitGroup
		collect := make(chan struct{})
		for k := range 8 {
			u := NewUploader(t, s.URL(), token)
			clients.Go(func() {
				for i := k; i < n; i += 8 {
					if i == 400 {
						close(collect)
					}
					a, err := u.Try("GET", "/"+hashOf(paths[i])+".narinfo", "", nil)
					switch {
					case err != nil || a.Status != 200 && a.Status != 404:
						t.Errorf("%s: %v, %v", paths[i], a, err)
					case a.Status == 200:
						told.Store(paths[i], true)
					}
				}
			})
		}
		<-collect
		out := m.Run("nix-collect-garbage")
		clients.Wait()
		if out.Code != 0 {
			t.Fatalf("%v", out)
		}
		m.Must("nix-collect-garbage")
		keepOpen(t, m)
		check := []string{"--check-validity", "--print-invalid"}
		told.Range(func(p, _ any) bool {
			check = append(check, fmt.Sprint(p))
			return true
		})
		lost := strings.Fields(m.Run("nix-store", check...).Stdout)
		t.Logf("%d of %d were told to be there", len(check)-2, n)
		if len(check) < 50 || len(lost) > 0 {
			t.Errorf("%d of %d that were told to be there are gone", len(lost), len(check)-2)
		}
		if page := NewUploader(t, s.URL(), "").Get("/metrics").Body; strings.Contains(page, `narwharf_pack_encodes_total{result="ok"}`) && !strings.Contains(page, `narwharf_pack_encodes_total{result="ok"} 0`+"\n") {
			t.Errorf("something was encoded:\n%s", grep(page, "narwharf_pack"))
		}
	})
}

// `nix store sign --store http://…` works on what the cache's own store has, as on what was
// uploaded, and both signatures are served then.
func TestStoreSign(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		m := aMachine(t, suite, c, "b", "zoo")
		s, _ := serveStore(t, m)
		token := s.Token("ci", "push")
		NewNix(t, suite).In(c.Root).Netrc(token).Push(s.URL(), "?compression=xz", c.Path("multi"))
		for i, name := range []string{"zoo", "b", "multi"} { // alone, with references, uploaded
			signer := NewNix(t, suite).Netrc(token)
			key := NewKey(fmt.Sprint("by-hand-", i))
			signer.Must("nix", "store", "sign", "--store", s.URL(), "--key-file", signer.write("key", key.Secret()), c.Path(name))
			doc := ParseDoc(t, NewUploader(t, s.URL(), "").Get("/"+hashOf(c.Path(name))+".narinfo").Body)
			if doc.SignedBy(s.Key) != 1 || doc.SignedBy(key) != 1 {
				t.Errorf("%s:\n%v", name, doc)
			}
			down := NewNix(t, suite).Trust(s.URL(), key)
			for _, ref := range strings.Fields(doc.References) {
				if ref = "/nix/store/" + ref; ref != c.Path(name) {
					NewNix(t, suite).In(down.Root).Trust(s.URL(), s.Key).Must("nix-store", "--realise", ref)
				}
			}
			down.Must("nix-store", "--realise", c.Path(name))
			down.Verify()
		}
	})
}

// A NAR of a channel's release that rots is damage, whatever fsck --repair does: it says which
// path and which channel, ends with 1 and raises an alarm. What the cache's own store has is
// fetched from there.
func TestFsckOfAChannel(t *testing.T) {
	t.Parallel()
	suite := newest()
	c := NeedClosures(t, suite)
	m := aMachine(t, suite, c, "c")
	s := NewServer(t, func(cfg *Config) { cfg.ServeStore, cfg.StoreRoot = true, m.Root })
	token := s.Token("ci", "push", "promote:web", "admin")
	NewNix(t, suite).In(c.Root).Netrc(token).Push(s.URL(), "?compression=zstd", c.Path("a"))
	key := NewKey("promoter-1")
	out := run(t, program{argv: []string{s.bin, "promote", "web", c.Path("a"), "--kind", "path", "--system", "x86_64-linux",
		"--server", s.URL(), "--key", m.write("promoter.sec", key.Secret()), "--token-file", m.write("token", token),
		"--store-root", c.Root, "--client-config", "/dev/null", "--origin", "127.0.0.1/web"}})
	if out.Code != 0 {
		t.Fatalf("promote\n%v\n%s", out, s.LogTail())
	}
	u := NewUploader(t, s.URL(), token)
	damage := func(name string) {
		t.Helper()
		doc := ParseDoc(t, u.Get("/"+hashOf(c.Path(name))+".narinfo").Body)
		if err := os.WriteFile(filepath.Join(s.Data, "cache", doc.URL), []byte("rot"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	alarms := func() string {
		t.Helper()
		return u.Get("/api/v1/events?since=0").Body
	}
	damage("c")
	if out := s.CLI("fsck", "--repair"); out.Code != 0 || !strings.Contains(out.Stdout, "repaired") {
		t.Errorf("a NAR that the own store has\n%v", out)
	}
	NewNix(t, suite).Trust(s.URL(), s.Key).Must("nix-store", "--realise", c.Path("c"))
	if strings.Contains(alarms(), "channel.lost") {
		t.Errorf("an alarm:\n%s", alarms())
	}
	damage("b")
	for _, args := range [][]string{{"fsck"}, {"fsck", "--repair"}} {
		out := s.CLI(args...)
		if out.Code != 1 || !strings.Contains(out.Stdout, filepath.Base(c.Path("b"))) || !strings.Contains(out.Stdout, "needed by web") || strings.Contains(out.Stdout, "clean") {
			t.Errorf("%v\n%v", args, out)
		}
	}
	if text := alarms(); !strings.Contains(text, "channel.lost") || !strings.Contains(text, filepath.Base(c.Path("b"))) {
		t.Errorf("no alarm:\n%s", text)
	}
	NewNix(t, suite).In(c.Root).Netrc(token).Run("nix", "copy", "--refresh", "--to", s.URL()+"?compression=zstd", c.Path("b"))
	if out := s.CLI("fsck"); out.Code != 0 {
		t.Errorf("after another copy\n%v", out)
	}
	down := NewNix(t, suite).Trust(s.URL(), s.Key)
	down.Must("nix-store", "--realise", c.Path("a"))
	down.Verify()
}
