package cache

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHealth(t *testing.T) {
	w := newWorld(t)
	if a := w.must(w.get("/healthz"), 200); a.body != "ok\n" {
		t.Error(a)
	}
	if a := w.must(w.get("/version"), 200); a.body != "narwharf test\n" {
		t.Error(a)
	}
	if a := w.must(w.get("/pubkey"), 200); a.body != "" {
		t.Error(a)
	}
	if a := w.must(w.get("/readyz"), 200); !strings.HasPrefix(a.body, "ready\nroom for uploads: ") {
		t.Error(a)
	}
	// Files that cannot be reached, as when a disk is not mounted.
	name := filepath.Join(w.dir, "cache", "nix-cache-info")
	if err := os.Rename(name, name+".away"); err != nil {
		t.Fatal(err)
	}
	w.must(w.get("/readyz"), 503, "not ready", "files")
	w.must(w.get("/healthz"), 200)
	if err := os.Rename(name+".away", name); err != nil {
		t.Fatal(err)
	}
	if err := w.state.Close(); err != nil {
		t.Fatal(err)
	}
	w.must(w.get("/readyz"), 503, "index")
	w.must(w.get(examples["narinfo"]), 500) // not 404: that would be remembered for an hour
	w.must(w.head(examples["narinfo"]), 500)
	p := newUpload(t, "p", "none")
	w.must(w.put(p.narURL(), p.body), 201)
	w.must(w.put(p.infoURL(), p.text()), 501)
	w.http.Close()
	w.http = nil
}
