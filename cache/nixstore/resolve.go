package nixstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"narwharf/narinfo"
)

// maxLinks is as many symbolic links as Linux follows in one path.
const maxLinks = 40

// Resolve turns what a person types into a store path: a store path, something
// below one, or whatever leads to one by symbolic links, such as ./result or
// /run/current-system/sw/bin. rest is what follows the store path, without a
// slash in front; links inside the store are not followed. Nothing is asked of
// Nix: the path may not be valid. The error wraps ErrNotValid if arg exists
// elsewhere than in the store.
//
// Nix itself (Store::followLinksToStore in src/libstore/store-api.cc) only
// follows the last component.
func (s *Store) Resolve(arg string) (p narinfo.Path, rest string, err error) {
	if arg == "" {
		return "", "", errors.New("an empty string is no path")
	}
	full := arg
	if !filepath.IsAbs(full) {
		dir, err := os.Getwd()
		if err != nil {
			return "", "", fmt.Errorf("resolve %s: %w", arg, err)
		}
		full = dir + "/" + full // not cleaned: a/.. is elsewhere if a is a link
	}
	done, todo := "", parts(full)
	for links := 0; ; {
		if inStore := s.below(done, todo); inStore != "" {
			return namedIn(arg, inStore)
		}
		if len(todo) == 0 {
			return "", "", fmt.Errorf("%s %w; build it here or use --from-cache", arg, ErrNotValid)
		}
		next := todo[0]
		todo = todo[1:]
		if next == ".." {
			done = strings.TrimSuffix(path.Dir("/"+done), "/")
			continue
		}
		here := done + "/" + next
		target, err := os.Readlink(here)
		switch {
		case err == nil:
			if links++; links > maxLinks {
				return "", "", fmt.Errorf("%s leads through more than %d symbolic links", arg, maxLinks)
			}
			if filepath.IsAbs(target) {
				done = ""
			}
			todo = append(parts(target), todo...)
		case errors.Is(err, fs.ErrNotExist):
			return "", "", fmt.Errorf("%s does not exist (there is no %s)", arg, here)
		case errors.Is(err, syscall.EINVAL):
			done = here
		default:
			return "", "", fmt.Errorf("resolve %s: %w", arg, err)
		}
	}
}

// namedIn parts what follows the store directory into a store path and the rest.
func namedIn(arg, inStore string) (p narinfo.Path, rest string, err error) {
	base, rest, _ := strings.Cut(strings.TrimPrefix(path.Clean("/"+inStore), "/"), "/")
	if base == "" {
		return "", "", fmt.Errorf("%s is the store itself; name a path in it", arg)
	}
	if p, err = narinfo.ParseBase(base); err != nil {
		return "", "", fmt.Errorf("%s leads to what is no store path: %w", arg, err)
	}
	return p, rest, nil
}

// below is what follows the store directory in done and todo together, or
// empty if they do not lead into it.
func (s *Store) below(done string, todo []string) string {
	all := done + "/" + strings.Join(todo, "/")
	for _, dir := range s.storeDirs() {
		if in, ok := strings.CutPrefix(all, dir+"/"); ok && in != "" && in != ".." && !strings.HasPrefix(in, "../") {
			return in
		}
	}
	return ""
}

// storeDirs are the names under which the store can be met: the logical one,
// where it lies, and where that is without symbolic links.
func (s *Store) storeDirs() []string {
	s.physicalOnce.Do(func() { s.physical, _ = filepath.EvalSymlinks(s.root + s.storeDir) })
	dirs := []string{s.storeDir}
	for _, d := range []string{s.root + s.storeDir, s.physical} {
		if d != "" && d != dirs[len(dirs)-1] {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

// parts are the components of a path without those that mean nothing.
func parts(p string) []string {
	return slices.DeleteFunc(strings.Split(p, "/"), func(c string) bool { return c == "" || c == "." })
}
