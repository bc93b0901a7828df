package outbox

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const base = "00000000000000000000000000000000-"

// world is a queue and a store.
func world(t *testing.T, names ...string) (q *Queue, paths []string) {
	t.Helper()
	dir := t.TempDir()
	q = &Queue{Dir: filepath.Join(dir, "outbox"), NixState: filepath.Join(dir, "state")}
	for _, name := range names {
		path := filepath.Join(dir, "store", base+name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return q, paths
}

func TestQueue(t *testing.T) {
	q, paths := world(t, "a", "b")
	if items, err := q.List(); items != nil || err != nil {
		t.Errorf("%v, %v", items, err)
	}
	for _, p := range append(paths, paths[0]) {
		if err := q.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	roots, err := filepath.Glob(filepath.Join(q.NixState, "gcroots", "auto", "*"))
	if err != nil || len(roots) != 2 {
		t.Fatalf("%v, %v", roots, err)
	}
	for _, r := range roots {
		link, _ := os.Readlink(r)
		if target, err := filepath.EvalSymlinks(r); !slices.Contains(paths, target) || !strings.HasPrefix(link, q.Dir) || err != nil {
			t.Errorf("a root leads by %s to %s, %v", link, target, err)
		}
	}
	if err := q.Failed(paths[1], errors.New("no route")); err != nil {
		t.Fatal(err)
	}
	items, err := q.List()
	if err != nil || len(items) != 2 || items[0].Path != paths[0] || items[1].Error != "no route" || items[0].Since.IsZero() {
		t.Errorf("%+v, %v", items, err)
	}
	for range 2 {
		if err := q.Done(paths[1]); err != nil {
			t.Error(err)
		}
	}
	if items, _ := q.List(); len(items) != 1 {
		t.Errorf("%+v", items)
	}
	for _, bad := range []string{"", "/", "relative", "/nix/store/short"} {
		if err := q.Add(bad); err == nil {
			t.Errorf("%q is queued", bad)
		}
	}
}

// TestSender: what is refused keeps nobody from being sent, and is tried again, later each time; what a
// killed sender had not done the next one does.
func TestSender(t *testing.T) {
	q, paths := world(t, "a", "b", "gone")
	for _, p := range paths {
		if err := q.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(paths[2]); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		refused := paths[1]
		var mu sync.Mutex
		var calls [][]string
		count := func() int {
			mu.Lock()
			defer mu.Unlock()
			return len(calls)
		}
		s := &Sender{Queue: q, Log: slog.New(slog.DiscardHandler), Copy: func(_ context.Context, list []string) error {
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, list)
			if slices.Contains(list, refused) {
				return errors.New("413")
			}
			return nil
		}}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		synctest.Wait()
		if items, _ := q.List(); len(items) != 1 || items[0].Path != refused || !strings.Contains(items[0].Error, "try 1") || count() != 3 {
			t.Errorf("%+v after %d calls", items, count())
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := count() - 3; n < 8 || n > 14 {
			t.Errorf("%d tries in an hour", n)
		}
		if err := (&Sender{Queue: q}).Run(ctx); !errors.Is(err, ErrAnother) {
			t.Errorf("two senders: %v", err)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		refused = ""
		next := &Sender{Queue: q, Log: s.Log, Copy: s.Copy}
		if err := next.Once(t.Context()); err != nil {
			t.Error(err)
		}
		if items, _ := q.List(); len(items) != 0 {
			t.Errorf("%+v", items)
		}
	})
}

func TestOutputs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.drv")
	for text, want := range map[string]string{
		`Derive([("dev","/nix/store/a-dev","",""),("out","/nix/store/a","","")],[("/nix/store/b.drv",["out"])],[],"x86_64-linux","/bin/sh",[],[("out","/nix/store/a")])`: "/nix/store/a-dev /nix/store/a",
		`Derive([("out","/nix/store/f","r:sha256","00ff")],[],[],"x","y",[],[])`:                                                                                         "/nix/store/f",
		`Derive([("out","","r:sha256","")],[],[],"x","y",[],[])`:                                                                                                         "",
		`nonsense`: "error",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		paths, err := Outputs(file)
		if got := strings.Join(paths, " "); (want == "error") != (err != nil) || err == nil && got != want {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
}
