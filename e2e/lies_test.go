package e2e

import (
	"mime"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// Statuses after which every Nix ends at once and shows the text. Others make it repeat the request,
// which versions before 2.33 cannot do.
var finalStatuses = map[int]bool{400: true, 401: true, 403: true, 404: true, 409: true, 411: true, 413: true, 415: true, 422: true}

// A stage is a server on which lies are told. What was good before a lie is there: a path with its
// NAR, and a NAR without narinfo.
type stage struct {
	*Uploader
	server *Server
	known  *Path // uploaded
}

func newStage(t *testing.T, edit func(*Config)) *stage {
	t.Helper()
	s := NewServer(t, edit)
	st := &stage{Uploader: NewUploader(t, s.URL(), s.Token("liar", "push")), server: s}
	st.known = NewPath("known", RandomNAR(7, 3000))
	st.Upload(st.known)
	return st
}

// on gives the stage to a subtest.
func (st *stage) on(t *testing.T) *stage {
	u := *st.Uploader
	u.T = t
	server := *st.server
	server.T = t
	return &stage{Uploader: &u, server: &server, known: st.known}
}

// refused checks a refusal: a final status among want, a short plain text whose first line says
// what is wrong, fsck clean, and the files those of before.
func (st *stage) refused(reply Reply, before snapshot, words string, want ...int) {
	st.T.Helper()
	ok := false
	for _, w := range want {
		ok = ok || reply.Status == w
	}
	if !ok || !finalStatuses[reply.Status] {
		st.T.Errorf("%v: want status %v", reply, want)
		return
	}
	checkRefusalText(st.T, reply, words)
	if diff := before.diff(st.server.Files()); len(diff) > 0 {
		st.T.Errorf("%v: left behind %v", reply, diff)
	}
	st.server.Fsck()
}

// checkRefusalText checks what a person will read.
func checkRefusalText(t testing.TB, reply Reply, words string) {
	t.Helper()
	kind, _, _ := mime.ParseMediaType(reply.Header.Get("Content-Type"))
	first, _, _ := strings.Cut(reply.Body, "\n")
	switch {
	case kind != "text/plain":
		t.Errorf("%v: Content-Type %q, want text/plain", reply, reply.Header.Get("Content-Type"))
	case len(reply.Body) >= 1000:
		t.Errorf("%v: %d bytes, and Nix shows none from 1024 on", reply, len(reply.Body))
	case !utf8.ValidString(reply.Body):
		t.Errorf("%v: not UTF-8", reply)
	case len(strings.Fields(first)) < 3:
		t.Errorf("%v: the first line does not say in words what is wrong", reply)
	case strings.ContainsAny(reply.Body, "\x1b\a\r\x00"):
		t.Errorf("%v: control characters", reply)
	case !regexp.MustCompile("(?i)" + words).MatchString(reply.Body):
		t.Errorf("%v: does not speak of %q", reply, words)
	}
}

// goodNAR uploads the NAR of a new path and returns it with its true narinfo.
func (st *stage) goodNAR(refs ...*Path) (*Path, Doc) {
	st.T.Helper()
	p := NewPath("liar", RandomNAR(pathCount.Load(), 2000), refs...)
	doc, file := st.Describe(p)
	if r := st.PutNAR(doc, file); !r.OK() {
		st.T.Fatal(r)
	}
	return p, doc
}

// TestLyingNarinfo: each lie is told about a NAR that is there and good.
func TestLyingNarinfo(t *testing.T) {
	t.Parallel()
	st := newStage(t, nil)
	other := NewPath("other", RandomNAR(8, 100))
	wrong := nixHash([]byte("something else"))
	sig := func(d Doc) string { return NewKey("liar-1").Sign(d.Fingerprint()) }
	malformed := []int{400, 422}
	for _, lie := range []struct {
		name  string
		edit  func(d *Doc)
		words string
		want  []int
	}{
		{"wrong FileHash", func(d *Doc) { d.FileHash = wrong }, "FileHash", []int{422}},
		{"wrong FileSize", func(d *Doc) { d.FileSize = "12345" }, "FileSize", []int{422}},
		{"wrong NarHash", func(d *Doc) { d.NarHash = wrong }, "NarHash", []int{422}},
		{"wrong NarSize", func(d *Doc) { d.NarSize = "12345" }, "NarSize", []int{422}},
		{"NarSize 0", func(d *Doc) { d.NarSize = "0" }, "NarSize", malformed},
		{"NarSize negative", func(d *Doc) { d.NarSize = "-1" }, "NarSize", malformed},
		{"NarSize beyond 64 bits", func(d *Doc) { d.NarSize = "99999999999999999999" }, "NarSize", malformed},
		{"NarSize in words", func(d *Doc) { d.NarSize = "many" }, "NarSize", malformed},
		{"no NarSize", func(d *Doc) { d.NarSize = "" }, "NarSize", malformed},
		{"no NarHash", func(d *Doc) { d.NarHash = "" }, "NarHash", malformed},
		{"NarHash of another algorithm", func(d *Doc) { d.NarHash = "sha512:" + strings.Repeat("0", 103) }, "NarHash|sha512", malformed},
		{"NarHash cut", func(d *Doc) { d.NarHash = d.NarHash[:40] }, "NarHash|hash", malformed},
		{"wrong Compression", func(d *Doc) { d.Compression = "xz" }, "compress", []int{422}},
		{"Compression none", func(d *Doc) { d.Compression = "none" }, "compress", []int{422}},
		{"no Compression", func(d *Doc) { d.Compression = "" }, "compress", []int{400, 415, 422}},
		{"unknown Compression", func(d *Doc) { d.Compression = "snappy" }, "compress", []int{400, 415, 422}},
		{"missing reference", func(d *Doc) { d.References = other.Base }, "--refresh", []int{422}},
		{"reference that is no store path", func(d *Doc) { d.References = "not-a-path" }, "reference|path", malformed},
		{"reference with a folder", func(d *Doc) { d.References = "/nix/store/" + st.known.Base }, "reference|path", malformed},
		{"reference climbing out", func(d *Doc) { d.References = st.known.Hash() + "-../../x" }, "reference|path|name", malformed},
		{"reference twice", func(d *Doc) { d.References = st.known.Base + " " + st.known.Base + " " + other.Base }, "reference|--refresh", malformed},
		{"StorePath of another hash", func(d *Doc) { d.StorePath = "/nix/store/" + other.Base }, "is for|path", malformed},
		{"StorePath of another folder", func(d *Doc) { d.StorePath = strings.Replace(d.StorePath, "/nix/store", "/gnu/store", 1) }, "/nix/store|store", malformed},
		{"StorePath without a folder", func(d *Doc) { d.StorePath = d.StorePath[len("/nix/store/"):] }, "StorePath|path", malformed},
		{"StorePath climbing out", func(d *Doc) { d.StorePath += "/../../etc" }, "StorePath|path|name", malformed},
		{"StorePath without a name", func(d *Doc) { d.StorePath = d.StorePath[:len("/nix/store/")+32] }, "StorePath|path|name", malformed},
		{"StorePath with a name too long", func(d *Doc) { d.StorePath += strings.Repeat("x", 250) }, "StorePath|path|name", malformed},
		{"StorePath with a space", func(d *Doc) { d.StorePath += " x" }, "StorePath|path|name", malformed},
		{"no StorePath", func(d *Doc) { d.StorePath = "" }, "StorePath", malformed},
		{"URL of a NAR that is not there", func(d *Doc) {
			d.URL = "nar/" + strings.Repeat("1", 52) + ".nar.zst"
			d.FileHash = "sha256:" + strings.Repeat("1", 52)
		}, "NAR|nar/|upload", malformed},
		{"URL of another host", func(d *Doc) { d.URL = "http://example.org/" + d.URL }, "URL", malformed},
		{"URL climbing out", func(d *Doc) { d.URL = "nar/../../" + d.URL }, "URL", malformed},
		{"URL with a slash before", func(d *Doc) { d.URL = "/" + d.URL }, "URL", malformed},
		{"URL of a narinfo", func(d *Doc) { d.URL = st.known.Hash() + ".narinfo" }, "URL", malformed},
		{"no URL", func(d *Doc) { d.URL = "" }, "URL", malformed},
		{"Deriver that is no path", func(d *Doc) { d.Deriver = "../../etc/passwd" }, "Deriver|path", malformed},
		{"CRLF", func(d *Doc) { d.Extra = "X-Note: with\r\n" }, "CR|carriage|line|character", malformed},
		{"blank line", func(d *Doc) { d.Extra = "\n" }, "line", malformed},
		{"line without colon", func(d *Doc) { d.Extra = "just words\n" }, "line|colon", malformed},
		{"no newline at the end", func(d *Doc) { d.Extra = "Note: x" }, "line|newline", malformed},
		{"NUL", func(d *Doc) { d.Extra = "Note: a\x00b\n" }, "character|NUL|control|line", malformed},
		{"StorePath twice", func(d *Doc) { d.Extra = "StorePath: " + d.StorePath + "\n" }, "StorePath|twice|more than once|second", malformed},
		{"NarHash twice", func(d *Doc) { d.Extra = "NarHash: " + wrong + "\n" }, "NarHash|twice", malformed},
		{"Sig without colon", func(d *Doc) { d.Sigs = []string{"signature"} }, "Sig", malformed},
		{"Sig of bad base64", func(d *Doc) { d.Sigs = []string{sig(*d), "liar-2:***"} }, "Sig", malformed},
		{"Sig of wrong length", func(d *Doc) { d.Sigs = []string{"liar-2:AAAA"} }, "Sig", malformed},
		{"Sig without a name", func(d *Doc) { d.Sigs = []string{sig(*d)[len("liar-1"):]} }, "Sig", malformed},
		{"seventeen Sigs", func(d *Doc) {
			for range 17 {
				d.Sigs = append(d.Sigs, sig(*d))
			}
		}, "16|signatures", malformed},
		{"over-long line", func(d *Doc) { d.Extra = "Note: " + strings.Repeat("x", 3<<20) + "\n" }, "long|large|big|bytes|MiB", []int{400, 413, 422}},
		{"over-long many lines", func(d *Doc) { d.Extra = strings.Repeat("Note: x\n", 1<<20) }, "long|large|big|bytes|MiB", []int{400, 413, 422}},
	} {
		t.Run(lie.name, func(t *testing.T) {
			st := st.on(t)
			p, doc := st.goodNAR()
			lie.edit(&doc)
			before := st.server.Files()
			reply := st.PutDoc(p.Hash(), doc.String())
			st.refused(reply, before, lie.words, lie.want...)
			if r := st.Get("/" + p.Hash() + ".narinfo"); r.Status != http.StatusNotFound {
				t.Errorf("the lie is served: %v", r)
			}
			// The truth is still accepted.
			truth, file := st.Describe(p)
			if r := st.PutNAR(truth, file); !r.OK() {
				t.Errorf("after the lie: %v", r)
			}
			if r := st.PutDoc(p.Hash(), truth.String()); !r.OK() {
				t.Errorf("after the lie: %v", r)
			}
		})
	}
	st.Fetch(st.known)
}

// What is no narinfo at all.
func TestNoNarinfo(t *testing.T) {
	t.Parallel()
	st := newStage(t, nil)
	for name, text := range map[string]string{
		"empty": "", "newline": "\n", "HTML": "<html><body>Login</body></html>\n", "JSON": `{"path":"/nix/store"}`,
		"binary": string(noise(1, 500)), "not UTF-8": "StorePath: /nix/store/\xff\xfe\n",
	} {
		t.Run(name, func(t *testing.T) {
			st := st.on(t)
			before := st.server.Files()
			st.refused(st.PutDoc(NewPath("x", nil).Hash(), text), before, "", 400, 411, 422)
		})
	}
}

// Another fingerprint for a path that is known is a conflict, whose text says when and by whom the
// first one came; the first stays.
func TestAnotherFingerprint(t *testing.T) {
	t.Parallel()
	st := newStage(t, nil)
	for _, c := range []struct {
		name string
		edit func(p *Path)
	}{
		{"content", func(p *Path) { p.NAR = RandomNAR(9, 2000) }},
		{"size", func(p *Path) { p.NAR = RandomNAR(9, 5000) }},
		{"references", func(p *Path) { p.Refs = []*Path{st.known} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := st.on(t)
			first := NewPath("first", RandomNAR(10, 2000))
			st.Upload(first)
			second := *first
			c.edit(&second)
			doc, file := st.Describe(&second)
			if r := st.PutNAR(doc, file); !r.OK() {
				t.Fatal(r)
			}
			before := st.server.Files()
			reply := st.PutDoc(second.Hash(), doc.String())
			st.refused(reply, before, `liar`, http.StatusConflict)
			if !regexp.MustCompile(`20\d\d-\d\d-\d\d`).MatchString(reply.Body) {
				t.Errorf("%v: does not say when", reply)
			}
			st.Fetch(first)
		})
	}
	// The name of a path is part of it.
	first := NewPath("named", RandomNAR(11, 200))
	st.Upload(first)
	renamed := *first
	renamed.Base = first.Hash() + "-renamed"
	doc, _ := st.Describe(&renamed)
	before := st.server.Files()
	st.refused(st.PutDoc(first.Hash(), doc.String()), before, "named|path", http.StatusConflict, http.StatusUnprocessableEntity)
}

// Things a strict reader could stumble over and that are legal.
func TestOddButTrueNarinfo(t *testing.T) {
	t.Parallel()
	st := newStage(t, nil)
	for name, edit := range map[string]func(d *Doc, p *Path){
		"unknown keys":          func(d *Doc, _ *Path) { d.Extra = "System: x86_64-linux\nX-New: a: b\n" },
		"unknown deriver":       func(d *Doc, _ *Path) { d.Deriver = "unknown-deriver" },
		"deriver":               func(d *Doc, _ *Path) { d.Deriver = NewPath("x.drv", nil).Base },
		"self-reference":        func(d *Doc, p *Path) { d.References = p.Base },
		"references not sorted": func(d *Doc, p *Path) { d.References = p.Base + " " + st.known.Base },
		"no FileHash (2.35)":    func(d *Doc, _ *Path) { d.FileHash, d.FileSize = "", "" },
		"CA":                    func(d *Doc, _ *Path) { d.CA = "fixed:r:sha256:" + strings.Repeat("0", 52) },
		"NarHash in base 16":    func(d *Doc, p *Path) { d.NarHash = "sha256:" + hexDigest(p.NAR) },
		"two signatures":        func(d *Doc, _ *Path) { d.Sigs = []string{NewKey("a-1").Sign(d.Fingerprint()), NewKey("b-1").Sign("x")} },
		"sixteen signatures": func(d *Doc, _ *Path) {
			for range 16 {
				d.Sigs = append(d.Sigs, NewKey("many-1").Sign(d.Fingerprint()))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := st.on(t)
			p, doc := st.goodNAR()
			edit(&doc, p)
			if r := st.PutDoc(p.Hash(), doc.String()); !r.OK() {
				t.Fatal(r)
			}
			st.Fetch(p)
			if r := st.PutDoc(p.Hash(), doc.String()); !r.OK() { // idempotent
				t.Error(r)
			}
		})
	}
}
