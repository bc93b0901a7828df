package copies

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"narwharf/narinfo"
)

// put writes a file of a folder.
func put(t *testing.T, dir, name, text string) {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// sidecarFolder is a static cache of two paths with all kinds of files beside them, and of
// others that are about neither.
func sidecarFolder(t *testing.T) (f *Folder, lib, app *narinfo.Info) {
	m, dir := newMemory(), t.TempDir()
	lib = m.infos[m.path("lib", "lib", "zstd").Hash()]
	app = m.infos[m.path("app", "app", "none", lib.Path).Hash()]
	app.Deriver = "00000000000000000000000000000000-app.drv"
	app.NarSize = 3
	put(t, dir, cacheInfo, "StoreDir: /nix/store\n")
	for _, i := range m.infos {
		put(t, dir, i.Path.Hash()+".narinfo", string(i.Append(nil)))
		put(t, dir, i.URL, string(m.nars[i.URL]))
	}
	put(t, dir, app.Path.Hash()+".ls", `{"version":1}`)
	put(t, dir, "log/"+string(app.Deriver), "built")
	put(t, dir, "log/11111111111111111111111111111111-other.drv", "built")
	put(t, dir, "realisations/sha256:00!out.doi", fmt.Sprintf(`{"outPath":%q}`, lib.Path))
	put(t, dir, "realisations/sha256:11!out.doi", `{"outPath":"11111111111111111111111111111111-gone"}`)
	put(t, dir, "realisations/sha256:22!out.doi", `no JSON`)
	put(t, dir, "build-trace-v2/2.drv/out.doi", fmt.Sprintf(`{"outPath":%q}`, lib.Path))
	put(t, dir, "debuginfo/aa.debug", fmt.Sprintf(`{"archive":"../%s","member":"m"}`, app.URL))
	put(t, dir, "debuginfo/bb.debug", `{"archive":"../nar/other.nar","member":"m"}`)
	f, err := OpenFolder(dir, "/nix/store")
	if err != nil {
		t.Fatal(err)
	}
	return f, lib, app
}

// What lies beside the paths of a folder is copied with them, and nothing else; where a
// NAR got another name, debug info names it.
func TestSidecars(t *testing.T) {
	f, lib, app := sidecarFolder(t)
	dir := t.TempDir()
	to, err := WriteFolder(dir, "/nix/store")
	if err != nil {
		t.Fatal(err)
	}
	c := &Copy{From: Chain{newMemory(), f}, To: to, Temp: t.TempDir(), Verb: "exported"}
	r, err := c.Run(t.Context(), []*narinfo.Info{lib, app})
	if err != nil || r.Copied != 2 || len(r.Failed) > 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	copied, err := (&Folder{dir: dir}).Info(t.Context(), app.Path.Hash())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		app.Path.Hash() + ".ls":          `{"version":1}`,
		"log/" + string(app.Deriver):     "built",
		"realisations/sha256:00!out.doi": fmt.Sprintf(`{"outPath":%q}`, lib.Path),
		"build-trace-v2/2.drv/out.doi":   fmt.Sprintf(`{"outPath":%q}`, lib.Path),
		"debuginfo/aa.debug":             fmt.Sprintf(`{"archive":"../%s","member":"m"}`, copied.URL),
	}
	if copied.URL == app.URL {
		t.Error("its NAR has the old name:", app.URL)
	}
	n := 0
	err = filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		name, _ = filepath.Rel(dir, name)
		if err != nil || e.IsDir() || strings.HasSuffix(name, ".narinfo") || strings.HasPrefix(name, "nar/") || name == cacheInfo {
			return err
		}
		n++
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(text) != want[name] {
			t.Errorf("%s has %q, %v; want %q", name, text, err, want[name])
		}
		return nil
	})
	if err != nil || n != len(want) {
		t.Errorf("%d files beside the paths, %v; want %d", n, err, len(want))
	}
}

// One that is refused is named, and its path is copied.
func TestSidecarRefused(t *testing.T) {
	f, lib, app := sidecarFolder(t)
	put(t, f.dir, "log/"+string(app.Deriver), "bad log")
	to := newMemory()
	c := &Copy{From: f, To: to, Temp: t.TempDir(), Verb: "imported"}
	r, err := c.Run(t.Context(), []*narinfo.Info{lib, app})
	if err != nil || r.Copied != 2 || len(r.Failed) != 1 || r.Failed[0].Path != "log/"+string(app.Deriver) || len(to.beside) != 4 {
		t.Fatalf("%+v, %v, %q", r, err, to.beside)
	}
}
