package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// malformed are sequences that no reader may take for an archive. Each begins like a good one.
func malformed() map[string][]byte {
	file := File{Body: "body"}
	good := NAR(Dir{{"a", file}, {"b", Dir{{"c", Link{"target"}}}}})
	cut := func(n int) []byte { return append([]byte(nil), good[:len(good)-n]...) }
	named := func(name string) []byte { return NAR(Dir{{name, file}}) }
	dirty := append([]byte(nil), NAR(File{Body: "12345"})...)
	dirty[len(dirty)-16-1] = 'x' // the padding of the body, before the closing ")"
	huge := narStrings("nix-archive-1", "(", "type", "regular", "contents")
	huge = append(huge, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)
	return map[string][]byte{
		"nothing after the magic":   narStrings("nix-archive-1"),
		"no magic":                  narStrings(Dir{}.tokens()...),
		"magic of another version":  narStrings(append([]string{"nix-archive-2"}, file.tokens()...)...),
		"cut by 8":                  cut(8),
		"cut by 16":                 cut(16),
		"cut by 1":                  cut(1),
		"cut in the middle":         cut(len(good) / 2),
		"junk after it":             append(append([]byte(nil), good...), "junk"...),
		"zeros after it":            append(append([]byte(nil), good...), make([]byte, 8)...),
		"a second archive":          append(append([]byte(nil), good...), good...),
		"wrong order":               NAR(Dir{{"b", file}, {"a", file}}),
		"a name twice":              NAR(Dir{{"a", file}, {"a", file}}),
		"name ..":                   named(".."),
		"name .":                    named("."),
		"name with a slash":         named("a/b"),
		"absolute name":             named("/etc/passwd"),
		"empty name":                named(""),
		"name with NUL":             named("a\x00b"),
		"name too long":             named(strings.Repeat("x", 300)),
		"name of 2 GB":              append(narStrings("nix-archive-1", "(", "type", "directory", "entry", "(", "name"), 0, 0, 0, 0x80, 0, 0, 0, 0),
		"file of 8 EiB":             huge,
		"padding not zero":          dirty,
		"empty link target":         NAR(Link{""}),
		"link target with NUL":      NAR(Link{"a\x00b"}),
		"unknown type":              narStrings("nix-archive-1", "(", "type", "socket", ")"),
		"entry without node":        narStrings("nix-archive-1", "(", "type", "directory", "entry", "(", "name", "a", ")", ")"),
		"executable with a value":   narStrings("nix-archive-1", "(", "type", "regular", "executable", "yes", "contents", "", ")"),
		"executable after contents": narStrings("nix-archive-1", "(", "type", "regular", "contents", "", "executable", "", ")"),
		"target of a file":          narStrings("nix-archive-1", "(", "type", "regular", "target", "x", ")"),
		"an ELF file":               append([]byte("\x7fELF"), noise(3, 400)...),
		"a page":                    []byte("<html><body>Bad gateway</body></html>"),
	}
}

// TestMalformedNAR: what is not exactly one archive is refused when its NAR is PUT.
func TestMalformedNAR(t *testing.T) {
	t.Parallel()
	st := newStage(t, nil)
	for name, nar := range malformed() {
		t.Run(name, func(t *testing.T) {
			for _, compression := range []string{"none", "zstd", "gzip"} {
				st := st.on(t)
				st.Compression = compression
				p := NewPath("malformed", nar)
				doc, file := st.Describe(p)
				before := st.server.Files()
				st.refused(st.PutNAR(doc, file), before, "NAR|archive|compress", 415, 422)
				if r := st.Head("/" + doc.URL); r.Status != http.StatusNotFound {
					t.Errorf("it is served: %v", r)
				}
				if r := st.PutDoc(p.Hash(), doc.String()); r.Status != http.StatusUnprocessableEntity {
					t.Errorf("a narinfo for it: %v", r)
				}
			}
		})
	}
}

// TestLyingFile: the file of a NAR is not what its name or compression says.
func TestLyingFile(t *testing.T) {
	t.Parallel()
	st := newStage(t, nil)
	nar := RepetitiveNAR(200_000)
	for _, compression := range []string{"zstd", "gzip", "xz", "bzip2", "none"} {
		good := compress(t, compression, nar)
		for name, file := range map[string][]byte{
			"truncated":     good[:len(good)-9],
			"cut in half":   good[:len(good)/2],
			"junk after it": append(append([]byte(nil), good...), "some junk"...),
			"a flipped bit": flip(good, len(good)/2),
			"empty":         {},
		} {
			if compression == "none" && name == "a flipped bit" {
				continue // another file, but a good NAR
			}
			t.Run(compression+" "+name, func(t *testing.T) {
				st := st.on(t)
				before := st.server.Files()
				// Under its own hash, so that only its content is wrong.
				url := "nar/" + nixDigest(file) + ".nar" + suffixes[compression]
				reply := st.PutNAR(Doc{URL: url}, file)
				st.refused(reply, before, "", 400, 411, 415, 422)
			})
		}
	}
	for name, url := range map[string]string{
		"hash of something else": "nar/" + nixDigest([]byte("else")) + ".nar.zst",
		"NarHash as name":        "nar/" + nixDigest(nar) + ".nar.zst",
	} {
		t.Run(name, func(t *testing.T) {
			st := st.on(t)
			before := st.server.Files()
			st.refused(st.PutNAR(Doc{URL: url}, compress(t, "zstd", nar)), before, "hash|SHA-256", 422)
		})
	}
	t.Run("suffix of another compression", func(t *testing.T) {
		st := st.on(t)
		file := compress(t, "zstd", nar)
		before := st.server.Files()
		reply := st.PutNAR(Doc{URL: "nar/" + nixDigest(file) + ".nar.xz"}, file)
		if reply.OK() { // recognised by its magic bytes; then it must be served as what it is
			return
		}
		st.refused(reply, before, "compress|zstd|xz", 400, 415, 422)
	})
}

func flip(b []byte, at int) []byte {
	c := append([]byte(nil), b...)
	c[at] ^= 0x40
	return c
}

// TestLyingURL: names that are none, on every route that takes uploads.
func TestLyingURL(t *testing.T) {
	t.Parallel()
	st := newStage(t, nil)
	p := NewPath("x", RandomNAR(12, 100))
	doc, file := st.Describe(p)
	hash := nixDigest(file)
	outside := takeSnapshot(t, st.server.Dir, "data", "log")
	for _, path := range []string{
		"/nar/../../" + hash + ".nar.zst", "/nar/..%2f..%2fevil.nar", "/nar/%2e%2e/%2e%2e/evil.nar", "/nar/%2Fetc%2Fevil.nar",
		"/nar/" + hash[:51] + ".nar.zst", "/nar/" + hash + "0.nar.zst", "/nar/" + strings.Repeat("e", 52) + ".nar.zst", // 'e' is no digit
		"/nar/" + strings.ToUpper(hash) + ".nar.zst", "/nar/" + hash, "/nar/", "/nar",
		"/nar/" + hash + ".nar.zst/x", "/nar//" + hash + ".nar.zst", "/nar/" + hash + ".nar.zst%00", "/nar/.nar", "/nar/" + strings.Repeat("0", 5000) + ".nar",
		"/" + p.Hash()[:31] + ".narinfo", "/" + p.Hash() + "0.narinfo", "/..%2f" + p.Hash() + ".narinfo", "/" + strings.ToUpper(p.Hash()) + ".narinfo",
		"/" + p.Hash() + ".narinfo/x", "/.narinfo", "/" + p.Hash() + ".ls/..", "/x/" + p.Hash() + ".narinfo",
		"/log/..%2f..%2fevil", "/log/", "/log/" + p.Base + ".drv/x", "/log/.", "/log/%2e%2e",
		"/debuginfo/../evil.debug", "/debuginfo/..%2fevil.debug", "/debuginfo/xyz.debug", "/debuginfo/" + strings.Repeat("a", 39) + ".debug/../../x",
		"/realisations/..%2fevil.doi", "/realisations/evil.doi", "/realisations/sha256:00!out.doi", "/realisations/sha256:" + strings.Repeat("0", 64) + "!..%2fx.doi",
		"/build-trace-v2/..%2f..%2fx/out.doi", "/build-trace-v2/" + p.Base + ".drv/..%2fout.doi", "/build-trace-v2/x/out.doi", "/build-trace-v2/" + p.Base + ".drv/.doi",
		"/narwharf.db", "/tmp/x", "/cache/x", "/admin.sock", "/config.toml", "/unknown", "//", "/%00",
	} {
		t.Run(strings.ReplaceAll(path[:min(len(path), 60)], "/", "_"), func(t *testing.T) {
			st := st.on(t)
			before := st.server.Files()
			body := file
			if strings.Contains(path, ".narinfo") {
				body = []byte(doc.String())
			}
			reply := rawPut(t, st, path, body)
			st.refused(reply, before, "", 400, 403, 404, 405, 414, 422)
		})
	}
	if diff := outside.diff(takeSnapshot(t, st.server.Dir, "data", "log")); len(diff) > 0 {
		t.Errorf("outside of data_dir: %v", diff)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(st.server.Dir), "evil.nar")); err == nil {
		t.Error("a file climbed out")
	}
}

// rawPut sends a PUT whose path is written as it stands.
func rawPut(t *testing.T, st *stage, path string, body []byte) Reply {
	t.Helper()
	r := DialRaw(t, st.server.Addr())
	r.Send(fmt.Sprintf("PUT %s HTTP/1.1\nHost: x\nAuthorization: Bearer %s\nContent-Type: application/octet-stream\nContent-Length: %d\n\n", path, st.Token, len(body)))
	r.SendBytes(body)
	reply, _ := r.Answer(http.MethodPut)
	reply.Request = "PUT " + path
	return reply
}

// TestShortBody: a body that ends before its Content-Length leaves nothing behind.
func TestShortBody(t *testing.T) {
	t.Parallel()
	st := newStage(t, nil)
	p := NewPath("short", RandomNAR(13, 300_000))
	doc, file := st.Describe(p)
	before := st.server.Files()
	for _, n := range []int{0, 1, 1000, len(file) / 2, len(file) - 1} {
		r := DialRaw(t, st.server.Addr())
		r.Send(fmt.Sprintf("PUT /%s HTTP/1.1\nHost: x\nAuthorization: Bearer %s\nContent-Length: %d\n\n", doc.URL, st.Token, len(file)))
		r.SendBytes(file[:n])
		_ = r.Conn.Close()
	}
	eventually(t, 5*time.Second, func() string { return strings.Join(before.diff(st.server.Files()), "\n") })
	st.server.Fsck()
	st.Upload(p)
	st.Fetch(p)
}
