package cache

import (
	"bytes"
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"narwharf/cache/narfile"
	"narwharf/cache/narfiletest"
	"narwharf/narinfo"
)

// throw gives a PUT to the handler without a network in between.
func (w *world) throw(path string, body []byte, header ...string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPut, path, bytes.NewReader(body))
	req.Header.Set("Content-Length", "set")
	req.Header.Set("Authorization", "Bearer "+w.token)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	w.s.ServeHTTP(rec, req)
	if text := rec.Body.String(); !slices.Contains(final, rec.Code) || len(text) > 1000 || strings.Count(text, "\n") > 1 || rec.Code == 501 {
		w.t.Errorf("PUT %s is answered %d %q\n%s", path, rec.Code, text, w.log)
	}
	return rec
}

// FuzzPutNar uploads anything under its right name.
func FuzzPutNar(f *testing.F) {
	_, packed := narfiletest.Samples(f)
	for name, body := range packed {
		f.Add(body, narfiletest.Suffix(narfiletest.Codec(name)))
	}
	f.Add([]byte("LZIP\x01"), ".lzip")
	f.Fuzz(func(t *testing.T, body []byte, suffix string) {
		w := newWorld(t, func(s *setup) { s.uploads.MaxNarSize = 1 << 20 })
		file := narinfo.Hash(sha256.Sum256(body)).Base32() + ".nar" + suffix
		if !narfile.Grammar.MatchString(file) {
			return
		}
		rec := w.throw("/nar/"+file, body)
		a := w.get("/nar/" + file)
		if rec.Code != 201 {
			w.must(a, 404)
		} else if w.must(a, 200); a.body != string(body) {
			t.Error("the file is not what was sent")
		}
		w.check()
	})
}

// FuzzPutNarinfo uploads any text for a path whose NAR is there.
func FuzzPutNarinfo(f *testing.F) {
	lib := newUpload(f, "lib", "none")
	app := newUpload(f, "app", "zstd", lib)
	f.Add(app.text(), "")
	f.Add(lib.text(), "none")
	f.Add(narfiletest.Compress(f, "gzip", app.text()), "gzip")
	f.Add(app.edited(func(i *narinfo.Info) { i.Sigs = signatures(f, 2); i.Deriver = lib.info.Path }), "")
	f.Add(app.edited(func(i *narinfo.Info) { i.References = append(i.References, i.Path) }), "")
	f.Fuzz(func(t *testing.T, text []byte, encoding string) {
		w := newWorld(t)
		w.putAll(lib)
		if w.throw(app.narURL(), app.body).Code != 201 {
			t.Fatal("the NAR was refused")
		}
		rec := w.throw(app.infoURL(), text, "Content-Encoding", encoding)
		a := w.get(app.infoURL())
		if rec.Code != 201 {
			w.must(a, 404)
		} else if info, err := narinfo.Parse([]byte(w.must(a, 200).body)); err != nil || info.Path.Hash() != app.info.Path.Hash() || info.NarHash != app.info.NarHash || info.URL != app.info.URL {
			t.Errorf("it became %v (%v)", a, err)
		}
		w.mustServe(lib)
		w.check()
	})
}
