//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"narwharf/cache/nar"
)

// A debPackage is an installed Debian package, the stand-in for a store path.
type debPackage struct {
	name    string // may end in ":amd64"
	version string
	size    int64    // of its files; Installed-Size before findFiles, often far off
	needs   []string // names as in Depends
	files   []string // absolute
}

const (
	// maxPackage keeps one huge package from being most of the closure.
	maxPackage = 96 << 20
	// smallPackage is what may fill up the number of paths when the bytes are
	// already there.
	smallPackage = 1 << 20
)

// installed lists the packages that dpkg knows as installed.
func installed() ([]*debPackage, error) {
	out, err := exec.Command("dpkg-query", "-W", "-f",
		`${db:Status-Abbrev}\t${binary:Package}\t${Version}\t${Installed-Size}\t${Pre-Depends}, ${Depends}\n`).Output()
	if err != nil {
		return nil, fmt.Errorf("list the installed Debian packages, of which the closure is made: %w", err)
	}
	return parsePackages(string(out)), nil
}

func parsePackages(list string) []*debPackage {
	var pkgs []*debPackage
	for line := range strings.Lines(list) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 5 || !strings.HasPrefix(f[0], "ii") {
			continue
		}
		kib, err := strconv.ParseInt(f[3], 10, 64)
		if err != nil {
			continue // a package without files has no size
		}
		p := &debPackage{name: f[1], version: f[2], size: kib << 10}
		for dep := range strings.SplitSeq(f[4], ",") {
			// "libc6:any (>= 2.34) | musl": the first alternative, its name.
			dep, _, _ = strings.Cut(dep, "|")
			dep, _, _ = strings.Cut(dep, "(")
			dep, _, _ = strings.Cut(strings.TrimSpace(dep), ":")
			if dep != "" {
				p.needs = append(p.needs, dep)
			}
		}
		pkgs = append(pkgs, p)
	}
	return pkgs
}

// choose picks packages until it has about size bytes and at least count
// packages, or none are left, and calls find to make sure of the files and the
// size of each. The same machine always gives the same choice: the order is
// that of the hashes of their names.
func choose(pkgs []*debPackage, size int64, count int, find func(*debPackage) error) ([]*debPackage, error) {
	order := slices.Clone(pkgs)
	slices.SortFunc(order, func(a, b *debPackage) int {
		x, y := sha256.Sum256([]byte(a.name)), sha256.Sum256([]byte(b.name))
		return bytes.Compare(x[:], y[:])
	})
	var chosen []*debPackage
	var sum int64
	fits := func(p *debPackage) bool {
		return p.size <= maxPackage && (sum+p.size <= size || len(chosen) < count && p.size <= smallPackage)
	}
	for _, p := range order {
		if sum > size*99/100 && len(chosen) >= count {
			break
		}
		if !fits(p) {
			continue
		}
		if err := find(p); err != nil {
			return nil, err
		}
		if fits(p) {
			chosen = append(chosen, p)
			sum += p.size
		}
	}
	return chosen, nil
}

// topological puts every package behind those it needs. A dependency that
// would close a circle (Debian has some) is forgotten, as is one that is not
// among pkgs; the others become needs, as indexes into the result.
func topological(pkgs []*debPackage) (order []*debPackage, needs [][]int) {
	byName := make(map[string]*debPackage, len(pkgs))
	for _, p := range pkgs {
		name, _, _ := strings.Cut(p.name, ":")
		byName[name] = p
	}
	const open = -1
	place := make(map[*debPackage]int, len(pkgs)) // absent: not seen yet
	var visit func(p *debPackage) int
	visit = func(p *debPackage) int {
		if at, ok := place[p]; ok {
			return at
		}
		place[p] = open
		var refs []int
		for _, name := range p.needs {
			if dep, ok := byName[name]; ok {
				if at := visit(dep); at != open {
					refs = append(refs, at)
				}
			}
		}
		slices.Sort(refs)
		place[p] = len(order)
		order = append(order, p)
		needs = append(needs, slices.Compact(refs))
		return place[p]
	}
	for _, p := range pkgs {
		visit(p)
	}
	return order, needs
}

// findFiles asks dpkg for the files of the package and adds up their sizes.
func (p *debPackage) findFiles() error {
	out, err := exec.Command("dpkg-query", "-L", p.name).Output()
	if err != nil {
		return fmt.Errorf("list the files of Debian package %s: %w", p.name, err)
	}
	p.size = 0
	for line := range strings.Lines(string(out)) {
		// Other lines are remarks about diversions.
		if line = strings.TrimSuffix(line, "\n"); strings.HasPrefix(line, "/") && line != "/." {
			p.files = append(p.files, line)
			if st, err := os.Lstat(line); err == nil && st.Mode().IsRegular() {
				p.size += st.Size()
			}
		}
	}
	return nil
}

// writeNar writes the files of a package as one NAR, their directories
// included, as if they were a store path. What is listed and not there (an
// image without documentation, say), and what this user may not read, is left
// out.
func writeNar(w io.Writer, files []string) error {
	inner := map[string]bool{}
	for _, name := range files {
		for dir := path.Dir(name); dir != "/"; dir = path.Dir(dir) {
			inner[dir] = true
		}
	}
	sorted := slices.Clone(files)
	for dir := range inner {
		sorted = append(sorted, dir)
	}
	// NAR's order is by name in each directory: '/' sorts before everything.
	slices.SortFunc(sorted, func(a, b string) int {
		return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
	})
	out := newNarWriter(w)
	if err := out.add(&nar.Entry{Type: nar.Directory}, nil); err != nil {
		return err
	}
	for _, name := range slices.Compact(sorted) {
		if err := writeFile(out, name, inner[name]); err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
	}
	return out.close()
}

// writeFile writes one entry; inner says that others come below it.
func writeFile(out *narWriter, name string, inner bool) error {
	e := nar.Entry{Path: name[1:], Type: nar.Directory}
	if inner { // even where the system has a link, as /bin -> usr/bin
		return out.add(&e, nil)
	}
	st, err := os.Lstat(name)
	if err != nil {
		return leaveOut(err)
	}
	switch {
	case st.IsDir():
	case st.Mode()&fs.ModeSymlink != 0:
		e.Type = nar.Symlink
		if e.Target, err = os.Readlink(name); err != nil {
			return leaveOut(err)
		}
	case st.Mode().IsRegular():
		f, err := os.Open(name)
		if err != nil {
			return leaveOut(err)
		}
		defer f.Close()
		e.Type, e.Executable, e.Size = nar.Regular, st.Mode()&0o100 != 0, st.Size()
		return out.add(&e, io.LimitReader(f, e.Size))
	default:
		return nil
	}
	return out.add(&e, nil)
}

// leaveOut takes a file that is not there, or not ours to read, for none.
func leaveOut(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	return err
}
