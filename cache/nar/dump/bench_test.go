package dump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	gonix "github.com/nix-community/go-nix/pkg/nar"
	"golang.org/x/sys/unix"
)

// manyFiles is the shape that costs most per byte: 20 000 files of 10 bytes in 100 directories.
var manyFiles = sync.OnceValue(func() []file {
	files := []file{dir("")}
	for d := range 100 {
		files = append(files, dir(fmt.Sprintf("%03d", d)))
		for f := range 200 {
			files = append(files, plainFile(fmt.Sprintf("%03d/f%05d", d, f), fmt.Sprintf("file %05d", f)))
		}
	}
	return files
})

func BenchmarkDump(b *testing.B) {
	root := filepath.Join(b.TempDir(), "x")
	n := write(manyFiles()...)
	plant(b, root, manyFiles()...)
	out, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	ctx := context.Background()
	for name, dump := range map[string]func(io.Writer, string) error{
		"ours":    func(w io.Writer, root string) error { _, err := Write(ctx, w, root); return err },
		"measure": func(w io.Writer, root string) error { _, err := Measure(ctx, root); return err },
		"gonix":   gonix.DumpPath,
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(n)))
			b.ReportAllocs()
			for b.Loop() {
				if err := dump(out, root); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(manyFiles())), "ns/entry")
		})
	}
	tree, err := Measure(ctx, root)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("lastbyte", func(b *testing.B) {
		for b.Loop() {
			if _, err := tree.WriteRange(ctx, out, tree.Size()-1, tree.Size()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// Both write into a pipe that cat empties. Nix also has to start, which is in its numbers
// ("nothing" has only that).
func BenchmarkDumpToPipe(b *testing.B) {
	dir := os.Getenv("NARWHARF_NIX_DIR")
	if dir == "" {
		missing(b, "real Nix (a directory of clients in NARWHARF_NIX_DIR)")
	}
	tmp := b.TempDir()
	root, nothing := filepath.Join(tmp, "x"), filepath.Join(tmp, "nothing")
	plant(b, root, manyFiles()...)
	plant(b, nothing, plainFile("", ""))
	for _, version := range []string{"2.8", "2.26", "2.34"} {
		for name, root := range map[string]string{"many": root, "nothing": nothing} {
			b.Run("nix-"+version+"/"+name, func(b *testing.B) {
				benchmarkPipe(b, func(out *os.File) (time.Duration, error) {
					cmd := exec.Command(filepath.Join(dir, "bin", "nix-store-"+version), "--dump", root)
					cmd.Stdout = out
					cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + tmp, "NIX_STORE_DIR=" + tmp, "NIX_STATE_DIR=" + tmp, "NIX_CONF_DIR=" + tmp}
					err := cmd.Run()
					return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), err
				})
			})
		}
	}
	b.Run("ours/many", func(b *testing.B) {
		benchmarkPipe(b, func(out *os.File) (time.Duration, error) {
			before := selfCPU(b)
			_, err := Write(b.Context(), out, root)
			return selfCPU(b) - before, err
		})
	})
}

func selfCPU(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchmarkPipe(b *testing.B, dump func(out *os.File) (time.Duration, error)) {
	var cpu time.Duration
	for b.Loop() {
		cat := exec.Command("cat")
		in, err := cat.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cat.Start(); err != nil {
			b.Fatal(err)
		}
		used, err := dump(in.(*os.File))
		if err := errors.Join(err, in.Close(), cat.Wait()); err != nil {
			b.Fatal(err)
		}
		cpu += used
	}
	b.ReportMetric(float64(cpu.Milliseconds())/float64(b.N), "cpu-ms/op")
}
