package cache

import (
	"errors"
	"html"
	"io"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestServe: the same files and folders, be they uploaded or local, with types
// and headers that let them do nothing.
func TestServe(t *testing.T) {
	w, m := localWorld(t)
	files := map[string]string{
		"bin/run": "#!/bin/sh\necho <script>\n", "share/doc/index.html": "<b>hi</b>", "share/a b%?#\"<.txt": "odd", "data": "\x00\x01\x02",
		"empty": "", "https:evil.example/x": "y", "long": strings.Repeat("é", 100_000),
	}
	own := m.build("local", files)
	up := packUpload(t, "up", narOf(t, map[string]string{"file": "I am uploaded", "other": strings.Repeat("x", 70_000)}), "zstd")
	w.putAll(up)
	root := "/serve/" + own.info.Path.Hash() + "/"
	for name, wantType := range map[string]string{
		"bin/run": "text/plain; charset=utf-8", "share/doc/index.html": "text/html; charset=utf-8", "share/a%20b%25%3F%23%22%3C.txt": "text/plain; charset=utf-8",
		"data": "application/octet-stream", "empty": "text/plain; charset=utf-8", "long": "text/plain; charset=utf-8",
	} {
		a := w.must(w.get(root+name), 200)
		want := files[strings.NewReplacer("%20", " ", "%25", "%", "%3F", "?", "%23", "#", "%22", "\"", "%3C", "<").Replace(name)]
		if a.body != want || a.header.Get("Content-Type") != wantType {
			t.Errorf("%s: %d bytes, %s", name, len(a.body), a.header.Get("Content-Type"))
		}
		if csp := a.header.Get("Content-Security-Policy"); !strings.Contains(csp, "sandbox") || !strings.Contains(csp, "default-src 'none'") || a.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", name, a.header)
		}
		w.must(w.get(root+name, "If-None-Match", a.header.Get("Etag")), 304)
		sameHead(t, a, w.head(root+name))
	}
	page := w.must(w.get(root), 200, `<a href="./bin/">bin/</a>`, `<a href="./data">data</a>`, "3 bytes", own.info.Path.In("/nix/store"))
	if csp := page.header.Get("Content-Security-Policy"); !strings.Contains(csp, "sandbox") || strings.Contains(page.body, `href="../"`) {
		t.Errorf("%v %s", page.header, page.body)
	}
	w.must(w.get(root+"share/"), 200, `<a href="./a%20b%25%3F%23%22%3C.txt">a b%?#&#34;&lt;.txt</a>`, `<a href="../">`)
	if a := w.must(w.get(root+"share/doc"), 302); a.header.Get("Location") != "./doc/" {
		t.Errorf("%v", a.header)
	}
	if a := w.must(w.get(root+"https:evil.example"), 302); a.header.Get("Location") != "./https:evil.example/" {
		t.Errorf("%v", a.header)
	}
	for _, name := range []string{"none", "bin/none", "bin/run/x", "../x", "bin/../data", "./data", "bin//run", "%00", "bin/%2e%2e/data"} {
		w.must(w.get(root+name), 404)
	}
	w.must(w.get("/serve/"+someHash+"/"), 404, "not in this cache")
	w.must(w.get("/serve/"+someHash), 404)
	w.must(w.get("/serve/x/y"), 404, "a file is named")

	for range 2 { // the listing is made, and then kept
		base := "/serve/" + up.info.Path.Hash() + "/"
		w.must(w.get(base), 200, "other", "68 KiB")
		if a := w.must(w.get(base+"file"), 200); a.body != "I am uploaded" {
			t.Errorf("%v", a)
		}
		if a := w.must(w.get(base+"other"), 200); a.body != strings.Repeat("x", 70_000) {
			t.Errorf("%d bytes", len(a.body))
		}
		w.must(w.get(base+"none"), 404)
		w.must(w.get(base+"file/x"), 404)
	}
	w.check()
}

// TestServeLinks: a link is followed by the client, within the cache alone.
func TestServeLinks(t *testing.T) {
	w, m := localWorld(t)
	other := m.build("other", map[string]string{"lib/x": "x"})
	p := m.build("p", map[string]string{"bin/run": "x", "a/b/c": "y"})
	at := m.real(p.info.Path)
	full := other.info.Path.In("/nix/store")
	links := map[string]string{
		"abs": full + "/lib/x", "bin/whole": full, "a/b/up": "../../bin/run", "a/same": "b/c", "root": ".",
		"beside": "../" + string(other.info.Path) + "/lib/x", "a/b/far": "../../../" + string(other.info.Path), "dotted": full + "/lib/../lib/x", "back": "../" + string(p.info.Path) + "/bin/run",
		"out": "../../etc/passwd", "above": "..", "a/b/none": "../../../" + someHash, "dots": full + "/../../x", "etc": "/etc/passwd", "a/b/out": "../../../x", "odd": "/nix/store/nonsense",
	}
	for name, target := range links {
		if err := os.Symlink(target, at+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	base := "/serve/" + p.info.Path.Hash() + "/"
	for name, want := range map[string]string{
		"abs": "../" + other.info.Path.Hash() + "/lib/x", "bin/whole": "../../" + other.info.Path.Hash() + "/", "a/b/up": "../.././bin/run", "a/same": ".././a/b/c", "root": "./",
		"beside": "../" + other.info.Path.Hash() + "/lib/x", "a/b/far": "../../../" + other.info.Path.Hash() + "/", "dotted": "../" + other.info.Path.Hash() + "/lib/x", "back": "./bin/run",
		"bin/whole/": "../../../" + other.info.Path.Hash() + "/",
	} {
		if a := w.must(w.get(base+name), 302); a.header.Get("Location") != want {
			t.Errorf("%s leads to %q, want %q", name, a.header.Get("Location"), want)
		}
	}
	for _, name := range []string{"above", "a/b/none", "dots", "out", "etc", "a/b/out", "odd", "abs/x", "root/bin/run"} {
		w.must(w.get(base+name), 404)
	}
	follow := *w.client
	follow.CheckRedirect = nil
	for name, want := range map[string]string{"abs": "x", "a/b/up": "x", "a/same": "y", "beside": "x", "back": "x"} {
		resp, err := follow.Get(w.http.URL + base + name)
		if err != nil {
			t.Fatal(err)
		}
		text := make([]byte, 10)
		n, _ := resp.Body.Read(text)
		resp.Body.Close()
		if resp.StatusCode != 200 || string(text[:n]) != want {
			t.Errorf("%s leads to %d %q", name, resp.StatusCode, text[:n])
		}
	}
}

// TestServeWhatItLists: whatever a page has a link to is there.
func TestServeWhatItLists(t *testing.T) {
	w, m := localWorld(t)
	other := m.build("other", map[string]string{"x": "x"})
	deep := strings.Repeat(strings.Repeat("d", 200)+"/", 7) + "end"
	p := m.build("p", map[string]string{
		"caf\xe9": "not UTF-8", "a\nb": "a line", "a\\b": "backslash", "...": "dots", "..x": "dots", " ": "space", "a%2fb": "percent", "a;b=c,d:e@f$g&h+i'j\"k<l>": "signs",
		"x:y/z:": "colon", "ünï/ö": "letters", "\x01\x7f": "control", "~": "tilde", deep: "deep",
	})
	if err := os.Symlink("../"+string(other.info.Path), m.real(p.info.Path)+"/beside"); err != nil {
		t.Fatal(err)
	}
	client := *w.client
	client.CheckRedirect = nil
	files := 0
	var visit func(u *url.URL, depth int)
	visit = func(u *url.URL, depth int) {
		resp, err := client.Get(u.String())
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: %d %v", u, resp.StatusCode, err)
			return
		}
		if !strings.Contains(resp.Header.Get("Content-Type"), "html") {
			files++
			return
		}
		for _, m := range regexp.MustCompile(`<a href="([^"]*)">`).FindAllStringSubmatch(string(text), -1) {
			next, err := resp.Request.URL.Parse(html.UnescapeString(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			if m[1] != "../" && depth < 12 {
				visit(next, depth+1)
			}
		}
	}
	base, err := url.Parse(w.http.URL + "/serve/" + p.info.Path.Hash() + "/")
	if err != nil {
		t.Fatal(err)
	}
	visit(base, 0)
	if files != 14 {
		t.Errorf("%d files, want 14", files)
	}
}

// TestServeBreaks: a file that cannot be sent whole is broken off.
func TestServeBreaks(t *testing.T) {
	w, m := localWorld(t)
	p := m.build("p", map[string]string{"big": strings.Repeat("x", 100_000)})
	w.breakAt(func(op, name string) error { return errors.New(op + " " + name) }) // nothing of it is written anywhere
	w.must(w.get("/serve/"+p.info.Path.Hash()+"/big"), 200)
	w.breakAt(nil)
	up := newUpload(t, "up", "zstd")
	w.putAll(up)
	w.must(w.get("/serve/"+up.info.Path.Hash()+"/file"), 200)
	if err := os.Truncate(w.dir+"/cache/"+up.info.URL, 20); err != nil {
		t.Fatal(err)
	}
	if a := w.attempt("/serve/" + up.info.Path.Hash() + "/file"); a.status == 200 && a.cut == nil {
		t.Errorf("%v", a)
	}
}
