//go:build linux

package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"

	"narwharf/narinfo"
)

// storeDir is where the paths of the closure claim to be.
const storeDir = "/nix/store"

// A storePath is one path of the closure, ready to be uploaded.
type storePath struct {
	info *narinfo.Info
	file string // the compressed NAR on disk
	refs []int  // indexes of its references, all lower than its own
}

// A closure is a list of store paths, references first.
type closure struct {
	dir               string
	paths             []*storePath
	narSize, fileSize int64 // sums
}

// makeClosure packs installed Debian packages into dir/nar, about size bytes
// and at least count of them if the machine has so many.
func makeClosure(dir string, size int64, count int) (*closure, error) {
	all, err := installed()
	if err != nil {
		return nil, err
	}
	chosen, err := choose(all, size, count, (*debPackage).findFiles)
	if err != nil {
		return nil, err
	}
	pkgs, refs := topological(chosen)
	if len(pkgs) == 0 {
		return nil, errors.New("make a closure: dpkg knows of no installed package")
	}
	if err := os.MkdirAll(filepath.Join(dir, "nar"), 0o755); err != nil {
		return nil, err
	}
	c := &closure{dir: dir, paths: make([]*storePath, len(pkgs))}
	errs := make([]error, len(pkgs))
	jobs := make(chan int)
	var wg sync.WaitGroup
	for range runtime.NumCPU() {
		wg.Go(func() {
			for i := range jobs {
				c.paths[i], errs[i] = pack(dir, pkgs[i])
			}
		})
	}
	for i := range pkgs {
		jobs <- i
	}
	close(jobs)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for i, p := range c.paths {
		p.refs = refs[i]
		for _, r := range p.refs {
			p.info.References = append(p.info.References, c.paths[r].info.Path)
		}
		// The normalised text has them sorted; so has what is parsed back.
		if p.info, err = narinfo.Parse(p.info.Append(nil)); err != nil {
			return nil, fmt.Errorf("narinfo of %s: %w", pkgs[i].name, err)
		}
		c.narSize += p.info.NarSize
		c.fileSize += p.info.FileSize
	}
	return c, nil
}

// pack writes one package to nar/<file hash>.nar.zst in dir.
func pack(dir string, p *debPackage) (*storePath, error) {
	tmp, err := os.CreateTemp(dir, "nar-")
	if err != nil {
		return nil, err
	}
	defer tmp.Close()
	packed := &counted{w: tmp, hash: sha256.New()}
	z, err := zstd.NewWriter(packed, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	plain := &counted{w: z, hash: sha256.New()}
	if err := writeNar(plain, p.files); err != nil {
		return nil, fmt.Errorf("pack Debian package %s: %w", p.name, err)
	}
	if err := errors.Join(z.Close(), tmp.Chmod(0o644)); err != nil {
		return nil, fmt.Errorf("pack Debian package %s: %w", p.name, err)
	}
	path, err := narinfo.ParseBase(baseName(p))
	if err != nil {
		return nil, err
	}
	info := &narinfo.Info{
		StoreDir: storeDir, Path: path, Compression: "zstd",
		FileHash: packed.sum(), FileSize: packed.n, NarHash: plain.sum(), NarSize: plain.n,
	}
	info.URL = "nar/" + info.FileHash.Base32() + ".nar.zst"
	file := filepath.Join(dir, info.URL)
	if err := os.Rename(tmp.Name(), file); err != nil {
		return nil, err
	}
	return &storePath{info: info, file: file}, nil
}

// baseName invents a store path name for a package.
func baseName(p *debPackage) string {
	safe := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+-._?=", r) {
			return r
		}
		return '-'
	}, p.name+"-"+p.version)
	return narinfo.Hash(sha256.Sum256([]byte(p.name + " " + p.version))).Base32()[:32] + "-" + safe
}

// counted hashes and counts what passes through to w.
type counted struct {
	w    io.Writer
	hash hash.Hash
	n    int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.hash.Write(p[:n])
	c.n += int64(n)
	return n, err
}

func (c *counted) sum() narinfo.Hash { return narinfo.Hash(c.hash.Sum(nil)) }
