package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/state/durable"
	"narwharf/narinfo"
)

func write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(name, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

// files are the contents of a folder.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(name)
		rel, _ := filepath.Rel(dir, name)
		all[rel] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func equal(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s: %s is %q, want %q", what, name, got[name], text)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: %s is too much", what, name)
		}
	}
}

func hashOf(i int) string {
	return fmt.Sprintf("%032d", i)
}

func infoText(i int, refs ...int) string {
	info := &narinfo.Info{StoreDir: "/nix/store", Path: narinfo.Path(hashOf(i) + "-p"), URL: fmt.Sprintf("nar/%052d.nar", i), Compression: "none", NarHash: narinfo.Hash{1}, NarSize: 1}
	for _, ref := range refs {
		info.References = append(info.References, narinfo.Path(hashOf(ref)+"-p"))
	}
	return string(info.Append(nil))
}

func upload(t testing.TB, data string, i int, refs ...int) {
	write(t, filepath.Join(data, "cache", fmt.Sprintf("nar/%052d.nar", i)), fmt.Sprint("nar ", i))
	write(t, filepath.Join(data, "cache", hashOf(i)+".narinfo"), infoText(i, refs...))
}

func newData(t testing.TB) (data, snapshot string) {
	root := t.TempDir()
	data, snapshot = filepath.Join(root, "data"), filepath.Join(root, "snapshot")
	upload(t, data, 1)
	upload(t, data, 2, 1)
	for name, text := range map[string]string{
		"cache/nix-cache-info": "StoreDir: /nix/store\n", "cache/channels/web/1": "release", "cache/quarantine/x": "bad",
		"cache/" + hashOf(1) + ".ls": "listing", "tokens": "tokens", "keys/a.sec": "secret", "packed/x": "packed",
		"tmp/y": "half", "narwharf.db": "live", "cache/.new-z": "half",
	} {
		write(t, filepath.Join(data, name), text)
	}
	write(t, snapshot, "database 1")
	return data, snapshot
}

func take(t testing.TB, data, snapshot, dir string) (Result, error) {
	return Take(t.Context(), Options{DataDir: data, Snapshot: snapshot, Dir: dir, Report: func(l string) { t.Log(l) }})
}

// A backup has what data_dir has but for what is made again; the next one brings it up to
// date; a restore makes the same of it elsewhere and overwrites nothing.
func TestBackupAndRestore(t *testing.T) {
	data, snapshot := newData(t)
	dir := filepath.Join(t.TempDir(), "backup")
	r, err := take(t, data, snapshot, dir)
	if err != nil || r.Linked == 0 || r.Lost != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	want := files(t, data)
	for _, name := range []string{"cache/quarantine/x", "packed/x", "tmp/y", "cache/.new-z"} {
		delete(want, name)
	}
	want["narwharf.db"] = "database 1"
	with := func(dir string) map[string]string {
		is := files(t, dir)
		delete(is, noteName)
		return is
	}
	equal(t, "backup", with(dir), want)

	// What came, went and was replaced.
	upload(t, data, 3, 2)
	write(t, filepath.Join(data, "cache", hashOf(1)+".ls"), "LISTING")
	write(t, filepath.Join(data, "tokens"), "more tokens")
	for _, name := range []string{hashOf(2) + ".narinfo", fmt.Sprintf("nar/%052d.nar", 2), hashOf(3) + ".narinfo", fmt.Sprintf("nar/%052d.nar", 3)} {
		if err := os.Remove(filepath.Join(data, "cache", name)); err != nil {
			t.Fatal(err)
		}
		delete(want, filepath.Join("cache", name))
	}
	write(t, snapshot, "database 2")
	want["cache/"+hashOf(1)+".ls"], want["tokens"], want["narwharf.db"] = "LISTING", "more tokens", "database 2"
	if r, err = take(t, data, snapshot, dir); err != nil || r.Removed != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	equal(t, "the next", with(dir), want)

	to := filepath.Join(t.TempDir(), "data")
	if _, made, err := Restore(t.Context(), dir, to); err != nil || time.Since(made) > time.Minute {
		t.Fatal(made, err)
	}
	equal(t, "restored", files(t, to), want)
	if st, err := os.Stat(filepath.Join(to, "keys/a.sec")); err != nil || st.Mode().Perm() != 0o640 {
		t.Error(st.Mode(), err)
	}
	for _, dir := range []string{to, data} {
		if _, _, err := Restore(t.Context(), dir, dir+"x"); err == nil || !strings.Contains(err.Error(), "is no backup") {
			t.Error(err)
		}
	}
	if _, _, err := Restore(t.Context(), dir, to); err == nil || !strings.Contains(err.Error(), "overwrites nothing") {
		t.Error(err)
	}
	if _, err := take(t, data, snapshot, to); err == nil || !strings.Contains(err.Error(), "is no backup") {
		t.Error(err)
	}
	if _, err := take(t, data, snapshot, filepath.Join(data, "backup")); err == nil || !strings.Contains(err.Error(), "lie in each other") {
		t.Error(err)
	}
}

// A backup, and a restore, that are cut anywhere go on; one that was never finished
// cannot be restored, and one that was always can.
func TestCut(t *testing.T) {
	data, snapshot := newData(t)
	for i := range 40 {
		upload(t, data, 10+i, 1)
	}
	dir := filepath.Join(t.TempDir(), "backup")
	for step := range 6 {
		ctx, stop := context.WithCancel(t.Context())
		go func() {
			time.Sleep(time.Duration(step) * time.Millisecond)
			stop()
		}()
		_, err := Take(ctx, Options{DataDir: data, Snapshot: snapshot, Dir: dir, Report: func(string) {}})
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if n, err := readNote(dir); errors.Is(err, fs.ErrNotExist) || err == nil && !n.Finished.IsZero() {
			continue // cut before its beginning, or where it only removed what was gone
		}
		if _, _, err := Restore(t.Context(), dir, filepath.Join(t.TempDir(), "x")); err == nil || !strings.Contains(err.Error(), "never finished") {
			t.Fatal(err)
		}
	}
	if _, err := take(t, data, snapshot, dir); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "data")
	for step := range 6 {
		ctx, stop := context.WithTimeout(t.Context(), time.Duration(step)*time.Millisecond)
		_, _, err := Restore(ctx, dir, to)
		stop()
		if err == nil {
			break
		}
		if !Unfinished(to) {
			t.Fatal("a restore that was cut does not say so")
		}
	}
	if Unfinished(to) {
		if _, _, err := Restore(t.Context(), dir, to); err != nil {
			t.Fatal(err)
		}
	}
	want := files(t, dir)
	delete(want, noteName)
	equal(t, "restored", files(t, to), want)
}

// Beside uploads and deletions a backup has no path without its NAR or without what it
// refers to.
func TestBackupBesideChanges(t *testing.T) {
	data, snapshot := newData(t)
	const n = 60
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for part := range 2 { // chains of their own, in which i refers to i-1
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(part), 7))
			base, top := 1000*(part+1), 0
			for {
				select {
				case <-stop:
					return
				default:
				}
				up := r.IntN(n)
				for ; top < up; top++ {
					if top == 0 {
						upload(t, data, base)
					} else {
						upload(t, data, base+top, base+top-1)
					}
				}
				for ; top > up/2; top-- { // referrers first, each narinfo before its NAR
					i := base + top - 1
					_ = os.Remove(filepath.Join(data, "cache", hashOf(i)+".narinfo"))
					_ = os.Remove(filepath.Join(data, "cache", fmt.Sprintf("nar/%052d.nar", i)))
				}
			}
		})
	}
	dir := filepath.Join(t.TempDir(), "backup")
	for range 12 {
		if r, err := take(t, data, snapshot, dir); err != nil || r.Lost > 0 {
			t.Errorf("%+v, %v", r, err)
			break
		}
		all := files(t, dir)
		for name, text := range all {
			if !strings.HasSuffix(name, ".narinfo") {
				continue
			}
			info, err := narinfo.Parse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if all["cache/"+info.URL] == "" {
				t.Errorf("%s has no NAR", name)
			}
			for _, ref := range info.References {
				if all["cache/"+ref.Hash()+".narinfo"] == "" {
					t.Errorf("%s refers to %s, which is not there", name, ref)
				}
			}
		}
	}
	close(stop)
	wg.Wait()
}
