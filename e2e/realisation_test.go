package e2e

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"narwharf/e2e/repository"
)

// Content-addressed derivations: realisations go up with the outputs, and a host that has the
// derivation alone finds its output by them without building.
func TestRealisations(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s, rec, token := aServer(t, nil)
		up := NewNix(t, suite).In(c.Root).Netrc(token)
		installable := func(name, outputs string) []string {
			if up.AtLeast(2, 13) {
				return []string{c.Path(name+"_drv") + "^" + outputs}
			}
			// 2.8 has no syntax for outputs of a derivation: it evaluates.
			return []string{"-f", filepath.Join(repository.Root, "e2e", "closures.nix"), name}
		}
		want := map[string]string{"caC": "out", "caPlain": "out", "caMulti": "out,dev"}
		for name := range want {
			up.Push(rec.URL(), "?compression=zstd", installable(name, "*")...)
			up.Must("nix", "copy", "--derivation", "--to", rec.URL(), c.Path(name+"_drv"))
		}
		puts := append(rec.Select(http.MethodPut, "/realisations/"), rec.Select(http.MethodPut, "/build-trace-v2/")...)
		if len(puts) < 4 {
			t.Fatalf("want a realisation per output: %v", puts)
		}
		s.Fsck()

		down := NewNix(t, suite).Trust(rec.URL(), s.Key)
		down.Set("max-jobs = 0")
		for name, outputs := range want {
			down.Must("nix", "copy", "--derivation", "--from", rec.URL(), c.Path(name+"_drv"))
			down.Must("nix", append([]string{"build", "--no-link"}, installable(name, outputs)...)...)
			if !down.Has(c.Path(name)) {
				t.Errorf("%s was not substituted", name)
			}
		}
		down.Verify()

		// Both spellings of a name are one: 2.8 and 2.26 write '!', 2.34 writes %21.
		u := NewUploader(t, s.URL(), "")
		for _, put := range rec.Select(http.MethodPut, "/realisations/") {
			spelt := u.Get(strings.ReplaceAll(put.Path, "!", "%21"))
			plain := u.Get(put.Path)
			if spelt.Status != 200 || spelt.Body != plain.Body || plain.Status != 200 {
				t.Errorf("%v and %v differ", spelt, plain)
			}
			if !strings.Contains(plain.Body, `"outPath"`) || plain.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%v %v", plain, plain.Header)
			}
		}
	})
}

// A machine serves the outputs of content-addressed derivations in its own store with their
// realisations: a host that has the derivation alone finds them without building. Debug information
// is found by its build id.
func TestLocalStoreRealisations(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		m := NewNix(t, suite)
		installable := func(n *Nix, name, outputs string) []string {
			if n.AtLeast(2, 13) {
				return []string{c.Path(name+"_drv") + "^" + outputs}
			}
			return []string{"-f", filepath.Join(repository.Root, "e2e", "closures.nix"), name}
		}
		want := map[string]string{"caC": "out", "caPlain": "out", "caMulti": "out,dev", "caUser": "out"}
		from := "local?root=" + c.Root
		for name := range want {
			m.Must("nix", "copy", "--no-check-sigs", "--derivation", "--from", from, c.Path(name+"_drv"))
			m.Must("nix", append([]string{"copy", "--no-check-sigs", "--from", from}, installable(m, name, "*")...)...)
		}
		m.Must("nix", "copy", "--no-check-sigs", "--from", from, c.Path("dbg_debug"))
		keepOpen(t, m)
		s, rec := serveStore(t, m)

		down := NewNix(t, suite).Trust(rec.URL(), s.Key)
		down.Set("max-jobs = 0")
		for name, outputs := range want {
			down.Must("nix", "copy", "--derivation", "--from", rec.URL(), c.Path(name+"_drv"))
			down.Must("nix", append([]string{"build", "--no-link"}, installable(down, name, outputs)...)...)
			if !down.Has(c.Path(name)) {
				t.Errorf("%s was not substituted", name)
			}
		}
		down.Verify()
		found := 0
		for _, get := range append(rec.Select(http.MethodGet, "/realisations/"), rec.Select(http.MethodGet, "/build-trace-v2/")...) {
			if get.Status == 200 {
				found++
			}
		}
		if found < 4 {
			t.Errorf("%d realisations were found", found)
		}

		file, err := filepath.Glob(m.Real(c.Path("dbg_debug")) + "/lib/debug/.build-id/*/*.debug")
		if err != nil || len(file) == 0 {
			t.Fatal(file, err)
		}
		id := filepath.Base(filepath.Dir(file[0])) + filepath.Base(file[0])
		u := NewUploader(t, s.URL(), "")
		r := u.Get("/debuginfo/" + id)
		if hash := hashOf(c.Path("dbg_debug")); r.Status != 200 || !strings.Contains(r.Body, `"../nar/`+hash+`-`) || !strings.Contains(r.Body, `"lib/debug/.build-id/`) {
			t.Errorf("%v", r)
		}
	})
}

// The form of 2.35 and later.
func TestBuildTrace(t *testing.T) {
	t.Parallel()
	s := NewServer(t, nil)
	u := NewUploader(t, s.URL(), s.Token("ci", "push"))
	p := NewPath("traced", RandomNAR(2, 100))
	u.Upload(p)
	drv := NewPath("traced.drv", nil).Base
	name := "/build-trace-v2/" + drv + "/out.doi"
	body := `{"outPath":"` + p.Base + `","signatures":[]}`
	for range 2 { // idempotent
		if r := u.Do(http.MethodPut, name, "application/json", []byte(body)); !r.OK() {
			t.Fatal(r)
		}
	}
	if r := u.Get(name); r.Status != 200 || r.Body != body || r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%v %v", r, r.Header)
	}
	if r := u.Head(name); r.Status != 200 || r.Body != "" {
		t.Error(r)
	}
	if r := u.Get("/build-trace-v2/" + drv + "/dev.doi"); r.Status != 404 {
		t.Error(r)
	}
	// Decoded once: %21 in an old name is the '!'.
	id := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	old := `{"dependentRealisations":{},"id":"` + id + `!out","outPath":"` + p.Base + `","signatures":[]}`
	if r := u.Do(http.MethodPut, "/realisations/"+id+"%21out.doi", "application/json", []byte(old)); !r.OK() {
		t.Fatal(r)
	}
	if r := u.Get("/realisations/" + id + "!out.doi"); r.Status != 200 || r.Body != old {
		t.Error(r)
	}
	if r := u.Get("/realisations/" + strings.ReplaceAll(id, ":", "%3A") + "%21out.doi"); r.Status != 200 || r.Body != old {
		t.Error(r)
	}
	for name := range s.Files() {
		if strings.Contains(filepath.Base(name), "%") {
			t.Errorf("a name was stored as it was spelt: %s", name)
		}
	}
}
