package retention

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"narwharf/cache/blob"
)

// memFiles is a blob.Store in memory. What has a name outlives a crash.
type memFiles struct {
	mu    sync.Mutex
	files map[string]memFile
	// write does a write, or fails before or after it.
	write func(do func() error) error
}

type memFile struct {
	data     []byte
	modified time.Time
}

func newMemFiles() *memFiles {
	return &memFiles{files: make(map[string]memFile), write: func(do func() error) error { return do() }}
}

type memWriter struct {
	s    *memFiles
	name string
	data []byte
	done bool
}

func (w *memWriter) Write(p []byte) (int, error) {
	w.data = append(w.data, p...)
	return len(p), nil
}

func (w *memWriter) Prepare() error { return nil }
func (w *memWriter) Abort()         { w.done = true }
func (w *memWriter) Commit() error  { return w.Publish() }

func (w *memWriter) Publish() error {
	if w.done {
		return nil
	}
	return w.s.write(func() error {
		w.s.mu.Lock()
		defer w.s.mu.Unlock()
		w.s.files[w.name], w.done = memFile{w.data, time.Now()}, true
		return nil
	})
}

func (s *memFiles) Create(name string, _ int64) (blob.Writer, error) {
	return &memWriter{s: s, name: name}, nil
}

func (s *memFiles) get(name string) (memFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.files[name]
	if !ok {
		return f, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return f, nil
}

func (s *memFiles) Open(name string) (*blob.File, error) {
	f, err := s.get(name)
	if err != nil {
		return nil, err
	}
	return &blob.File{Info: f.info(name), Content: reader{bytes.NewReader(f.data)}}, nil
}

type reader struct{ *bytes.Reader }

func (reader) Close() error { return nil }

func (f memFile) info(name string) blob.Info {
	return blob.Info{Name: name, Size: int64(len(f.data)), ModTime: f.modified}
}

func (s *memFiles) Stat(name string) (blob.Info, error) {
	f, err := s.get(name)
	return f.info(name), err
}

func (s *memFiles) Remove(names ...string) error {
	for _, name := range names {
		err := s.write(func() error {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.files, name)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// in returns the names in and below a folder.
func (s *memFiles) in(dir string) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.files {
		if dir == "" || strings.HasPrefix(name, dir+"/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (s *memFiles) List(dir string, fn func(blob.Info) error) error {
	for _, name := range s.in(dir) {
		if in := path.Dir(name); in != dir && (in != "." || dir != "") {
			continue
		}
		st, err := s.Stat(name)
		if err != nil {
			continue
		}
		if err := fn(st); err != nil {
			return err
		}
	}
	return nil
}

func (s *memFiles) Folders(dir string) (folders []string, err error) {
	for _, name := range s.in(dir) {
		if rest := strings.TrimPrefix(strings.TrimPrefix(name, dir), "/"); strings.Contains(rest, "/") {
			first, _, _ := strings.Cut(rest, "/")
			folders = append(folders, first)
		}
	}
	return slices.Compact(folders), nil
}
