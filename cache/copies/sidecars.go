package copies

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"narwharf/narinfo"
)

// Besides is a source that can tell what lies beside its paths: build logs, listings,
// where debug information is, and the outputs of content-addressed derivations. Over HTTP
// nobody can list them.
type Besides interface {
	// Beside lists the files that are about a path.
	Beside(info *narinfo.Info) ([]string, error)
	// Sidecar opens one of them.
	Sidecar(name string) (io.ReadCloser, error)
}

// maxSidecar bounds one in bytes; caches take no larger log.
const maxSidecar = 512 << 20

// sendSidecars copies what lies beside a path before its narinfo, which is is in the target
// and was in the source. One that cannot be had, or is refused, keeps no path.
func (r *run) sendSidecars(ctx context.Context, was, is *narinfo.Info) error {
	from, ok := r.From.(Besides)
	if !ok {
		return nil
	}
	names, err := from.Beside(was)
	if err != nil {
		return err
	}
	for _, name := range names {
		err := r.sendSidecar(ctx, from, name, was, is)
		var refused *Refused
		var bad *pathError
		switch {
		case errors.As(err, &refused) || errors.As(err, &bad):
			r.fail(Failure{name, err.Error()})
		case err != nil:
			return err
		}
	}
	return nil
}

func (r *run) sendSidecar(ctx context.Context, from Besides, name string, was, is *narinfo.Info) error {
	in, err := from.Sidecar(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was collected meanwhile
	}
	if err != nil {
		return &pathError{err}
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, maxSidecar+1))
	if err == nil && len(text) > maxSidecar {
		err = fmt.Errorf("it has more than %d bytes", maxSidecar)
	}
	if err != nil {
		return &pathError{fmt.Errorf("read %s: %w", name, err)}
	}
	if strings.HasPrefix(name, "debuginfo/") {
		text = bytes.Replace(text, []byte(`"../`+was.URL+`"`), []byte(`"../`+is.URL+`"`), 1)
	}
	return r.To.PutSidecar(ctx, name, text)
}

// Beside and Sidecar implement Besides for those sources that do.
func (c Chain) Beside(info *narinfo.Info) (names []string, err error) {
	for _, s := range c {
		if b, ok := s.(Besides); ok && err == nil {
			var more []string
			more, err = b.Beside(info)
			names = append(names, more...)
		}
	}
	return names, err
}

// Sidecar opens that of the first that has it.
func (c Chain) Sidecar(name string) (io.ReadCloser, error) {
	for _, s := range c {
		if b, ok := s.(Besides); ok {
			if in, err := b.Sidecar(name); !errors.Is(err, fs.ErrNotExist) {
				return in, err
			}
		}
	}
	return nil, fs.ErrNotExist
}

// sidecars finds those of a folder that say themselves what they are about.
type sidecars struct {
	once  sync.Once
	err   error
	about map[string][]string // by the base name of an output, or the URL of a NAR
}

// Beside implements Besides.
func (f *Folder) Beside(info *narinfo.Info) ([]string, error) {
	f.beside.once.Do(func() { f.beside.about, f.beside.err = f.listSidecars() })
	if f.beside.err != nil {
		return nil, f.beside.err
	}
	names := slices.Concat(f.beside.about[string(info.Path)], f.beside.about[info.URL])
	named := []string{info.Path.Hash() + ".ls"}
	if info.Deriver != "" {
		named = append(named, "log/"+string(info.Deriver))
	}
	for _, name := range named {
		if st, err := os.Stat(filepath.Join(f.dir, name)); err == nil && st.Mode().IsRegular() {
			names = append(names, name)
		}
	}
	return names, nil
}

// Sidecar implements Besides.
func (f *Folder) Sidecar(name string) (io.ReadCloser, error) {
	return os.Open(filepath.Join(f.dir, filepath.FromSlash(name)))
}

// listSidecars reads those whose name does not say what they are about. What cannot be
// understood is about nothing.
func (f *Folder) listSidecars() (about map[string][]string, err error) {
	about = make(map[string][]string)
	for _, pattern := range []string{"realisations/*.doi", "build-trace-v2/*/*.doi", "debuginfo/*"} {
		files, err := filepath.Glob(filepath.Join(f.dir, pattern))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			text, err := readSmall(file)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			var is struct{ OutPath, Archive string }
			name, nameErr := filepath.Rel(f.dir, file)
			if json.Unmarshal(text, &is) != nil || nameErr != nil {
				continue
			}
			if key := is.OutPath + strings.TrimPrefix(is.Archive, "../"); key != "" {
				about[key] = append(about[key], filepath.ToSlash(name))
			}
		}
	}
	return about, nil
}

// readSmall reads a file that is to be JSON of at most 1 MiB; of a larger one it reads a part.
func readSmall(name string) ([]byte, error) {
	in, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return io.ReadAll(io.LimitReader(in, 1<<20))
}
