package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"narwharf/cache/local"
	"narwharf/cache/local/ahead"
	"narwharf/narinfo"
	"narwharf/signing"
)

// TestLocalNarinfo: a path of the machine's store has a narinfo like any other,
// with our signature and those of the database; FileHash and FileSize come with
// the first download, and nothing else changes then.
func TestLocalNarinfo(t *testing.T) {
	key := newKey(t, "here-1")
	w, m := localWorld(t, func(s *setup) {
		s.signUploads = false // which is about uploads
		s.keys = func() ([]signing.SecretKey, error) { return []signing.SecretKey{key}, nil }
	})
	lib := m.build("lib", map[string]string{"lib.so": "code"})
	app := m.build("app", map[string]string{"bin/app": "an app", "share/doc": "words"}, lib)
	app.info.Sigs = signatures(t, 2)
	m.exec("update ValidPaths set sigs = ?, deriver = ?, ca = 'text:sha256:"+strings.Repeat("0", 52)+"' where path = ?",
		strings.Join(app.info.Sigs, " "), pathNamed("app.drv").In("/nix/store"), app.info.Path.In("/nix/store"))

	before := w.mustSubstitute(app)
	packed, _ := app.urls()
	if "/"+before.URL != packed || before.Compression != "zstd" || !before.FileHash.IsZero() || before.FileSize != 0 {
		t.Errorf("before the download: %s", before.Append(nil))
	}
	if !slices.Equal(before.References, []narinfo.Path{lib.info.Path}) || before.Deriver != pathNamed("app.drv") || before.CA == "" {
		t.Errorf("narinfo %s", before.Append(nil))
	}
	if want := signInfo(app.info, []signing.SecretKey{key}); !slices.Equal(before.Sigs, want) || len(want) != 3 {
		t.Errorf("signatures %q, want %q", before.Sigs, want)
	}
	after := w.mustSubstitute(app)
	if after.FileHash.IsZero() || after.FileSize == 0 {
		t.Errorf("after the download: %s", after.Append(nil))
	}
	after.FileHash, after.FileSize = before.FileHash, before.FileSize
	if got, want := string(after.Append(nil)), string(before.Append(nil)); got != want {
		t.Errorf("after the download\n%s, before\n%s", got, want)
	}
	w.mustSubstitute(lib)
	w.must(w.get("/"), 200, "whatever is in <code>/nix/store</code> of this machine")
	w.must(w.get("/metrics"), 200, `narwharf_http_sent_bytes_total{route="narinfo",source="local"}`, `narwharf_http_sent_bytes_total{route="packed-nar",source="local"}`)
	if left, err := os.ReadDir(w.dir + "/cache"); err != nil || len(left) != 1 {
		t.Errorf("serving wrote into the cache: %v, %v", left, err)
	}
	w.check()
}

// TestLocalSeesChanges: what Nix adds, deletes or changes is so in the very next
// answer, on the connection as through net/http.
func TestLocalSeesChanges(t *testing.T) {
	m := newMachine(t)
	ring := new(keyring)
	w, fast := fastWorld(t, func(s *setup) { s.keys = ring.load }, m.serve)
	stays := m.build("stays", map[string]string{"file": "stays"})
	comes := pathNamed("comes")
	quick := int64(0)
	ask := func(hash string, status int, viaQuick bool) string {
		t.Helper()
		w.fresh()
		a := w.must(w.get("/"+hash+".narinfo"), status)
		if viaQuick {
			quick++
		}
		if !becomes(fast, quick) {
			t.Errorf("%d fast answers, want %d", fast(), quick)
		}
		return a.body
	}
	ask(stays.info.Path.Hash(), 200, false)
	ask(stays.info.Path.Hash(), 200, true)
	for range 3 {
		ask(comes.Hash(), 404, false)
		p := m.build("comes", map[string]string{"file": "comes"})
		// The store has changed: the text in memory is looked at again, and used.
		ask(stays.info.Path.Hash(), 200, true)
		ask(comes.Hash(), 200, false)
		ask(comes.Hash(), 200, true)
		m.exec("update ValidPaths set sigs = ? where path = ?", signatures(t, 1)[0], p.info.Path.In("/nix/store"))
		if text := ask(comes.Hash(), 200, true); !strings.Contains(text, "Sig: ") {
			t.Errorf("a signature that Nix added is not there:\n%s", text)
		}
		m.remove(p)
		ask(comes.Hash(), 404, false)
		ask(stays.info.Path.Hash(), 200, true)
	}
	ring.set(newKey(t, "k-1"))
	if err := w.setup.Cache.Signer.Reload(); err != nil {
		t.Fatal(err)
	}
	if text := ask(stays.info.Path.Hash(), 200, false); !strings.Contains(text, "Sig: k-1:") {
		t.Errorf("no signature by the new key:\n%s", text)
	}
	packed, _ := stays.urls()
	w.must(w.get(packed), 200)
	quick = fast()
	if text := ask(stays.info.Path.Hash(), 200, true); !strings.Contains(text, "FileHash: ") {
		t.Errorf("no FileHash after the download:\n%s", text)
	}
}

// TestLAN: below /lan/ is the same cache, and what was never packed is there as it is.
func TestLAN(t *testing.T) {
	w, m := localWorld(t, func(s *setup) {
		s.PublicURL = &url.URL{Scheme: "https", Host: "cache.example.org", Path: "/some/prefix"}
	})
	own, sent := m.build("own", map[string]string{"file": strings.Repeat("own ", 1000)}), newUpload(t, "sent", "gzip")
	w.putAll(sent)
	info := func(prefix string, p *testPath) *narinfo.Info {
		t.Helper()
		text := w.must(w.get(prefix+p.infoURL()), 200).body
		info, err := narinfo.Parse([]byte(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		return info
	}
	packed, plain := own.urls()
	for _, prefix := range []string{"/lan", "/some/prefix/lan"} {
		near := info(prefix, own)
		if near.Compression != "none" || "/"+near.URL != plain || near.FileHash != own.info.NarHash || near.FileSize != own.info.NarSize {
			t.Errorf("never packed: %+v", near)
		}
		if a := w.must(w.get(prefix+plain), 200); a.body != string(own.nar) {
			t.Errorf("%d bytes", len(a.body))
		}
		if a := w.must(w.get(prefix+plain, "Range", "bytes=100-199"), 206); a.body != string(own.nar[100:200]) {
			t.Errorf("%d bytes of a range", len(a.body))
		}
		if far := info("", own); far.Compression != "zstd" || !far.FileHash.IsZero() {
			t.Errorf("at the other URL: %+v", far)
		}
		// All else is the same.
		if a, b := w.must(w.get(prefix+sent.infoURL()), 200), w.must(w.get(sent.infoURL()), 200); a.body != b.body {
			t.Errorf("an upload:\n%s\n%s", a.body, b.body)
		}
		for _, url := range []string{"", "/", "/nix-cache-info", "/pubkey", "/version"} {
			w.must(w.get(prefix+url), 200)
		}
		w.must(w.get(prefix+"/lan/nix-cache-info"), 404)
		w.must(w.get(prefix+"ge/nix-cache-info"), 404)
	}
	w.must(w.get(packed), 200)
	if near := info("/lan", own); near.Compression != "zstd" || near.FileHash.IsZero() {
		t.Errorf("packed: %+v", near)
	}
	late := newUpload(t, "late", "zstd")
	w.must(w.put("/lan/"+late.info.URL, late.body), 201)
	w.must(w.put("/lan"+late.infoURL(), late.info.Append(nil)), 201)
	w.mustServe(late)
	w.check()
}

// TestPacksAhead: what is built while the server runs is packed before anybody asks, and nothing else.
func TestPacksAhead(t *testing.T) {
	w, m := localWorld(t)
	power := t.TempDir()
	supply := func(name, file, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Join(power, name), 0o755), os.WriteFile(filepath.Join(power, name, file), []byte(text+"\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	build := func(name string, here int) *testPath {
		p := m.build(name, map[string]string{"file": strings.Repeat(name, 1000)})
		m.exec("update ValidPaths set ultimate = ? where path = ?", here, p.info.Path.In("/nix/store"))
		return p
	}
	packed := func(p *testPath) bool { return w.setup.Cache.Packed().Has(p.info.NarHash) }
	eventually := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	old := build("old", 1)
	supply("AC", "type", "Mains")
	supply("AC", "online", "0")
	supply("BAT0", "type", "Battery")
	looks := make(chan struct{}, 1)
	p := &ahead.Packer{Store: w.setup.Cache.Local, Every: time.Millisecond, Power: power, Looked: func() {
		select {
		case looks <- struct{}{}:
		default:
		}
	}, Log: slog.New(slog.DiscardHandler)}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { p.Run(ctx); close(ended) }()
	defer func() { stop(); <-ended }()
	<-looks
	here, fetched := build("here", 1), build("fetched", 0)
	for range 10 {
		<-looks
	}
	if packed(here) {
		t.Error("packed on battery")
	}
	supply("mouse", "type", "Battery")
	supply("mouse", "scope", "Device")
	supply("AC", "online", "1")
	eventually("what was built is not packed", func() bool { return packed(here) })
	last := build("last", 1)
	eventually("what was built later is not packed", func() bool { return packed(last) })
	if packed(old) || packed(fetched) {
		t.Errorf("packed: there before %v, fetched %v", packed(old), packed(fetched))
	}
	w.mustSubstitute(here)
}

// TestLocalAndUploaded: what is in both is served from the uploads, at the URLs
// of both, and goes on when either is taken away.
func TestLocalAndUploaded(t *testing.T) {
	w, m := localWorld(t)
	both := newUpload(t, "both", "gzip")
	own := m.build("both", map[string]string{"file": strings.Split(string(both.nar), "I am")[0]})
	m.exec("delete from ValidPaths")
	if err := os.WriteFile(m.real(own.info.Path)+"/file", []byte("I am both"+strings.Repeat(".", 2000)), 0o644); err != nil {
		t.Fatal(err)
	}
	own.info.NarHash, own.info.NarSize, own.nar = both.info.NarHash, both.info.NarSize, both.nar
	m.register(own)
	packed, plain := own.urls()
	w.mustSubstitute(own)
	old := w.must(w.get(packed), 200)

	w.putAll(both)
	w.mustServe(both)
	if a := w.must(w.get(packed), 200); a.body != old.body || a.header.Get("Etag") != old.header.Get("Etag") {
		t.Errorf("the local URL has other bytes, %d instead of %d", len(a.body), len(old.body))
	}
	m.remove(own)
	w.mustServe(both)
	for range 2 {
		if a := w.must(w.get(packed), 200); a.body != old.body {
			t.Errorf("the local URL has other bytes, %d instead of %d", len(a.body), len(old.body))
		}
		w.must(w.head(packed), 200)
		if a := w.must(w.get(plain), 200); a.body != string(both.nar) {
			t.Errorf("the NAR has %d bytes and another content", len(a.body))
		}
		if a := w.must(w.get(plain, "Range", "bytes=100-199"), 206); a.body != string(both.nar[100:200]) {
			t.Errorf("the range has %d bytes", len(a.body))
		}
		// As if it had never been packed here.
		m2 := newMachine(t)
		m2.serve(&w.setup)
		w.restart()
	}
	other := "/nar/" + own.info.Path.Hash() + "-" + narinfo.Hash{1}.Base32()
	w.must(w.get(other+local.CompressedSuffix), 404)
	w.must(w.get(other+local.PlainSuffix), 404)
	w.check()
}

// TestServeStoreTurnedOff: clients remember URLs of local paths.
func TestServeStoreTurnedOff(t *testing.T) {
	w := newWorld(t)
	a, b := newUpload(t, "a", "zstd"), newUpload(t, "b", "gzip")
	w.putAll(a, b)
	packed, plain := a.urls()
	if got := w.must(w.get(packed), 200); got.body != string(a.body) {
		t.Errorf("%d bytes", len(got.body))
	}
	if got := w.must(w.get(plain), 200); got.body != string(a.nar) {
		t.Errorf("%d bytes", len(got.body))
	}
	packed, plain = b.urls()
	w.must(w.get(packed), 404)
	if got := w.must(w.get(plain), 200); got.body != string(b.nar) {
		t.Errorf("%d bytes", len(got.body))
	}
}

// TestUploadsBesideLocal: an upload may refer to local paths, and may not be a
// local path with another content.
func TestUploadsBesideLocal(t *testing.T) {
	w, m := localWorld(t)
	lib := m.build("lib", map[string]string{"lib.so": "code"})
	app := newUpload(t, "app", "zstd", lib)
	w.putAll(app)
	w.mustServe(app)
	lost := newUpload(t, "lost", "zstd")
	user := newUpload(t, "user", "zstd", lib, lost)
	w.must(w.put(user.narURL(), user.body), 201)
	w.must(w.put(user.infoURL(), user.text()), 422, "refers to "+string(lost.info.Path))

	both := newUpload(t, "both", "zstd")
	theirs := signatures(t, 2)
	own := m.build("both", map[string]string{"file": "I am both" + strings.Repeat(".", 2000)})
	m.exec("update ValidPaths set sigs = ? where path = ?", theirs[0], own.info.Path.In("/nix/store"))
	w.must(w.put(both.narURL(), both.body), 201)
	w.must(w.put(both.infoURL(), both.edited(func(i *narinfo.Info) { i.Sigs = theirs[1:] })), 201)
	w.must(w.get(both.infoURL()), 200, "Sig: "+theirs[0], "Sig: "+theirs[1])
	w.mustServe(both)

	liar := newUpload(t, "lib", "zstd")
	w.must(w.put(liar.narURL(), liar.body), 201)
	w.must(w.put(liar.infoURL(), liar.text()), 409, "own store", "NarHash")
	w.mustSubstitute(lib)
}

// TestLocalStoreUnreadable: uploads go on, and a client is not told that a path
// is not there, which it would remember.
func TestLocalStoreUnreadable(t *testing.T) {
	w, m := localWorld(t)
	up, own := newUpload(t, "up", "zstd"), m.build("local", map[string]string{"file": "local"})
	w.putAll(up)
	w.mustSubstitute(own)
	db := m.root + "/nix/var/nix/db"
	if err := os.Rename(db, db+".away"); err != nil {
		t.Fatal(err)
	}
	packed, plain := own.urls()
	w.mustServe(up)
	for range 2 {
		for _, url := range []string{own.infoURL(), packed, plain, "/" + own.info.Path.Hash() + ".ls", newUpload(t, "nowhere", "zstd").infoURL()} {
			w.must(w.get(url), 503, "cannot read its own Nix store now")
		}
	}
	w.must(w.get("/readyz"), 503, "local store")
	w.must(w.get("/healthz"), 200)
	w.putAll(newUpload(t, "another", "zstd", up))
	if err := os.Rename(db+".away", db); err != nil {
		t.Fatal(err)
	}
	w.mustSubstitute(own)
	w.must(w.get("/readyz"), 200, "local store")
}

// TestPackedCopiesMakeWay: what can be made again takes no room from uploads.
func TestPackedCopiesMakeWay(t *testing.T) {
	w, m := localWorld(t)
	p := m.build("p", map[string]string{"a": noise(100_000)})
	for i, kind := range []string{"nar", "narinfo"} {
		up := newUpload(t, kind, "zstd")
		at := []string{"create nar/" + up.file, "create " + up.info.Path.Hash() + ".narinfo"}[i]
		w.mustSubstitute(p)
		var once sync.Once
		w.breakAt(func(op, name string) (err error) {
			if op+" "+name == at {
				once.Do(func() { err = syscall.ENOSPC })
			}
			return err
		})
		w.putAll(up)
		w.breakAt(nil)
		if left, err := filepath.Glob(filepath.Join(m.packed, "*"+local.CompressedSuffix)); err != nil || len(left) > 0 {
			t.Errorf("%s: the packed copies are %v, %v", at, left, err)
		}
		w.mustServe(up)
	}
	// Nothing left that could make way: the upload is refused.
	late := newUpload(t, "late", "zstd")
	w.breakAt(func(op, _ string) error {
		if op == "create" {
			return syscall.ENOSPC
		}
		return nil
	})
	w.must(w.put(late.narURL(), late.body), 413, "no room")
	w.breakAt(nil)
	w.mustSubstitute(p)
	w.check()
}

// TestLocalChangesUnderLoad: while others keep asking for the same paths, the
// first answer after each change is the right one.
func TestLocalChangesUnderLoad(t *testing.T) {
	m := newMachine(t)
	w, _ := fastWorld(t, m.serve)
	w.client.Transport = &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 20}
	stays := m.build("stays", map[string]string{"file": "stays"})
	comes := pathNamed("comes")
	done := make(chan struct{})
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				for _, p := range []narinfo.Path{stays.info.Path, comes} {
					a := w.get("/" + p.Hash() + ".narinfo")
					if a.cut != nil || a.status != 200 && (a.status != 404 || p != comes) {
						t.Errorf("%s is %v", p, a)
						return
					}
				}
			}
		})
	}
	for i := range 40 {
		p := m.build("comes", map[string]string{"file": fmt.Sprint("the content of time ", i)})
		a := w.must(w.get(p.infoURL()), 200)
		if !strings.Contains(a.body, p.info.NarHash.Base32()) {
			t.Errorf("time %d is answered with an earlier one:\n%s", i, a.body)
		}
		if i%4 == 0 {
			w.mustSubstitute(p)
		}
		m.remove(p)
		w.must(w.get(p.infoURL()), 404)
	}
	close(done)
	group.Wait()
	w.client.CloseIdleConnections()
}

// One row of Nix's database that makes no sense is that path's alone: it is not here, so
// that clients ask elsewhere, and the log says what is wrong with it.
func TestUnreadableRow(t *testing.T) {
	w, m := localWorld(t)
	var log logBuffer
	m.serveLogging(&w.setup, slog.New(slog.NewTextHandler(&log, nil)))
	w.restart()
	good := m.build("good", map[string]string{"a": "b"})
	for i, c := range []struct{ column, value, words string }{
		{"hash", "sha256:nonsense", "makes no sense"},
		{"hash", "md5:" + strings.Repeat("0", 32), "makes no sense"},
		{"narSize", "0", "it has no NAR size"},
		{"narSize", "-5", "it has no NAR size"},
		{"deriver", "/nix/store/nonsense", "deriver"},
		{"ca", "x\ny", "makes no sense"},
	} {
		p := m.build(fmt.Sprint("bad-", i), map[string]string{"a": fmt.Sprint(i)})
		user := m.build(fmt.Sprint("user-", i), map[string]string{"u": fmt.Sprint(i)}, p)
		w.must(w.get(p.infoURL()), 200)
		m.exec("update ValidPaths set "+c.column+" = ? where path = ?", c.value, p.info.Path.In("/nix/store"))
		for _, url := range []string{p.infoURL(), "/" + p.info.Path.Hash() + ".ls"} {
			w.must(w.get(url), 404)
			w.must(w.head(url, "Authorization", "Bearer "+w.token), 404)
		}
		w.must(w.get(good.infoURL()), 200)
		w.must(w.get(user.infoURL()), 200)
		text := log.String()
		if !strings.Contains(text, string(p.info.Path)) || !strings.Contains(text, c.words) {
			t.Errorf("%s = %q: the log does not say so:\n%s", c.column, c.value, text)
		}
		m.exec("update ValidPaths set narSize = ?, deriver = null, ca = null, hash = ? where path = ?", p.info.NarSize, fmt.Sprintf("sha256:%x", p.info.NarHash[:]), p.info.Path.In("/nix/store"))
		w.must(w.get(p.infoURL()), 200)
	}
	// A reference to no row at all.
	p := m.build("dangling", map[string]string{"a": "d"})
	m.exec("pragma foreign_keys = off")
	m.exec("insert into Refs select id, 999999 from ValidPaths where path = ?", p.info.Path.In("/nix/store"))
	w.must(w.get(p.infoURL()), 404)
	if text := log.String(); !strings.Contains(text, "refers to row 999999") {
		t.Errorf("the log:\n%s", text)
	}
	// All of the store is another matter.
	m.exec("alter table ValidPaths rename to Elsewhere")
	w.must(w.get(good.infoURL()), 503, "cannot read its own Nix store now")
	m.exec("alter table Elsewhere rename to ValidPaths")
	for range 300 { // what failed is left alone for a second
		if w.get(good.infoURL()).status == 200 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.must(w.get(good.infoURL()), 200)
}
