package stored

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/nar"
	"narwharf/cache/retention"
	"narwharf/cache/root"
	"narwharf/cache/state"
	"narwharf/cache/state/memory"
	"narwharf/cache/upload"
	"narwharf/narinfo"
)

// On a real file system that is full an upload finds room: what nothing keeps makes way
// for it, and what a root reaches stays. Nothing goes before the roots are settled, and
// nothing for an upload that would not fit all the same.
func TestAFullDiskHeals(t *testing.T) {
	if dir := os.Getenv("STORED_TEST_MOUNT"); dir != "" {
		testTinyDisk(t, dir)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestAFullDiskHeals$", "-test.v")
	cmd.Env = append(os.Environ(), "STORED_TEST_MOUNT="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
		UidMappings:  []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || strings.Contains(string(out), "mount a tmpfs:") {
		if os.Getenv("NARWHARF_CI") == "1" {
			t.Fatalf("no mount namespaces, and NARWHARF_CI=1 wants every test run: %v\n%s", err, out)
		}
		t.Skipf("needs a user and mount namespace: %v", err)
	}
	if err != nil || !bytes.Contains(out, []byte("PASS: TestAFullDiskHeals")) {
		t.Fatalf("%v\n%s", err, out)
	}
}

type tinyDisk struct {
	*Cache
	t  *testing.T
	db state.Store
}

// put uploads a path of that many bytes.
func (d *tinyDisk) put(name string, size int) (narinfo.Path, error) {
	var text []byte
	for _, w := range []string{"nix-archive-1", "(", "type", "regular", "contents", name + strings.Repeat("x", size), ")"} {
		text = nar.AppendString(text, w)
	}
	sum, hash := narinfo.Hash(sha256.Sum256(text)), narinfo.Hash(sha256.Sum256([]byte(name)))
	i := &narinfo.Info{
		StoreDir: "/nix/store", Path: narinfo.Path(hash.Base32()[20:] + "-" + name), URL: "nar/" + sum.Base32() + ".nar", Compression: "none",
		FileHash: sum, FileSize: int64(len(text)), NarHash: sum, NarSize: int64(len(text)),
	}
	err := d.PutNar(context.Background(), strings.TrimPrefix(i.URL, "nar/"), bytes.NewReader(text), i.FileSize)
	if err == nil {
		err = d.PutInfo(context.Background(), i.Path.Hash(), i, "ci")
	}
	return i.Path, err
}

func (d *tinyDisk) mustPut(name string, size int) narinfo.Path {
	d.t.Helper()
	p, err := d.put(name, size)
	if err != nil {
		d.t.Fatalf("%s: %v", name, err)
	}
	return p
}

func (d *tinyDisk) has(p narinfo.Path) bool {
	_, err := d.Uploads.Index.Get(p.Hash())
	return err == nil
}

// settled settles roots: they are what they are.
type settled chan struct{}

func (s settled) Settle(context.Context) error {
	close(s)
	return nil
}

func testTinyDisk(t *testing.T, dir string) {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal("mount a tmpfs:", err)
	}
	const short = time.Second
	d := &tinyDisk{t: t, db: memory.New(nil)}
	files, err := blob.NewFS(filepath.Join(dir, "cache"), filepath.Join(dir, "tmp"))
	if err != nil {
		t.Fatal(err)
	}
	d.Cache, err = Open(Options{
		Files: files, State: d.db, Index: index.Options{Lease: short}, Retention: retention.Policy{Grace: short, Lease: short},
		Rules: upload.Options{StoreDir: "/nix/store", MaxNarSize: 1 << 30, NarGrace: time.Hour}, Log: slog.New(slog.DiscardHandler),
	})
	if err == nil {
		err = d.Recover() // it begins: all uses are known
	}
	if err != nil {
		t.Fatal(err)
	}
	const size = 700 << 10
	kept := d.mustPut("kept", size)
	err = d.db.Update(context.Background(), root.Locks([]narinfo.Path{kept}), func(tx state.Tx) error { return root.Set(tx, "pin:x", []narinfo.Path{kept}) })
	if err != nil {
		t.Fatal(err)
	}
	old := []narinfo.Path{d.mustPut("a", size), d.mustPut("b", size), d.mustPut("c", size), d.mustPut("d", size)}
	time.Sleep(5 * short / 2) // a lease, and the quarter that it is longer, in whole seconds
	if _, err := d.put("early", size); !errors.Is(err, blob.ErrFull) {
		t.Errorf("before the roots are settled: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	roots, ended := make(settled), make(chan struct{})
	go func() {
		defer close(ended)
		d.Collector.Run(ctx, roots)
	}()
	<-roots
	time.Sleep(100 * time.Millisecond)
	if _, err := d.put("huge", 100<<20); !errors.Is(err, blob.ErrFull) {
		t.Errorf("larger than the disk: %v", err)
	}
	for _, p := range old {
		if !d.has(p) {
			t.Errorf("%s is gone for what did not fit", p)
		}
	}
	young := d.mustPut("young", size)
	left := 0
	for _, p := range old {
		if d.has(p) {
			left++
		}
	}
	if !d.has(young) || !d.has(kept) || left != 3 {
		t.Errorf("young %t, kept %t, %d of 4 others: one should have gone", d.has(young), d.has(kept), left)
	}
	cancel()
	<-ended
}
