package cache

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/limits"
)

func manyFiles(n int) map[string]string {
	files := make(map[string]string, n)
	for i := range n {
		files[fmt.Sprintf("f%07d", i)] = ""
	}
	return files
}

// TestListingHasAnEnd: a small file with a great many entries has no listing, and is not
// read again to find that out.
func TestListingHasAnEnd(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.uploads.MaxNarSize = 1 << 30 })
	up := packUpload(t, "up", narOf(t, manyFiles(500_001)), "zstd")
	w.putAll(up)
	w.must(w.get("/"+up.info.Path.Hash()+".ls"), 404, "has no listing: it has more than 500000 files")
	began := time.Now()
	for range 20 {
		w.must(w.get("/"+up.info.Path.Hash()+".ls"), 404, "has no listing")
		w.must(w.get("/serve/"+up.info.Path.Hash()+"/"), 404, "has no listing")
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("40 times again took %v", took)
	}
}

// TestServeReadsAListingOnce: many requests for files of a path with a long listing take
// little memory, and a folder comes in pages.
func TestServeReadsAListingOnce(t *testing.T) {
	w := newWorld(t)
	const files = 30_000
	up := packUpload(t, "up", narOf(t, manyFiles(files)), "zstd")
	w.putAll(up)
	base := "/serve/" + up.info.Path.Hash() + "/"
	var idle, before, after runtime.MemStats
	runtime.ReadMemStats(&idle)
	w.must(w.get(base+"f0000000"), 200)
	runtime.ReadMemStats(&before)
	var wg sync.WaitGroup
	for at := range 10 {
		wg.Go(func() {
			for i := range 10 {
				if a := w.get(fmt.Sprintf("%sf%07d", base, at*10+i)); a.status != 200 {
					t.Error(a)
				}
			}
		})
	}
	wg.Wait()
	runtime.ReadMemStats(&after)
	// Each that read the listing again would take as much as the first. With the race detector
	// pools forget, and the decoders of 100 take three times that.
	if first, more := before.TotalAlloc-idle.TotalAlloc, after.TotalAlloc-before.TotalAlloc; more > 10*first {
		t.Errorf("one request allocated %d MiB and 100 more %d MiB", first>>20, more>>20)
	}
	seen := 0
	for next := base; ; {
		page := w.must(w.get(next), 200)
		n := strings.Count(page.body, `href="./f`)
		if seen += n; n > 1000 {
			t.Errorf("a page of %d", n)
		}
		_, more, ok := strings.Cut(page.body, `href="./?after=`)
		if !ok {
			break
		}
		more, _, _ = strings.Cut(more, `"`)
		next = base + "?after=" + more
	}
	if seen != files {
		t.Errorf("%d files on all pages", seen)
	}
}

// TestUploadsTakeTurns: with all uploads under way another waits before a byte of it is
// read, and goes on when one has ended.
func TestUploadsTakeTurns(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.Uploads = 1 })
	up, other := packUpload(t, "up", narOf(t, map[string]string{"a": strings.Repeat("a", 1000)}), "none"), packUpload(t, "other", narOf(t, map[string]string{"b": "b"}), "none")
	c, err := net.Dial("tcp", w.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "PUT /%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", up.info.URL, w.token, len(up.body))
	if _, err := c.Write(up.body[:500]); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if w.s.UploadsInFlight() == 1 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	got := make(chan answer)
	go func() { got <- w.put("/"+other.info.URL, other.body) }()
	select {
	case a := <-got:
		t.Errorf("it did not wait: %v", a)
	case <-time.After(100 * time.Millisecond):
	}
	if _, err := c.Write(up.body[500:]); err != nil {
		t.Fatal(err)
	}
	w.must(<-got, 201)
}

// TestSlowUpload: a body that never stops and is slower than any line ends.
func TestSlowUpload(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.BodyIdle = 300 * time.Millisecond })
	c, err := net.Dial("tcp", w.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	up := packUpload(t, "up", narOf(t, map[string]string{"a": "a"}), "none")
	fmt.Fprintf(c, "PUT /%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", up.info.URL, w.token, len(up.body))
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	text, _ := io.ReadAll(c)
	if !strings.Contains(string(text), " 400 ") {
		t.Errorf("%s", text)
	}
}

// TestBusyClient: who had much processor time of what costs him little is told to wait,
// and nobody else.
func TestBusyClient(t *testing.T) {
	w := newWorld(t)
	up := packUpload(t, "up", narOf(t, map[string]string{"a": strings.Repeat("a", 300_000), "b": "b"}), "zstd")
	w.putAll(up)
	url := "/nar/" + up.info.Path.Hash() + "-" + up.info.NarHash.Base32() + ".nar"
	w.must(w.get(url, "Range", "bytes=300300-300310"), 206)
	w.channels.Spend(" "+limits.Address("127.0.0.1:1"), time.Minute)
	a := w.must(w.get(url, "Range", "bytes=300300-300310"), 503, "works on as much as it can for your address")
	if a.header.Get("Retry-After") == "" || a.header.Get("Accept-Ranges") != "bytes" {
		t.Errorf("%v", a.header)
	}
	w.must(w.get("/serve/"+up.info.Path.Hash()+"/b"), 503)
	w.must(w.get("/nar/"+up.info.NarHash.Base32()+".nar?hash="+up.info.Path.Hash(), "Range", "bytes=300300-300310"), 503) // as Harmonia has it
	w.must(w.get("/"+up.info.Path.Hash()+".narinfo"), 200)
	w.must(w.get(url), 200) // from its begin: that costs what it gives
	w.must(w.get("/serve/"+up.info.Path.Hash()+"/b", "Authorization", "Bearer "+w.token), 200)
	if a.status == http.StatusOK {
		t.Error(a)
	}
}

// TestBusyClientOfLocalStore: nor does a walk over a path of the local store, or to unpack a log of
// its builds, cost nothing.
func TestBusyClientOfLocalStore(t *testing.T) {
	w, m := localWorld(t)
	p := m.build("p", map[string]string{"a": "a", "b/c": "c"})
	_, plain := p.urls()
	w.must(w.get(plain, "Range", "bytes=8-18"), 206)
	w.must(w.get("/serve/"+p.info.Path.Hash()+"/b/"), 200)
	w.channels.Spend(" "+limits.Address("127.0.0.1:1"), time.Minute)
	w.must(w.get(plain, "Range", "bytes=8-18"), 503, "works on as much as it can for your address")
	w.must(w.get("/serve/"+p.info.Path.Hash()+"/b/"), 503)
	w.must(w.get("/"+p.info.Path.Hash()+".ls"), 503)
	w.must(w.get(plain), 200) // from its begin: that costs what it gives
	w.must(w.get(plain, "Range", "bytes=8-18", "Authorization", "Bearer "+w.token), 206)
}
