package move

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/blob"
	"narwharf/narinfo"
)

func folder(t *testing.T) *blob.FS {
	t.Helper()
	dir := t.TempDir()
	s, err := blob.NewFS(filepath.Join(dir, "files"), filepath.Join(dir, "tmp"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t *testing.T, s blob.Store, name, text string) {
	t.Helper()
	if err := blob.WriteFile(s, name, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func nar(text string) string {
	return "nar/" + narinfo.Hash(sha256.Sum256([]byte(text))).Base32() + ".nar"
}

// filled is a folder with files of all kinds.
func filled(t *testing.T) *blob.FS {
	s := folder(t)
	write(t, s, "nix-cache-info", "StoreDir: /nix/store\n")
	for i := range 30 {
		text := strings.Repeat(fmt.Sprint(i), 100+i)
		write(t, s, nar(text), text)
		write(t, s, fmt.Sprintf("%032d.narinfo", i), "narinfo "+text)
	}
	write(t, s, "log/a.drv", "a log")
	write(t, s, "hooks/web/1", "a release")
	write(t, s, "hooks/web/deep/2", "another")
	write(t, s, "quarantine/nar/x", "left behind")
	write(t, s, "own", "the first's")
	return s
}

var skipOwn = func(name string) bool { return name == "own" }

func run(t *testing.T, from, to blob.Store, o Options) Result {
	t.Helper()
	o.Skip = skipOwn
	r, err := Sync(t.Context(), from, to, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Everything is copied once; what changes is seen, by its bytes or, since a time, by its size.
func TestSync(t *testing.T) {
	from, to := filled(t), folder(t)
	write(t, to, "own", "the second's")
	first := run(t, from, to, Options{})
	if first.Files != 64 || first.Changed != 64 || first.Copied != first.Bytes || len(first.Failed) > 0 {
		t.Errorf("%+v", first)
	}
	if r := run(t, from, to, Options{Check: true}); r.Changed != 0 || r.Files != 64 {
		t.Errorf("the same: %+v", r)
	}
	write(t, from, "log/a.drv", "A log")
	if err := from.Remove("hooks/web/1"); err != nil {
		t.Fatal(err)
	}
	if r := run(t, from, to, Options{Check: true, Since: time.Now().Add(time.Hour)}); r.Changed != 1 || r.First != "hooks/web/1" {
		t.Errorf("by size: %+v", r)
	}
	if r := run(t, from, to, Options{Since: time.Now().Add(-time.Hour)}); r.Changed != 2 || r.Copied != 5 {
		t.Errorf("by bytes: %+v", r)
	}
	if text, err := blob.ReadFile(to, "log/a.drv", 10); err != nil || string(text) != "A log" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := to.Stat("hooks/web/1"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if text, err := blob.ReadFile(to, "own", 100); err != nil || string(text) != "the second's" {
		t.Errorf("%q, %v", text, err)
	}
}

// A NAR that is not what its name says is named, and not copied.
func TestDamaged(t *testing.T) {
	from, to := filled(t), folder(t)
	write(t, from, nar("bad"), "baD")
	r := run(t, from, to, Options{})
	if len(r.Failed) != 1 || r.Failed[0].Name != nar("bad") || !strings.Contains(r.Failed[0].Error, "narwharf fsck") {
		t.Errorf("%+v", r)
	}
	if _, err := to.Stat(nar("bad")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// A copy that fails at any step goes on, and nothing torn is seen.
func TestSyncGoesOn(t *testing.T) {
	from := filled(t)
	errKilled := errors.New("killed")
	for step := 0; ; step += 1 + step/8 {
		to := folder(t)
		var mu sync.Mutex
		left := step
		to.Fault = func(string, string) error {
			mu.Lock()
			defer mu.Unlock()
			if left == 0 {
				return errKilled
			}
			left--
			return nil
		}
		_, err := Sync(t.Context(), from, to, Options{Skip: skipOwn, Jobs: 3})
		if err != nil && !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		to.Fault = nil
		run(t, from, to, Options{})
		if r := run(t, from, to, Options{Check: true}); r.Changed != 0 || r.Files != 64 {
			t.Fatalf("step %d: %+v", step, r)
		}
		if err == nil {
			break
		}
	}
}

func TestSyncEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Sync(ctx, filled(t), folder(t), Options{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := Sync(t.Context(), filled(t), folder(t), Options{Jobs: 1, Step: "files"}); err != nil {
		t.Error(err)
	}
}
