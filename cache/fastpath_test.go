package cache

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"narwharf/cache/fastpath"
	"narwharf/cache/index"
	"narwharf/narinfo"
	"narwharf/signing/access/scope"
)

// fastWorld is a world whose narinfos are answered on the connection.
func fastWorld(t *testing.T, choose ...func(*setup)) (w *world, fast func() int64) {
	t.Helper()
	var count atomic.Int64
	choose = append(choose, func(s *setup) {
		s.listen = func(h *httptest.Server) {
			server, ok := h.Config.Handler.(*Server)
			if !ok {
				t.Fatal("the test's server is no Server")
			}
			h.Listener = server.FastPath(h.Listener, time.Minute, time.Minute)
			h.Config.ConnState = fastpath.ConnState
			if l, ok := h.Listener.(*fastpath.Listener); ok {
				served := l.Served
				l.Served = func(a *fastpath.Answer, sent int64) {
					served(a, sent)
					count.Add(1) // after the answer went out: whoever asks waits
				}
			}
		}
	})
	w = newWorld(t, choose...)
	w.client.Transport = &http.Transport{DisableCompression: true, MaxConnsPerHost: 1}
	return w, count.Load
}

// becomes waits a moment for a count that is kept behind the answer.
func becomes(fast func() int64, want int64) bool {
	for range 200 {
		if fast() == want {
			return true
		}
		time.Sleep(5 * time.Millisecond)
	}
	return false
}

// fresh forgets the connection: the next request is the first of another.
func (w *world) fresh() { w.client.CloseIdleConnections() }

// TestFastEqualsSlow: what is answered on the connection is, header by
// header, what net/http and getNarinfo answer.
func TestFastEqualsSlow(t *testing.T) {
	w, fast := fastWorld(t)
	short := newUpload(t, "short", "zstd")
	refs := []*testPath{short}
	for i := range 40 {
		refs = append(refs, newUpload(t, fmt.Sprintf("a-reference-with-quite-a-long-name-%d", i), "zstd"))
	}
	long := newUpload(t, "long", "zstd", refs...) // long enough to be worth packing
	w.putAll(append(refs, long)...)
	for _, p := range []*testPath{short, long} {
		for _, header := range [][]string{nil, {"Accept-Encoding", "gzip"}, {"Accept-Encoding", "zstd, br, gzip, deflate, bzip2, xz"}} {
			w.fresh()
			// The slow way knows a field that the fast one does not.
			slow := w.get(p.infoURL(), slices.Concat(header, []string{"Slow", "1"})...)
			w.fresh()
			before := fast()
			quick := w.must(w.get(p.infoURL(), header...), 200)
			if !becomes(fast, before+1) {
				t.Fatalf("%s with %q was not answered on the connection", p.info.Path, header)
			}
			slow.header.Del("Date")
			quick.header.Del("Date")
			if !reflect.DeepEqual(slow, quick) {
				t.Errorf("%s with %q:\nslow  %v\nquick %v", p.info.Path, header, slow, quick)
			}
		}
	}
}

// TestFastSeesChanges: what changes a narinfo changes the fast answer too.
func TestFastSeesChanges(t *testing.T) {
	ring := new(keyring)
	w, fast := fastWorld(t, func(s *setup) { s.keys = ring.load })
	p := newUpload(t, "p", "zstd")
	w.putAll(p)
	ask := func(want int) {
		t.Helper()
		for range 2 { // the first puts it in memory, the second finds it there
			w.fresh()
			a := w.must(w.get(p.infoURL()), 200)
			info, err := narinfo.Parse([]byte(a.body))
			if err != nil || len(info.Sigs) != want {
				t.Errorf("%d signatures, want %d (%v)", len(info.Sigs), want, err)
			}
		}
	}
	ask(0)
	ring.set(newKey(t, "k-1"))
	if err := w.setup.Cache.Signer.Reload(); err != nil {
		t.Fatal(err)
	}
	ask(1)
	w.must(w.put(p.infoURL(), p.edited(func(i *narinfo.Info) { i.Sigs = signatures(t, 2) })), 201)
	ask(3)
	if err := index.Delete(w.index, p.info.Path.Hash()); err != nil {
		t.Fatal(err)
	}
	w.u.Changed(p.info.Path.Hash())
	w.fresh()
	w.must(w.get(p.infoURL()), 404)
	if !becomes(fast, 3) { // each second one
		t.Errorf("%d fast answers, want 3", fast())
	}
}

// TestFastCounts: fast answers are in the metrics as the others are.
func TestFastCounts(t *testing.T) {
	w, fast := fastWorld(t)
	p := newUpload(t, "p", "zstd")
	w.putAll(p)
	var size int
	for range 5 {
		w.fresh()
		size = len(w.must(w.get(p.infoURL()), 200).body)
	}
	if !becomes(fast, 4) {
		t.Errorf("%d fast answers, want 4", fast())
	}
	w.must(w.get("/metrics"), 200,
		`narwharf_http_requests_total{method="GET",route="narinfo",status="200"} 5`,
		fmt.Sprintf(`narwharf_http_sent_bytes_total{route="narinfo",source="uploaded"} %d`, 5*size))
}

// TestFastIsForEverybody: a private cache answers nobody on the connection.
func TestFastIsForEverybody(t *testing.T) {
	w, fast := fastWorld(t, func(s *setup) { s.anonymous = scope.Set{} })
	p := newUpload(t, "p", "zstd")
	w.putAll(p)
	for range 3 {
		w.fresh()
		w.must(w.get(p.infoURL()), 401)
		w.must(w.get(p.infoURL(), "Authorization", "Bearer "+w.token), 200)
	}
	if fast() != 0 {
		t.Errorf("%d answers without a look at the rights", fast())
	}
}

// TestFastNars: an uploaded NAR and one of the local store that is packed are sent
// on the connection, header by header as getNar does; what may have another answer
// is not.
func TestFastNars(t *testing.T) {
	m := newMachine(t)
	w, fast := fastWorld(t, m.serve)
	p := newUpload(t, "p", "zstd")
	w.putAll(p)
	own := m.build("local", map[string]string{"data": noise(1 << 20)})
	packed, plain := own.urls()
	w.fresh()
	w.must(w.get(own.infoURL()), 200) // the narinfo is in memory
	w.fresh()
	w.must(w.get(packed), 200) // and the NAR packed
	w.fresh()
	info := len(w.must(w.get(p.infoURL()), 200).body)
	count := fast()
	for _, url := range []string{p.narURL(), packed} {
		for _, header := range [][]string{nil, {"Accept-Encoding", "zstd, br, gzip, deflate, bzip2, xz"}} {
			w.fresh()
			slow := w.must(w.get(url, slices.Concat(header, []string{"Slow", "1"})...), 200)
			w.fresh()
			quick := w.must(w.get(url, header...), 200)
			if count++; !becomes(fast, count) {
				t.Fatalf("%s with %q was not answered on the connection", url, header)
			}
			slow.header.Del("Date")
			quick.header.Del("Date")
			if !reflect.DeepEqual(slow, quick) {
				t.Errorf("%s with %q:\nslow  %d bytes, %v\nquick %d bytes, %v", url, header, len(slow.body), slow.header, len(quick.body), quick.header)
			}
		}
	}
	for _, c := range []struct {
		url    string
		status int
		header []string
	}{
		{p.narURL(), 206, []string{"Range", "bytes=5-"}},
		{packed, 206, []string{"Range", "bytes=5-"}},
		{packed, 304, []string{"If-None-Match", "*"}},
		{plain, 200, nil},
		{"/nar/" + someFile, 404, nil},
		{"/nar/" + someHash + "-" + someFile + ".nar.zst", 404, nil},
		{"/nar/../nar" + p.narURL()[4:], 404, nil},
	} {
		w.fresh()
		w.must(w.get(c.url, c.header...), c.status)
	}
	if fast() != count {
		t.Errorf("%d answers on connections, want %d", fast(), count)
	}
	size := len(p.body)
	w.must(w.get("/metrics"), 200,
		`narwharf_http_requests_total{method="GET",route="nar",status="200"} 4`,
		`narwharf_http_requests_total{method="GET",route="packed-nar",status="200"} 5`,
		fmt.Sprintf(`narwharf_http_sent_bytes_total{route="nar",source="uploaded"} %d`, 4*size+size-5),
		fmt.Sprintf(`narwharf_http_sent_bytes_total{route="narinfo",source="uploaded"} %d`, info))

	// The path is gone: so is its NAR, though it is packed.
	m.remove(own)
	w.fresh()
	w.must(w.get(packed), 404)
}

// TestFastBreaksOff: a NAR that ends too soon breaks the connection off, and is
// counted.
func TestFastBreaksOff(t *testing.T) {
	w, fast := fastWorld(t)
	p := newUpload(t, "p", "none")
	w.putAll(p)
	file := filepath.Join(w.dir, "cache", p.narURL())
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	l := w.s.fastListeners[0]
	l.Lookup = func(path []byte, gzip bool) *fastpath.Answer {
		a := w.s.fastAnswer(path, gzip)
		if a != nil && a.File != nil {
			if err := os.Truncate(file, 100); err != nil {
				t.Error(err)
			}
		}
		return a
	}
	w.fresh()
	if a := w.get(p.narURL()); a.cut == nil || len(a.body) != 100 {
		t.Errorf("an answer %d of %d bytes, %v", a.status, len(a.body), a.cut)
	}
	if !becomes(fast, 1) {
		t.Error("not answered on the connection")
	}
	w.must(w.get("/metrics"), 200, "narwharf_http_aborted_total 1")
}
