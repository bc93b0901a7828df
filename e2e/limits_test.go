package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// What the headers tell is decided before the body: no 100 is sent, nothing is read, and the
// answer comes at once.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	st := newStage(t, func(c *Config) { c.MaxNarSize = `"1MiB"` })
	name := "/nar/" + nixDigest([]byte("anything")) + ".nar"
	for _, c := range []struct {
		name, path, authorization string
		length                    int64
		want                      int
	}{
		{"no token", name, "", 1000, 401},
		{"wrong token", name, "Bearer nonsense", 1000, 401},
		{"pull token", name, "Bearer " + st.server.Token("reader", "pull"), 1000, 403},
		{"too large", name, "Bearer " + st.Token, 500 << 20, 413},
		{"larger than anything", name, "Bearer " + st.Token, 1 << 62, 413},
		{"narinfo too large", "/" + NewPath("x", nil).Hash() + ".narinfo", "Bearer " + st.Token, 64 << 20, 413},
		{"realisation too large", "/realisations/sha256:" + strings.Repeat("0", 64) + "!out.doi", "Bearer " + st.Token, 1 << 30, 413},
		{"no name", "/nar/nonsense", "Bearer " + st.Token, 1000, 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := st.on(t)
			before := st.server.Files()
			r := DialRaw(t, st.server.Addr())
			_ = r.Conn.SetDeadline(time.Now().Add(5 * time.Second))
			r.Send(fmt.Sprintf("PUT %s HTTP/1.1\nHost: localhost\nContent-Length: %d\nExpect: 100-continue\n", c.path, c.length))
			if c.authorization != "" {
				r.Send("Authorization: " + c.authorization + "\n")
			}
			r.Send("\n")
			start := time.Now()
			reply, interim := r.Answer(http.MethodPut)
			if interim {
				t.Errorf("%v: after a 100, which asks for the body", reply)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("%v: only after %v", reply, took)
			}
			if reply.Status == 400 && c.want == 404 {
				reply.Status = 404
			}
			st.refused(reply, before, "", c.want)
		})
	}
	t.Run("accepted", func(t *testing.T) {
		st := st.on(t)
		nar := RandomNAR(20, 1000)
		r := DialRaw(t, st.server.Addr())
		r.Send(fmt.Sprintf("PUT /nar/%s.nar HTTP/1.1\nHost: x\nAuthorization: Bearer %s\nContent-Length: %d\nExpect: 100-continue\n\n", nixDigest(nar), st.Token, len(nar)))
		res := make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))
		if _, err := r.r.Read(res); err != nil || !strings.HasPrefix(string(res), "HTTP/1.1 100") {
			t.Fatalf("%q %v", res, err)
		}
		r.SendBytes(nar)
		if reply, _ := r.Answer(http.MethodPut); !reply.OK() {
			t.Error(reply)
		}
	})
}

// max_nar_size bounds what a NAR unpacks to, whatever the file's size: a small file that unpacks to
// much is refused, and soon.
func TestMaxNarSize(t *testing.T) {
	t.Parallel()
	st := newStage(t, func(c *Config) { c.MaxNarSize = `"1MiB"` })
	t.Run("fits", func(t *testing.T) {
		st := st.on(t)
		p := NewPath("fits", RepetitiveNAR(1<<20-200))
		st.Upload(p)
		st.Fetch(p)
	})
	t.Run("one byte too many", func(t *testing.T) {
		st := st.on(t)
		for _, compression := range []string{"none", "zstd", "gzip"} {
			st.Compression = compression
			doc, file := st.Describe(NewPath("large", RepetitiveNAR(1<<20)))
			before := st.server.Files()
			st.refused(st.PutNAR(doc, file), before, "max_nar_size|large|limit", 413)
		}
	})
	t.Run("bomb", func(t *testing.T) {
		st := st.on(t)
		file := bomb(t, 8<<30)
		t.Logf("a bomb of %d KiB", len(file)>>10)
		before := st.server.Files()
		start := time.Now()
		reply := st.PutNAR(Doc{URL: "nar/" + nixDigest(file) + ".nar.zst"}, file)
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("refused after %v: it was unpacked", took)
		}
		st.refused(reply, before, "max_nar_size|large|limit", 413)
	})
	// A window that wants gigabytes of memory to decode.
	t.Run("window", func(t *testing.T) {
		st := st.on(t)
		file := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xb8, 0x01, 0, 0} // window of 2^33, one empty last block
		before := st.server.Files()
		reply := st.PutNAR(Doc{URL: "nar/" + nixDigest(file) + ".nar.zst"}, file)
		st.refused(reply, before, "", 413, 415, 422)
	})
}

// bomb is a zstd file that unpacks to a well-formed NAR of size zeros, or would.
func bomb(t *testing.T, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	head := narStrings("nix-archive-1", "(", "type", "regular", "contents")
	for i := range 8 {
		head = append(head, byte(size>>(8*i)))
	}
	if _, err := w.Write(head); err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 4<<20)
	for range 64 { // a quarter of a gigabyte is enough to tell unpacking from refusing
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A Content-Length that is missing, not a number, or at odds with chunks.
func TestBodyFraming(t *testing.T) {
	t.Parallel()
	st := newStage(t, nil)
	nar := RandomNAR(21, 3000)
	name := "/nar/" + nixDigest(nar) + ".nar"
	head := "PUT " + name + " HTTP/1.1\nHost: x\nAuthorization: Bearer " + st.Token + "\n"
	for _, c := range []struct{ name, header, body string }{
		{"no length", "\n", ""},
		{"negative", "Content-Length: -1\n\n", ""},
		{"words", "Content-Length: some\n\n", ""},
		{"two lengths", "Content-Length: 5\nContent-Length: 6\n\n", "12345"},
		{"length 0", "Content-Length: 0\n\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := st.on(t)
			before := st.server.Files()
			r := DialRaw(t, st.server.Addr())
			r.Send(head + c.header + c.body)
			reply, _ := r.Answer(http.MethodPut)
			if !finalStatuses[reply.Status] {
				t.Errorf("%v", reply)
			}
			if diff := before.diff(st.server.Files()); len(diff) > 0 {
				t.Errorf("left behind %v", diff)
			}
		})
	}
	// Nix never sends chunks; who does is served or refused, not misread.
	t.Run("chunks", func(t *testing.T) {
		st := st.on(t)
		before := st.server.Files()
		r := DialRaw(t, st.server.Addr())
		r.Send(head + "Transfer-Encoding: chunked\n\n" + fmt.Sprintf("%x\n", len(nar)))
		r.SendBytes(nar)
		r.Send("\n0\n\n")
		reply, _ := r.Answer(http.MethodPut)
		switch {
		case reply.OK():
			if got := st.Get(name); got.Body != string(nar) {
				t.Error("another body came back")
			}
		default:
			st.refused(reply, before, "", 400, 411)
		}
	})
}

// With require_upload_sig a narinfo is taken only with a good signature by one of its keys.
func TestRequireUploadSig(t *testing.T) {
	t.Parallel()
	ci, second := NewKey("ci-1"), NewKey("ci-2")
	st := &stage{}
	s := NewServer(t, func(c *Config) { c.RequireUploadSig = []string{ci.Public(), second.Public()} })
	st.server, st.Uploader = s, NewUploader(t, s.URL(), s.Token("liar", "push"))
	for _, c := range []struct {
		name string
		good bool
		sigs func(d Doc) []string
	}{
		{"none", false, func(Doc) []string { return nil }},
		{"another key", false, func(d Doc) []string { return []string{NewKey("other-1").Sign(d.Fingerprint())} }},
		{"another key of the same name", false, func(d Doc) []string { return []string{NewKey("ci-1").Sign(d.Fingerprint())} }},
		{"the server's own key", false, func(d Doc) []string { return []string{s.Key.Sign(d.Fingerprint())} }},
		{"of another text", false, func(d Doc) []string { return []string{ci.Sign(d.Fingerprint() + "x")} }},
		{"good", true, func(d Doc) []string { return []string{ci.Sign(d.Fingerprint())} }},
		{"the second key, beside a bad one", true, func(d Doc) []string { return []string{ci.Sign("x"), second.Sign(d.Fingerprint())} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := st.on(t)
			p, doc := st.goodNAR()
			doc.Sigs = c.sigs(doc)
			before := st.server.Files()
			reply := st.PutDoc(p.Hash(), doc.String())
			if c.good {
				if !reply.OK() {
					t.Fatal(reply)
				}
				st.Fetch(p)
				return
			}
			st.refused(reply, before, "sign", http.StatusForbidden)
			if r := st.Get("/" + p.Hash() + ".narinfo"); r.Status != http.StatusNotFound {
				t.Errorf("it is served: %v", r)
			}
		})
	}
}

// The same with a client that does or does not sign.
func TestRequireUploadSigOfNix(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		ci := NewKey("ci-1")
		s := NewServer(t, func(c *Config) { c.RequireUploadSig = []string{ci.Public()} })
		up := NewNix(t, suite).In(c.Root).Netrc(s.Token("ci", "push"))
		up.Fails([]string{"403", "sign"}, "nix", "copy", "--to", s.URL(), c.Path("zoo"))
		up.Push(s.URL(), "?secret-key="+up.write("ci.sec", ci.Secret()), c.Path("zoo"))
		NewNix(t, suite).Trust(s.URL(), ci).Must("nix-store", "--realise", c.Path("zoo"))
	})
}

// allow_incomplete takes a path whose references are not there.
func TestAllowIncomplete(t *testing.T) {
	t.Parallel()
	s := NewServer(t, func(c *Config) { c.AllowIncomplete = true })
	u := NewUploader(t, s.URL(), s.Token("ci", "push"))
	absent := NewPath("absent", RandomNAR(22, 100))
	p := NewPath("incomplete", RandomNAR(23, 100), absent)
	u.Upload(p)
	if doc := u.Fetch(p); doc.References != absent.Base {
		t.Errorf("references %q", doc.References)
	}
}
