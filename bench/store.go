//go:build linux

package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"narwharf/cache/nar"
	"narwharf/narinfo"
)

// A nixStore is a Nix store of the benchmark's own, made by real Nix, with its
// database: root/nix/store and root/nix/var/nix/db.
type nixStore struct {
	root  string
	nix   []*nixClient
	paths []*narinfo.Info // the closure made of Debian packages
	big   *narinfo.Info   // one large file
	many  *narinfo.Info   // 20 000 small ones
}

const (
	bigName   = "-one-large-file"
	manyName  = "-many-small-files"
	manyFiles = 20_000
)

// makeStore makes the store in dir, or takes the one that is there already.
// Nix copies it out of a binary cache in a folder, which is c's and has it all.
func makeStore(dir string, c *closure, bigSize int64) (*nixStore, error) {
	s := &nixStore{root: filepath.Join(dir, "root")}
	var err error
	if s.nix, err = findNix(filepath.Join(dir, "home"), s.root); err != nil {
		return nil, err
	}
	infos := filepath.Join(dir, "paths") // of a finished store
	if _, err := os.Stat(infos); err == nil {
		return s, s.load(infos)
	}
	if err := os.RemoveAll(s.root); err != nil {
		return nil, err
	}
	for _, p := range c.paths {
		s.paths = append(s.paths, p.info)
	}
	if s.big, err = c.addPath("2"+bigName, func(w *narWriter) error { return writeBig(w, bigSize) }); err != nil {
		return nil, err
	}
	if s.many, err = c.addPath("1"+manyName, writeMany); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(c.dir, "nix-cache-info"), []byte("StoreDir: "+storeDir+"\n"), 0o644); err != nil {
		return nil, err
	}
	args := []string{"copy", "--no-check-sigs", "--from", "file://" + c.dir, "--to", "local?root=" + s.root}
	var texts []byte
	for _, i := range s.all() {
		text := i.Append(nil)
		if err := os.WriteFile(filepath.Join(c.dir, i.Path.Hash()+".narinfo"), text, 0o644); err != nil {
			return nil, err
		}
		texts = append(append(texts, text...), '\n')
		args = append(args, storeDir+"/"+string(i.Path))
	}
	if err := s.nix[len(s.nix)-1].run("nix", args...); err != nil {
		return nil, err
	}
	return s, os.WriteFile(infos, texts, 0o644)
}

func (s *nixStore) all() []*narinfo.Info { return append(slices.Clone(s.paths), s.big, s.many) }

// load reads the list of paths that makeStore left.
func (s *nixStore) load(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(string(text), "\n\n"), "\n\n") {
		i, err := narinfo.Parse([]byte(part + "\n"))
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		switch {
		case strings.HasSuffix(string(i.Path), bigName):
			s.big = i
		case strings.HasSuffix(string(i.Path), manyName):
			s.many = i
		default:
			s.paths = append(s.paths, i)
		}
	}
	if s.big == nil || s.many == nil || len(s.paths) == 0 {
		return errors.New(file + " lacks paths; remove its folder, and the store is made again")
	}
	return nil
}

// real is where a path's files are.
func (s *nixStore) real(i *narinfo.Info) string {
	return filepath.Join(s.root, storeDir, string(i.Path))
}

// The two URL paths of a local path, see cache/localnar.go.
func packedURL(i *narinfo.Info) string { return plainURL(i) + ".zst" }
func plainURL(i *narinfo.Info) string {
	return "/nar/" + i.Path.Hash() + "-" + i.NarHash.Base32() + ".nar"
}

// addPath adds a path without references, not packed, to the closure's folder
// of NARs. The first character of its name is repeated to be its hash part.
func (c *closure) addPath(name string, write func(*narWriter) error) (*narinfo.Info, error) {
	path, err := narinfo.ParseBase(strings.Repeat(name[:1], 32) + name[1:])
	if err != nil {
		return nil, err
	}
	tmp, err := os.CreateTemp(c.dir, "nar-")
	if err != nil {
		return nil, err
	}
	defer tmp.Close()
	buffered := bufio.NewWriterSize(tmp, 1<<20)
	out := &counted{w: buffered, hash: sha256.New()}
	w := newNarWriter(out)
	if err := errors.Join(write(w), w.close(), buffered.Flush(), tmp.Chmod(0o644)); err != nil {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	i := &narinfo.Info{StoreDir: storeDir, Path: path, Compression: "none",
		FileHash: out.sum(), FileSize: out.n, NarHash: out.sum(), NarSize: out.n}
	i.URL = "nar/" + i.FileHash.Base32() + ".nar"
	return i, os.Rename(tmp.Name(), filepath.Join(c.dir, i.URL))
}

// noise is what no encoder can make smaller, and the same in every run.
func noise(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

func writeBig(w *narWriter, size int64) error {
	if err := w.add(&nar.Entry{Type: nar.Directory}, nil); err != nil {
		return err
	}
	return w.add(&nar.Entry{Path: "blob", Type: nar.Regular, Size: size}, io.LimitReader(noise(1), size))
}

// writeMany writes 20 000 files of 1 KiB on average in 100 folders.
func writeMany(w *narWriter) error {
	if err := w.add(&nar.Entry{Type: nar.Directory}, nil); err != nil {
		return err
	}
	from := noise(2)
	for i := range manyFiles {
		dir := fmt.Sprintf("%03d", i/200)
		if i%200 == 0 {
			if err := w.add(&nar.Entry{Path: dir, Type: nar.Directory}, nil); err != nil {
				return err
			}
		}
		size := int64(24 + i*7919%2000)
		e := nar.Entry{Path: fmt.Sprintf("%s/file-%05d", dir, i), Type: nar.Regular, Size: size}
		if err := w.add(&e, io.LimitReader(from, size)); err != nil {
			return err
		}
	}
	return nil
}
