package cache

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/cache/index"
	"narwharf/cache/narfiletest"
	"narwharf/cache/upload"
	"narwharf/cache/upload/recovery"
	"narwharf/narinfo"
	"narwharf/signing/access/scope"
)

func TestUploadEveryCompression(t *testing.T) {
	w := newWorld(t)
	archive, packed := narfiletest.Samples(t)
	for name, body := range packed {
		p := rawUpload(t, strings.ReplaceAll(name, " ", "-"), archive, narfiletest.Codec(name), body)
		w.putAll(p)
		w.mustServe(p)
		w.check()
	}
}

func TestUploadIsIdempotent(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "twice", "zstd")
	for range 3 {
		w.putAll(p)
		w.mustServe(p)
		w.check()
	}
	// A second path with the same NAR needs only its narinfo.
	q := rawUpload(t, "other-name", p.nar, "zstd", p.body)
	w.must(w.put(q.infoURL(), q.text()), 201)
	w.mustServe(p, q)
	w.check()
}

// What the cache holds is normalised, and says what was found, whatever was
// claimed or left out.
func TestUploadNormalises(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.signUploads = false })
	p := newUpload(t, "normal", "zstd")
	w.must(w.put(p.narURL(), p.body), 201)
	odd := strings.Replace(string(p.edited(func(i *narinfo.Info) { i.FileHash, i.FileSize = narinfo.Hash{}, 0 })), "References: \n", "", 1) + "System: x86_64-linux\n"
	w.must(w.put(p.infoURL(), []byte(odd)), 201)
	if a := w.must(w.get(p.infoURL()), 200); a.body != string(p.text()) {
		t.Errorf("stored\n%s\nwant\n%s", a.body, p.text())
	}
	w.check()
}

// Every way in which an upload can lie is refused in words, with a status that
// no Nix repeats, and leaves nothing behind.
func TestUploadLies(t *testing.T) {
	w := newWorld(t)
	good := newUpload(t, "good", "zstd")
	w.putAll(good)
	lib := newUpload(t, "lib", "zstd") // never uploaded
	p := newUpload(t, "liar", "zstd", good)
	plain := newUpload(t, "liar", "none", good)
	w.must(w.put(p.narURL(), p.body), 201)
	edit := func(change func(*narinfo.Info)) []byte { return p.edited(change) }
	other := narinfo.Hash(sha256.Sum256([]byte("other")))
	badNar := bytes.Replace(plain.body, []byte("directory"), []byte("directorz"), 1)
	bomb := narfiletest.Compress(t, "zstd", narOf(t, map[string]string{"zeros": string(make([]byte, 65<<20))}))

	nars := func(body []byte) string { // under its right name
		return "/nar/" + narinfo.Hash(sha256.Sum256(body)).Base32() + ".nar.zst"
	}
	for name, c := range map[string]struct {
		path   string
		body   []byte
		status int
		words  []string
	}{
		"NAR under another name":    {"/nar/" + other.Base32() + ".nar.zst", p.body, 422, []string{"SHA-256", narinfo.Hash(sha256.Sum256(p.body)).Base32(), other.Base32()}},
		"NAR under no hash":         {"/nar/" + strings.Repeat("z", 52) + ".nar.zst", p.body, 404, []string{"SHA-256"}},
		"malformed NAR":             {nars(badNar), badNar, 422, []string{"not a well-formed NAR", "none"}},
		"NAR cut short":             {nars(plain.body[:len(plain.body)-8]), plain.body[:len(plain.body)-8], 422, []string{"well-formed"}},
		"junk behind a NAR":         {nars(append(bytes.Clone(plain.body), 'x')), append(bytes.Clone(plain.body), 'x'), 422, []string{"well-formed"}},
		"junk behind zstd":          {nars(append(bytes.Clone(p.body), "junk"...)), append(bytes.Clone(p.body), "junk"...), 422, []string{"zstd"}},
		"zstd cut short":            {nars(p.body[:len(p.body)-1]), p.body[:len(p.body)-1], 422, []string{"zstd"}},
		"no NAR":                    {nars([]byte("hello")), []byte("hello"), 422, []string{"neither a NAR nor"}},
		"nothing":                   {nars(nil), nil, 422, []string{"empty"}},
		"decompression bomb":        {nars(bomb), bomb, 413, []string{"unpacked", "64 MiB"}},
		"lzip":                      {nars([]byte("LZIP\x01")), []byte("LZIP\x01"), 415, []string{"lzip", "zstd"}},
		"FileHash":                  {p.infoURL(), edit(func(i *narinfo.Info) { i.FileHash = other }), 422, []string{"FileHash"}},
		"FileSize":                  {p.infoURL(), edit(func(i *narinfo.Info) { i.FileSize++ }), 422, []string{"FileSize"}},
		"NarHash":                   {p.infoURL(), edit(func(i *narinfo.Info) { i.NarHash = other }), 422, []string{"NarHash", other.String()}},
		"NarSize":                   {p.infoURL(), edit(func(i *narinfo.Info) { i.NarSize-- }), 422, []string{"NarSize"}},
		"Compression":               {p.infoURL(), edit(func(i *narinfo.Info) { i.Compression = "xz" }), 422, []string{"Compression", "xz", "zstd"}},
		"URL of a missing NAR":      {p.infoURL(), edit(func(i *narinfo.Info) { i.URL = lib.info.URL }), 422, []string{lib.info.URL, "--refresh"}},
		"URL of another NAR":        {p.infoURL(), edit(func(i *narinfo.Info) { i.URL = good.info.URL }), 422, nil},
		"URL elsewhere":             {p.infoURL(), edit(func(i *narinfo.Info) { i.URL = "http://elsewhere/" + p.info.URL }), 422, []string{"URL"}},
		"URL that climbs":           {p.infoURL(), edit(func(i *narinfo.Info) { i.URL = "nar/../" + p.info.URL }), 422, []string{"URL"}},
		"URL from the root":         {p.infoURL(), edit(func(i *narinfo.Info) { i.URL = "/" + p.info.URL }), 422, []string{"URL"}},
		"missing reference":         {p.infoURL(), edit(func(i *narinfo.Info) { i.References = append(i.References, lib.info.Path) }), 422, []string{string(lib.info.Path), "--refresh"}},
		"reference of another name": {p.infoURL(), edit(func(i *narinfo.Info) { i.References[0] += "x" }), 422, []string{"--refresh"}},
		"foreign store":             {p.infoURL(), edit(func(i *narinfo.Info) { i.StoreDir = "/gnu/store" }), 422, []string{"/nix/store", "/gnu/store"}},
		"another path's URL":        {lib.infoURL(), p.text(), 422, []string{string(p.info.Path)}},
		"CRLF":                      {p.infoURL(), bytes.ReplaceAll(p.text(), []byte("\n"), []byte("\r\n")), 422, []string{"CR LF"}},
		"no final newline":          {p.infoURL(), bytes.TrimSuffix(p.text(), []byte("\n")), 422, []string{"newline"}},
		"an empty narinfo":          {p.infoURL(), nil, 422, []string{"empty"}},
		"over-long narinfo":         {p.infoURL(), append(p.text(), "X: "+strings.Repeat("x", upload.MaxNarinfo)+"\n"...), 413, []string{"larger"}},
		"a path that climbs":        {p.infoURL(), bytes.ReplaceAll(p.text(), []byte("-liar"), []byte("-../../etc/passwd")), 422, nil},
		"a name with an escape":     {p.infoURL(), bytes.ReplaceAll(p.text(), []byte("-liar"), []byte("-\x1b[31mliar")), 422, nil},
		"nonsense":                  {p.infoURL(), []byte("<html>hello</html>"), 422, nil},
		"17 signatures":             {p.infoURL(), edit(func(i *narinfo.Info) { i.Sigs = signatures(t, 17) }), 422, []string{"17", "16"}},
		"a corrupt signature":       {p.infoURL(), append(p.text(), "Sig: key:AAAA\n"...), 422, []string{"Sig"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.must(w.put(c.path, c.body), c.status, c.words...)
			if !slices.Contains(final, a.status) {
				t.Errorf("%d may make Nix try again", a.status)
			}
			w.must(w.get(p.infoURL()), 404)
			if strings.HasPrefix(c.path, "/nar/") {
				w.must(w.get(c.path), 404)
			}
			w.check()
		})
	}
	w.must(w.put(p.infoURL(), p.text()), 201) // and the truth is still welcome
	w.mustServe(p, good)
	w.check()
}

func TestUploadReferences(t *testing.T) {
	w := newWorld(t)
	var libs []*testPath
	for i := range 5 {
		libs = append(libs, newUpload(t, fmt.Sprint("lib", i), "none"))
	}
	p := newUpload(t, "user", "none", libs...)
	p.info.References = append(p.info.References, p.info.Path) // itself, which need not be there
	slices.Sort(p.info.References)
	// All NARs first, as from Nix 2.35 on.
	for _, q := range append(libs, p) {
		w.must(w.put(q.narURL(), q.body), 201)
	}
	w.must(w.put(p.infoURL(), p.text()), 422, "and 3 more", "--refresh")
	for _, q := range libs {
		w.must(w.put(q.infoURL(), q.text()), 201)
	}
	w.must(w.put(p.infoURL(), p.text()), 201)
	w.mustServe(append(libs, p)...)
	w.check()

	loose := newWorld(t, func(s *setup) { s.uploads.AllowIncomplete = true })
	loose.putAll(p)
	loose.mustServe(p)
	loose.check()
}

// The first fingerprint of a path wins, and the second hears when and by whom.
func TestUploadConflict(t *testing.T) {
	w := newWorld(t)
	lib := newUpload(t, "lib", "none")
	p := newUpload(t, "app", "none")
	w.putAll(lib, p)
	for name, c := range map[string]struct {
		q     *testPath
		words string
	}{
		"another NAR":       {packUpload(t, "app", narOf(t, map[string]string{"other": "content"}), "none"), "NarHash"},
		"other references":  {packUpload(t, "app", p.nar, "none", lib), "references"},
		"another path name": {func() *testPath { q := packUpload(t, "app", p.nar, "none"); q.info.Path += "-2"; return q }(), "the path there"},
	} {
		t.Run(name, func(t *testing.T) {
			w.must(w.put(c.q.narURL(), c.q.body), 201)
			w.must(w.put(c.q.infoURL(), c.q.text()), 409, c.words, "by ci", time.Now().UTC().Format("2006-01-02T"), "first")
			w.mustServe(p)
			w.check()
		})
	}
}

func TestUploadMergesSignatures(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.signUploads = false })
	p := newUpload(t, "signed", "none")
	sigs := signatures(t, 18)
	with := func(s ...string) []byte { return p.edited(func(i *narinfo.Info) { i.Sigs = s }) }
	w.must(w.put(p.narURL(), p.body), 201)
	w.must(w.put(p.infoURL(), with(sigs[0], sigs[1])), 201)
	w.must(w.put(p.infoURL(), with(sigs[2], sigs[1])), 201)
	w.must(w.put(p.infoURL(), with()), 201) // `nix-store --add` sends none: the old ones stay
	mustSigs := func(want ...string) {
		t.Helper()
		a := w.must(w.get(p.infoURL()), 200)
		info, err := narinfo.Parse([]byte(a.body))
		slices.Sort(want)
		if err != nil || !slices.Equal(info.Sigs, want) {
			t.Errorf("the path has %q, %v, want %q", info.Sigs, err, want)
		}
		w.check()
	}
	mustSigs(sigs[:3]...)
	w.must(w.put(p.infoURL(), with(sigs[3:16]...)), 201)
	mustSigs(sigs[:16]...)
	w.must(w.put(p.infoURL(), with(sigs[16])), 422, "16")
	w.must(w.put(p.infoURL(), with(sigs[2])), 201)
	mustSigs(sigs[:16]...)
	w.restart()
	mustSigs(sigs[:16]...)
}

// A later upload must not add what no signature covers and a client acts on.
func TestUploadKeepsTheFirstCA(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.signUploads = false })
	p := newUpload(t, "ca", "none")
	w.putAll(p)
	before := w.get(p.infoURL()).body
	ca := "fixed:r:sha256:" + strings.Repeat("0", 52)
	w.must(w.put(p.infoURL(), p.edited(func(i *narinfo.Info) { i.CA = ca })), 201)
	if a := w.get(p.infoURL()); a.body != before {
		t.Errorf("the path became\n%s", a.body)
	}
	w.must(w.put(p.infoURL(), p.edited(func(i *narinfo.Info) { i.Deriver = p.info.Path + ".drv" })), 201)
	if a := w.get(p.infoURL()); !strings.Contains(a.body, "Deriver: "+string(p.info.Path)+".drv") {
		t.Errorf("the deriver was lost:\n%s", a.body)
	}
	w.check()
}

// Two uploaders of one path compress it differently: both files stay, since
// the uploaders' own Nix remembers its URL.
func TestUploadAlternates(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "alt", "zstd")
	q, r := p.repacked(t, "gzip"), p.repacked(t, "none")
	w.putAll(p, q, r, q)
	w.mustServe(p)
	for _, x := range []*testPath{p, q, r} {
		if a := w.must(w.get(x.narURL()), 200); a.body != string(x.body) {
			t.Errorf("%s is not what was sent", x.info.URL)
		}
	}
	if a := w.get(p.infoURL()); !strings.Contains(a.body, "URL: "+p.info.URL) {
		t.Errorf("the first file is no longer the path's:\n%s", a.body)
	}
	w.check()
	// None of them is swept.
	w.age(p, q, r)
	if files, _, err := w.u.Sweep(time.Now()); files != 0 || err != nil {
		t.Errorf("swept %d files, %v", files, err)
	}
	w.restart()
	w.check()

	// The first file is lost: the next upload that brings it heals the path.
	if err := os.Remove(filepath.Join(w.dir, "cache", p.info.URL)); err != nil {
		t.Fatal(err)
	}
	w.changedBehind()
	w.putAll(q)
	w.mustServe(p)
	if a := w.get(p.infoURL()); !strings.Contains(a.body, "URL: "+q.info.URL) {
		t.Errorf("not healed:\n%s", a.body)
	}
	w.check()
	// It comes back, as one of several.
	w.putAll(p)
	w.mustServe(p)
	w.must(w.get(p.narURL()), 200)
	w.check()
}

// age makes NAR files look as if they were sent, and asked for last, long ago.
func (w *world) age(paths ...*testPath) { w.t.Helper(); w.ageBy(100*time.Hour, paths...) }

func (w *world) ageBy(by time.Duration, paths ...*testPath) {
	w.t.Helper()
	if err := errors.Join(w.u.Keep(), recovery.FindUnnamed(w.t.Context(), w.u)); err != nil {
		w.t.Fatal(err)
	}
	for _, p := range paths {
		err := w.index.Change([]string{index.NarLock(p.info.URL)}, func(tx *index.Tx) error {
			row, err := tx.File(p.info.URL)
			if row == nil || err != nil { // that of a path has no time
				return err
			}
			row.Asked = time.Now().Add(-by)
			return tx.PutFile(p.info.URL, row)
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// After a restart the facts of a NAR are not in memory: it is read again, or a
// narinfo that was checked against it tells.
func TestUploadNarinfoAfterRestart(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "later", "zstd")
	w.must(w.put(p.narURL(), p.body), 201)
	w.restart()
	w.must(w.put(p.infoURL(), p.edited(func(i *narinfo.Info) { i.NarSize++ })), 422, "NarSize")
	w.must(w.put(p.infoURL(), p.text()), 201)
	w.restart()
	q := rawUpload(t, "same-content", p.nar, "zstd", p.body)
	w.must(w.put(q.infoURL(), q.edited(func(i *narinfo.Info) { i.NarSize++ })), 422, "NarSize")
	w.must(w.put(q.infoURL(), q.text()), 201)
	w.mustServe(p, q)
	w.check()
}

// A stored NAR that rotted before its narinfo came must not keep the path from
// being uploaded: a client that is told 200 on HEAD never sends it again.
func TestUploadOverADamagedNar(t *testing.T) {
	w := newWorld(t)
	p := newUpload(t, "rotten", "zstd")
	w.must(w.put(p.narURL(), p.body), 201)
	w.damage(p, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	w.restart()
	w.must(w.head(p.narURL()), 200)
	w.must(w.put(p.infoURL(), p.text()), 422, "--refresh")
	w.must(w.head(p.narURL()), 404)
	w.putAll(p)
	w.mustServe(p)
	w.check()
	// And a NAR that is put again mends what rotted meanwhile.
	w.damage(p, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	w.must(w.put(p.narURL(), p.body), 201)
	w.mustServe(p)
	w.check()
}

func (w *world) damage(p *testPath, change func([]byte) []byte) {
	w.t.Helper()
	name := filepath.Join(w.dir, "cache", p.info.URL)
	data, err := os.ReadFile(name)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(name, change(data), 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.changedBehind()
}

func TestUploadContentEncoding(t *testing.T) {
	w := newWorld(t)
	for _, c := range []string{"none", "identity", "zstd", "gzip", "br"} {
		p := newUpload(t, "encoded-"+c, "none")
		w.must(w.put(p.narURL(), p.body, "Content-Encoding", map[bool]string{true: c, false: "none"}[c == "identity"]), 201)
		body := p.text()
		if c != "identity" {
			body = narfiletest.Compress(t, c, body)
		}
		w.must(w.put(p.infoURL(), body, "Content-Encoding", c), 201)
		w.mustServe(p)
	}
	p := newUpload(t, "xz-encoded", "none")
	w.must(w.put(p.narURL(), p.body), 201)
	for c, body := range map[string][]byte{
		"xz": []byte("nonsense"), "zstd": []byte("nonsense"), "gzip": narfiletest.Compress(t, "gzip", p.text())[:40], "br": []byte("\xff"), "bzip2": []byte("BZh9xx"),
	} {
		w.must(w.put(p.infoURL(), body, "Content-Encoding", c), 422)
	}
	bomb := narfiletest.Compress(t, "zstd", make([]byte, 10<<20))
	w.must(w.put(p.infoURL(), bomb, "Content-Encoding", "zstd"), 413)
	w.check()
}

func TestUploadNixCacheInfo(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.anonymous = scope.Set{push} })
	w.must(w.do(http.MethodPut, "/nix-cache-info", []byte("StoreDir: /nix/store\n")), 201)
	w.must(w.do(http.MethodPut, "/nix-cache-info", []byte("WantMassQuery: 1\nStoreDir:/nix/store\n")), 201)
	w.must(w.do(http.MethodPut, "/nix-cache-info", []byte("StoreDir: /gnu/store\n")), 422, "/nix/store")
	w.must(w.do(http.MethodPut, "/nix-cache-info", []byte{}), 422)
	w.must(w.do(http.MethodPut, "/nix-cache-info", bytes.Repeat([]byte("x"), 5000)), 413)
	if a := w.must(w.get("/nix-cache-info"), 200); a.body != "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n" {
		t.Errorf("nix-cache-info is %q", a.body)
	}
}

func TestUploadToAnotherStore(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.uploads.StoreDir = "/home/me/store" })
	p := newUpload(t, "home", "none")
	p.info.StoreDir = "/home/me/store"
	w.putAll(p)
	w.mustServe(p)
	w.check()
	if a := w.get("/nix-cache-info"); !strings.Contains(a.body, "StoreDir: /home/me/store\n") {
		t.Errorf("nix-cache-info is %q", a.body)
	}
}

// put uploads with a token that may.
func (w *world) put(path string, body []byte, header ...string) answer {
	w.t.Helper()
	a := w.putAlone(path, body, header...)
	_ = w.u.Settled(strings.TrimPrefix(path, "/")) // a NAR, so that its file can be looked at
	return a
}

// putAlone is put that leaves a NAR to settle while the caller goes on.
func (w *world) putAlone(path string, body []byte, header ...string) answer {
	w.t.Helper()
	if body == nil {
		body = []byte{}
	}
	return w.do(http.MethodPut, path, body, append([]string{"Authorization", "Bearer " + w.token}, header...)...)
}
