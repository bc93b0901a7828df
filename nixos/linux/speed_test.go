package linux_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/rand"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"narwharf/cache/nar/dump"
	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/nixos/linux/nix"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

// TestRelaySpeed measures what the relay costs a download: a closure of one large path and many small ones,
// with it and by Nix alone, in turn, into a new store each time. bench/PERFORMANCE.md has the numbers.
func TestRelaySpeed(t *testing.T) {
	if os.Getenv("NARWHARF_MEASURE") == "" {
		t.Skip("set NARWHARF_MEASURE=1: it takes minutes, and its numbers mean nothing beside other work")
	}
	for _, c := range []struct {
		compression string
		line        int // bytes in a second; 0: the loopback's
	}{{"none", 0}, {"zstd", 0}, {"xz", 0}, {"none", 119 << 20}, {"zstd", 119 << 20}, {"xz", 119 << 20}} {
		for _, version := range nixVersions {
			compression := c.compression
			t.Run(fmt.Sprintf("%s/%d/%s", compression, c.line>>20, version), func(t *testing.T) {
				f := newField(t, version)
				size := 200 << 20
				if compression == "xz" {
					size /= 10
				}
				top, infos := f.closure(compression, 300, size)
				m, err := signing.NewManifest(append(slices.Clone(infos), top))
				if err != nil {
					t.Fatal(err)
				}
				line := &line{rate: c.line, free: time.Now()}
				f.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					text, ok := f.files[r.URL.Path]
					if !ok && r.URL.Path != "/nix-cache-info" {
						http.NotFound(w, r)
						return
					}
					if !ok {
						text = []byte("StoreDir: /nix/store\n")
					}
					http.ServeContent(&onLine{w, line}, r, "", time.Time{}, bytes.NewReader(text))
				})
				client, err := api.NewClient(api.ClientOptions{Servers: f.cfg.Servers})
				if err != nil {
					t.Fatal(err)
				}
				took, cpu := map[string][]time.Duration{}, map[string][]time.Duration{}
				for range 3 {
					for _, by := range []string{"nix", "relay"} {
						f.newStore()
						store := nix.New(f.cfg, client, slog.New(slog.DiscardHandler))
						began, used := time.Now(), cpuTime()
						if by == "relay" {
							err = store.Realise(t.Context(), top.Path, "target", m.Lines)
						} else {
							var out []byte
							if out, err = exec.Command("nix-store", "--realise", top.Path.In(sim.StoreDir), "--option", "substituters", f.server.URL,
								"--option", "trusted-public-keys", f.key.Public().String()).CombinedOutput(); err != nil {
								err = fmt.Errorf("%w: %s", err, out)
							}
						}
						took[by], cpu[by] = append(took[by], time.Since(began)), append(cpu[by], cpuTime()-used)
						store.Close()
						if err != nil {
							t.Fatal(by, err)
						}
					}
				}
				for what, all := range map[string]map[string][]time.Duration{"wall": took, "CPU, the server's included": cpu} {
					slices.Sort(all["nix"])
					slices.Sort(all["relay"])
					t.Logf("%s: nix %v, relay %v: %.2f", what, all["nix"][1], all["relay"][1], all["relay"][1].Seconds()/all["nix"][1].Seconds())
				}
			})
		}
	}
}

// A line is what all answers share.
type line struct {
	sync.Mutex
	rate int
	free time.Time
}

type onLine struct {
	http.ResponseWriter
	*line
}

func (l *onLine) Write(p []byte) (int, error) {
	if l.rate > 0 {
		l.Lock()
		if now := time.Now(); l.free.Before(now) {
			l.free = now
		}
		l.free = l.free.Add(time.Duration(len(p)) * time.Second / time.Duration(l.rate))
		wait := time.Until(l.free)
		l.Unlock()
		time.Sleep(wait)
	}
	return l.ResponseWriter.Write(p)
}

// cpuTime is that of this process and of those that it has waited for.
func cpuTime() (sum time.Duration) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			panic(err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}

// newStore throws the host's store away.
func (f *field) newStore() {
	f.t.Helper()
	script := `chmod -R u+w "$1/root" "$1/home" && rm -rf "$1/root" "$1/home" "$1/state" && mkdir "$1/root" "$1/home" "$1/state" && nix-store --init`
	if out, err := exec.Command("sh", "-c", script, "sh", f.dir).CombinedOutput(); err != nil {
		f.t.Fatalf("%v: %s", err, out)
	}
}

// closure puts a path that refers to n small ones into the cache; it has a file of size bytes.
func (f *field) closure(compression string, n, size int) (top *narinfo.Info, infos []*narinfo.Info) {
	f.t.Helper()
	add := func(name string, bytes int, refs []narinfo.Path) *narinfo.Info {
		file := filepath.Join(f.dir, "file")
		text := make([]byte, bytes)
		noise := rand.New(rand.NewSource(int64(bytes)))
		for i := 0; i < len(text); i += 64 { // packs to about half
			_, _ = noise.Read(text[i:min(i+32, len(text))])
		}
		if err := os.WriteFile(file, text, 0o644); err != nil {
			f.t.Fatal(err)
		}
		return f.pack(name, file, compression, refs)
	}
	for i := range n {
		infos = append(infos, add(fmt.Sprintf("small-%d", i), 2000+i*100, nil))
	}
	var refs []narinfo.Path
	for _, i := range infos {
		refs = append(refs, i.Path)
	}
	slices.Sort(refs)
	return add("top", size, refs), infos
}

func (f *field) pack(name, file, compression string, refs []narinfo.Path) *narinfo.Info {
	f.t.Helper()
	var b bytes.Buffer
	if _, err := dump.Write(f.t.Context(), &b, file); err != nil {
		f.t.Fatal(err)
	}
	hash := narinfo.Hash(sha256.Sum256([]byte(name)))
	i := &narinfo.Info{StoreDir: sim.StoreDir, Path: narinfo.Path(hash.Base32()[:32] + "-" + name), Compression: compression,
		NarHash: sha256.Sum256(b.Bytes()), NarSize: int64(b.Len()), References: refs}
	i.URL = "nar/" + i.Path.Hash() + ".nar"
	i.Sigs = signInfo(i, []signing.SecretKey{f.key})
	packed := b.Bytes()
	switch compression {
	case "zstd":
		e, _ := zstd.NewWriter(nil)
		packed = e.EncodeAll(packed, nil)
	case "xz":
		cmd := exec.Command("xz", "-c", "-1", "-T0")
		cmd.Stdin = io.Reader(&b)
		out, err := cmd.Output()
		if err != nil {
			f.t.Fatal(err)
		}
		packed = out
	}
	f.put("/"+i.URL, packed)
	f.put("/"+i.Path.Hash()+".narinfo", i.Append(nil))
	return i
}

// signInfo is signing.SignInfo by keys that are here.
func signInfo(i *narinfo.Info, keys []signing.SecretKey) []string {
	sigs, err := signing.SignInfo(i, keys)
	if err != nil {
		panic(err)
	}
	return sigs
}
