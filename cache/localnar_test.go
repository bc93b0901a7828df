package cache

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"narwharf/cache/local"
	"narwharf/cache/meter"
)

// noise does not pack well, so that an encode of it takes several reads.
func noise(n int) string {
	b := make([]byte, n)
	x := uint32(2463534242)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return string(b)
}

// TestLocalNarRanges: both forms at any range, before and after the encode.
func TestLocalNarRanges(t *testing.T) {
	w, m := localWorld(t)
	big := m.build("big", map[string]string{"a": "small", "b": noise(3 << 20), "c/d": "last", "c/e": ""})
	packed, plain := big.urls()
	size := len(big.nar)

	for _, c := range []struct {
		header   string
		from, to int
		status   int
	}{
		{"bytes=0-", 0, size, 206}, {"bytes=1-", 1, size, 206}, {"bytes=0-0", 0, 1, 206}, {fmt.Sprintf("bytes=%d-", size-1), size - 1, size, 206},
		{"bytes=-1", size - 1, size, 206}, {"bytes=-9", size - 9, size, 206}, {"bytes=500-3000000", 500, 3000001, 206},
		{fmt.Sprintf("bytes=2000000-%d", size+7), 2000000, size, 206}, {"bytes=1000-1003", 1000, 1004, 206},
		{fmt.Sprintf("bytes=%d-", size), 0, 0, 416}, {"bytes=0-1,4-5", 0, size, 200}, {"bytes=x", 0, size, 200},
	} {
		a := w.must(w.get(plain, "Range", c.header), c.status)
		want := string(big.nar[c.from:c.to])
		if c.status != 416 && a.body != want || a.header.Get("Accept-Ranges") != "bytes" {
			t.Errorf("%s: %d bytes, want %d; header %v", c.header, len(a.body), len(want), a.header)
		}
		cr := fmt.Sprintf("bytes %d-%d/%d", c.from, c.to-1, size)
		switch c.status {
		case 416:
			cr = fmt.Sprintf("bytes */%d", size)
		case 200:
			cr = ""
		}
		if got := a.header.Get("Content-Range"); got != cr {
			t.Errorf("%s: Content-Range %q, want %q", c.header, got, cr)
		}
	}

	// Nobody has asked for it: HEAD says nothing and starts nothing, a range
	// waits for the encode.
	a := w.must(w.head(packed), 200)
	if a.header.Get("Content-Length") != "" || a.header.Get("Etag") == "" || a.header.Get("Accept-Ranges") != "bytes" {
		t.Errorf("HEAD before: %v", a.header)
	}
	w.must(w.get(packed, "If-None-Match", a.header.Get("Etag")), 304)
	w.must(w.get(packed, "If-Match", `"another"`), 412)
	if _, known := w.setup.local.Compressed.Digest(big.info.NarHash); known {
		t.Error("something started an encoder")
	}
	tail := w.must(w.get(packed, "Range", "bytes=1000-"), 206)
	whole := w.must(w.get(packed), 200)
	if !bytes.Equal(unzstd(t, whole.body), big.nar) || tail.body != whole.body[1000:] {
		t.Errorf("%d bytes, and %d from 1000 on", len(whole.body), len(tail.body))
	}
	if got := w.head(packed); got.header.Get("Content-Length") != fmt.Sprint(len(whole.body)) || got.header.Get("Etag") != a.header.Get("Etag") {
		t.Errorf("HEAD after: %v", got.header)
	}
	w.must(w.get(packed, "If-None-Match", a.header.Get("Etag")), 304)
	w.must(w.get(packed, "Range", fmt.Sprintf("bytes=%d-", len(whole.body))), 416)
	if got := w.must(w.get(packed, "Range", "bytes=5-", "If-Range", `"another"`), 200); got.body != whole.body {
		t.Errorf("If-Range with another ETag: %d bytes", len(got.body))
	}
	w.must(w.get(plain, "If-None-Match", `"`+big.info.NarHash.Base32()+`"`), 304)
	if got := w.must(w.get(plain, "Range", "bytes=5-", "If-Range", `"another"`), 200); got.body != string(big.nar) {
		t.Errorf("If-Range with another ETag: %d bytes", len(got.body))
	}
}

// TestLocalNarUncoded: nothing on /nar/ is ever content-encoded, or Nix would
// not resume it.
func TestLocalNarUncoded(t *testing.T) {
	w, m := localWorld(t)
	p := m.build("p", map[string]string{"a": strings.Repeat("words ", 10000)})
	packed, plain := p.urls()
	for _, url := range []string{packed, packed, plain} {
		a := w.must(w.get(url, "Accept-Encoding", "zstd, br, gzip, deflate"), 200)
		if a.header.Get("Content-Encoding") != "" || a.header.Get("Accept-Ranges") != "bytes" || a.header.Get("Content-Type") != narType {
			t.Errorf("%s: %v", url, a.header)
		}
	}
	missing := "/nar/" + someHash + "-" + someFile
	for _, url := range []string{missing + local.CompressedSuffix, missing + local.PlainSuffix, "/nar/" + someHash + "-" + someFile[1:] + ".nar"} {
		if a := w.must(w.get(url), 404); a.header.Get("Accept-Ranges") != "bytes" {
			t.Errorf("%s: %v", url, a.header)
		}
	}
}

// TestLocalNarHTTP10: a client that cannot tell a broken reply from a whole one
// gets it with its length.
func TestLocalNarHTTP10(t *testing.T) {
	w, m := localWorld(t)
	p := m.build("p", map[string]string{"a": noise(300_000)})
	packed, plain := p.urls()
	for _, url := range []string{packed, plain} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.http.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", url)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		conn.Close()
		if err != nil || resp.ContentLength != int64(len(text)) || len(text) == 0 {
			t.Errorf("%s: Content-Length %d, %d bytes, %v", url, resp.ContentLength, len(text), err)
		}
	}
}

// TestLocalNarManyAtOnce: however many ask, at whatever moment, all get the same
// bytes of one encode.
func TestLocalNarManyAtOnce(t *testing.T) {
	w, m := localWorld(t)
	p := m.build("p", map[string]string{"a": noise(4 << 20), "b": "x"})
	packed, _ := p.urls()
	bodies := make([]string, 20)
	var group sync.WaitGroup
	for i := range bodies {
		group.Go(func() {
			a := w.get(packed)
			if a.status != 200 || a.cut != nil {
				t.Errorf("answered %d, %v", a.status, a.cut)
			}
			bodies[i] = a.body
		})
	}
	group.Wait()
	if !bytes.Equal(unzstd(t, bodies[0]), p.nar) || len(slices.Compact(bodies)) != 1 {
		t.Errorf("%d different bodies", len(slices.Compact(bodies)))
	}
}

// TestLocalNarDamaged: whatever is wrong with a path on the disk, no client gets
// a complete answer that is not the NAR, and the server says what is wrong.
func TestLocalNarDamaged(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(root string) error
		kind   string // "" if it shows in no way but the hash
		status int    // of what can be refused before the first byte
	}{
		"altered":       {func(r string) error { return os.WriteFile(r+"/b", []byte("X"+noise(3 << 20)[1:]), 0o644) }, "", 0},
		"longer":        {func(r string) error { return os.WriteFile(r+"/b", []byte(noise(3<<20)+"12345678"), 0o644) }, "changed", 500},
		"shorter":       {func(r string) error { return os.Truncate(r+"/b", 2<<20) }, "changed", 500},
		"one more file": {func(r string) error { return os.WriteFile(r+"/z", nil, 0o644) }, "changed", 500},
		"one less":      {func(r string) error { return os.Remove(r + "/c") }, "changed", 500},
		"half deleted":  {func(r string) error { return errors.Join(os.Remove(r+"/a"), os.Remove(r+"/b")) }, "changed", 500},
		"gone":          {os.RemoveAll, "missing", 404},
	} {
		t.Run(name, func(t *testing.T) {
			w, m := localWorld(t)
			p := m.build("p", map[string]string{"a": "small", "b": noise(3 << 20), "c": "last"})
			packed, plain := p.urls()
			if err := c.damage(m.real(p.info.Path)); err != nil {
				t.Fatal(err)
			}
			counted := 0
			whole := func(url string, header ...string) {
				t.Helper()
				a := w.attempt(url, header...)
				if a.cut == nil && a.status < 400 {
					t.Errorf("%s %q: a whole answer %d of %d bytes", url, header, a.status, len(a.body))
				}
				if a.status >= 400 && c.status != 0 && a.status != c.status {
					t.Errorf("%s %q: %v", url, header, a)
				}
				counted++
			}
			whole(packed)
			whole(packed, "Range", "bytes=100-")
			kind := c.kind
			if kind == "" {
				w.counted(`narwharf_local_broken_total{kind="changed"}`, counted)
				// Only its hash would tell, and who asks for it checks that.
				if a := w.must(w.get(plain), 200); a.body == string(p.nar) || len(a.body) != len(p.nar) {
					t.Errorf("%d bytes", len(a.body))
				}
			} else {
				whole(plain)
				whole(plain, "Range", "bytes=100-")
				whole("/" + p.info.Path.Hash() + ".ls")
				w.counted(`narwharf_local_broken_total{kind="`+kind+`"}`, counted)
			}
			if text := w.log.String(); !strings.Contains(text, m.real(p.info.Path)) || !strings.Contains(text, "nix store verify --repair") {
				t.Errorf("the log does not say what is wrong:\n%s", text)
			}
		})
	}
}

// attempt is get for an answer that may break off before its first byte.
func (w *world) attempt(url string, header ...string) answer {
	w.t.Helper()
	w.fresh() // or the client asks again by itself
	req, err := http.NewRequest(http.MethodGet, w.http.URL+url, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return answer{cut: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(text), err}
}

// TestLocalNarUnreadable: a file that may not be read is not one that is gone.
func TestLocalNarUnreadable(t *testing.T) {
	w, m := localWorld(t)
	p := m.build("p", map[string]string{"a": "x"})
	// What no permission can open: a pipe in the place of a file.
	file := m.real(p.info.Path) + "/a"
	if err := errors.Join(os.Remove(file), syscall.Mkfifo(file, 0o644)); err != nil {
		t.Fatal(err)
	}
	packed, plain := p.urls()
	for _, url := range []string{packed, plain} {
		if a := w.attempt(url); a.status < 400 && a.cut == nil {
			t.Errorf("%s: %v", url, a)
		}
	}
	w.counted(`narwharf_local_broken_total{kind="unreadable"}`, 2)
}

// TestLocalNarClientLeaves: that is not the path's fault.
func TestLocalNarClientLeaves(t *testing.T) {
	w, m := localWorld(t)
	p := m.build("p", map[string]string{"a": noise(16 << 20)})
	packed, plain := p.urls()
	for _, url := range []string{packed, plain} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.http.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", url)
		if _, err := io.ReadFull(conn, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	w.counted("narwharf_http_aborted_total", 2)
	for _, kind := range []string{meter.Changed, meter.Missing, meter.Unreadable} {
		w.counted(`narwharf_local_broken_total{kind="`+kind+`"}`, 0)
	}
	if a := w.must(w.get(plain), 200); a.body != string(p.nar) {
		t.Errorf("%d bytes", len(a.body))
	}
}

// TestHarmoniaURL: a NAR as Harmonia named it, which clients remember for 30 days after a switch.
func TestHarmoniaURL(t *testing.T) {
	w, m := localWorld(t)
	p := m.build("p", map[string]string{"a": strings.Repeat("b", 100_000)})
	up := newUpload(t, "up", "zstd")
	w.putAll(up)
	for name, c := range map[string]*testPath{"local": p, "uploaded": up} {
		url := "/nar/" + c.info.NarHash.Base32() + ".nar?hash=" + c.info.Path.Hash()
		a := w.must(w.get(url), 200)
		if a.body != string(c.nar) || a.header.Get("Accept-Ranges") != "bytes" || a.header.Get("Content-Encoding") != "" || !strings.Contains(a.header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d bytes, %v", name, len(a.body), a.header)
		}
		sameHead(t, a, w.head(url, "Authorization", "Bearer "+w.token))
		if part := w.must(w.get(url, "Range", "bytes=100-"), 206); part.body != string(c.nar[100:]) {
			t.Errorf("%s: %d bytes from 100 on", name, len(part.body))
		}
		w.must(w.get(url, "If-None-Match", a.header.Get("Etag")), 304)
		for what, other := range map[string]string{
			"another path":     "/nar/" + c.info.NarHash.Base32() + ".nar?hash=" + someHash,
			"another NAR":      "/nar/" + someFile + ".nar?hash=" + c.info.Path.Hash(),
			"compressed":       "/nar/" + c.info.NarHash.Base32() + ".nar.zst?hash=" + c.info.Path.Hash(),
			"no hash":          "/nar/" + c.info.NarHash.Base32() + ".nar?hash=",
			"no nix32":         "/nar/" + c.info.NarHash.Base32() + ".nar?hash=" + strings.Repeat("e", 32),
			"too long":         "/nar/" + c.info.NarHash.Base32() + ".nar?hash=" + c.info.Path.Hash() + "0",
			"another question": "/nar/" + c.info.NarHash.Base32() + ".nar?Hash=" + c.info.Path.Hash(),
		} {
			if a := w.must(w.get(other), 404); a.header.Get("Accept-Ranges") != "bytes" {
				t.Errorf("%s, %s: %v", name, what, a.header)
			}
		}
	}
	// An upload without compression has that name by itself, and the query changes nothing.
	plain := newUpload(t, "plain", "none")
	w.putAll(plain)
	if a := w.must(w.get(plain.narURL()+"?hash="+plain.info.Path.Hash()), 200); a.body != string(plain.nar) {
		t.Errorf("%d bytes", len(a.body))
	}
	w.must(w.put("/nar/"+someFile+".nar?hash="+someHash, []byte("x")), 422) // a PUT takes no notice
	w.must(w.get("/metrics"), 200, `narwharf_http_sent_bytes_total{route="nar",source="local"}`)
	w.check()
}
