//go:build linux

package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// uploadRows measures the upload of the closure into an empty cache, serially
// and with 8 connections. Every sample has a new server with an empty folder.
// nginx with its dav module is the practical limit, and does much less: it
// neither unpacks nor hashes nor syncs.
func uploadRows(p plan, c *closure, dir string, start ...func(dir string) (*server, error)) ([]row, error) {
	var out []row
	for _, conns := range []int{1, 8} {
		what := "upload, 1 path after the other"
		if conns > 1 {
			what = fmt.Sprintf("upload, %d paths at once", conns)
		}
		n := 0
		all, err := rounds(p.uploads, len(start), func(i int) (sample, error) {
			n++
			s, err := uploadSample(c, conns, filepath.Join(dir, fmt.Sprintf("upload-%d-%d", conns, n)), start[i])
			if err == nil {
				progress("%s, server %d of %d: %.0f MB/s, CPU %.2f s/GB", what, i+1, len(start), s.value, s.cpu)
			}
			return s, err
		})
		if err != nil {
			return nil, err
		}
		for len(all) < 2 {
			all = append(all, nil) // nothing to compare with
		}
		main := newRow(what+", MB/s", "%.0f", all[0], all[1], byValue)
		main.addCPU("%.2f s/GB", all[0], all[1])
		paths := func(s sample) float64 { return s.value * 1e6 / float64(c.fileSize) * float64(len(c.paths)) }
		out = append(out, main, newRow("… paths/s", "%.0f", all[0], all[1], paths))
	}
	return out, nil
}

func uploadSample(c *closure, conns int, dir string, start func(dir string) (*server, error)) (sample, error) {
	s, err := start(dir)
	if err != nil {
		return sample{}, err
	}
	defer remove(dir)
	defer s.stop()
	// What others wrote before must not be what our fsync waits for.
	if err := syncDisk(dir); err != nil {
		return sample{}, err
	}
	before, err := s.cpu()
	if err != nil {
		return sample{}, err
	}
	elapsed, err := upload(s.put, s.token, c, conns)
	if err != nil {
		return sample{}, fmt.Errorf("upload to %s: %w", s.name, err)
	}
	after, err := s.cpu()
	if err != nil {
		return sample{}, err
	}
	return sample{
		value: float64(c.fileSize) / 1e6 / elapsed.Seconds(),
		cpu:   (after - before).Seconds() / float64(c.fileSize) * 1e9,
	}, nil
}

// syncDisk writes out everything of the file system that dir is on.
func syncDisk(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// verifyRow measures what no server that checks its uploads can do without:
// the hash of each file, its decompression, the hash of the NAR. The rate is
// that of one core, by CPU time.
func verifyRow(c *closure) (row, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return row{}, err
	}
	defer z.Close()
	cpu := ownCPU()
	for _, p := range c.paths {
		if err := verify(z, p); err != nil {
			return row{}, fmt.Errorf("verify %s: %w", p.file, err)
		}
	}
	perGB := (ownCPU() - cpu).Seconds() / float64(c.fileSize) * 1e9
	return row{
		what:   "… unpacking and hashing alone, no server, MB/s and core",
		values: [2]string{fmt.Sprintf("%.0f", 1e3/perGB)},
		cpus:   [2]string{fmt.Sprintf("%.2f s/GB", perGB)},
	}, nil
}

func verify(z *zstd.Decoder, p *storePath) error {
	f, err := os.Open(p.file)
	if err != nil {
		return err
	}
	defer f.Close()
	file, plain := sha256.New(), sha256.New()
	if err := z.Reset(io.TeeReader(f, file)); err != nil {
		return err
	}
	if _, err := io.Copy(plain, z); err != nil {
		return err
	}
	if [32]byte(file.Sum(nil)) != p.info.FileHash || [32]byte(plain.Sum(nil)) != p.info.NarHash {
		return errors.New("the file has changed")
	}
	return nil
}
