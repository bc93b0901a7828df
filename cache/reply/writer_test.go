package reply

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// sink is a ResponseWriter that notes how bytes come to it.
type sink struct {
	header  http.Header
	written int64
	froms   []int64 // bytes of each ReadFrom
	bare    int     // ReadFroms that were given an *os.File within limits
	limits  []time.Time
	fail    error
}

func (s *sink) Header() http.Header { return s.header }
func (s *sink) WriteHeader(int)     {}
func (s *sink) Write(p []byte) (int, error) {
	s.written += int64(len(p))
	return len(p), s.fail
}

func (s *sink) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok {
		if _, ok := l.R.(*os.File); ok {
			s.bare++
		}
	}
	n, err := io.Copy(io.Discard, r)
	s.froms = append(s.froms, n)
	if err == nil {
		err = s.fail
	}
	return n, err
}

func (s *sink) SetWriteDeadline(t time.Time) error {
	s.limits = append(s.limits, t)
	return nil
}

func over(w http.ResponseWriter) *Writer {
	return NewWriter(w, httptest.NewRequest(http.MethodGet, "/", http.NoBody), time.Minute)
}

func fileOf(t *testing.T, size int) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(bytes.Repeat([]byte("x"), size)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	return f
}

// sendfile(2) is reached only by a ReadFrom that gets the bare file.
func TestResponseReadFrom(t *testing.T) {
	const size = 3*writeStep + 5
	for name, c := range map[string]struct {
		limit, want int64
		steps       int
	}{
		"no limit":        {-1, size, 4},
		"a limit":         {size - 1, size - 1, 4},
		"whole steps":     {2 * writeStep, 2 * writeStep, 2},
		"less than one":   {10, 10, 1},
		"nothing":         {0, 0, 0},
		"beyond the file": {2 * size, size, 4},
	} {
		t.Run(name, func(t *testing.T) {
			s := &sink{header: http.Header{}}
			w := over(s)
			var src io.Reader = fileOf(t, size)
			lr := &io.LimitedReader{R: src, N: c.limit}
			if c.limit >= 0 {
				src = lr
			}
			n, err := w.ReadFrom(src)
			if n != c.want || err != nil || w.Bytes != c.want {
				t.Errorf("%d bytes, %v, counted %d; want %d", n, err, w.Bytes, c.want)
			}
			if len(s.froms) != c.steps || s.bare != c.steps {
				t.Errorf("%d steps (%d with the bare file), want %d", len(s.froms), s.bare, c.steps)
			}
			if len(s.limits) != c.steps {
				t.Errorf("%d deadlines, want one a step", len(s.limits))
			}
			if c.limit >= 0 && lr.N != c.limit-c.want {
				t.Errorf("the caller's reader has %d left, want %d", lr.N, c.limit-c.want)
			}
			if w.End(); len(s.limits) != c.steps+1 {
				t.Error("what net/http sends afterwards has no deadline")
			}
		})
	}
	s := &sink{header: http.Header{}, fail: errors.New("gone")}
	if n, err := over(s).ReadFrom(fileOf(t, size)); !errors.Is(err, s.fail) || n != writeStep {
		t.Errorf("a failing step: %d, %v", n, err)
	}
	// A writer without ReadFrom gets the bytes all the same.
	plain := httptest.NewRecorder()
	if n, err := over(struct{ http.ResponseWriter }{plain}).ReadFrom(fileOf(t, size)); n != size || err != nil || plain.Body.Len() != size {
		t.Errorf("without ReadFrom: %d, %v", n, err)
	}
}

// Many small writes block as one large one does.
func TestResponseArms(t *testing.T) {
	s := &sink{header: http.Header{}}
	w := over(s)
	for range writeSmall / 1024 {
		_, _ = w.Write(make([]byte, 1024))
	}
	if len(s.limits) != 0 {
		t.Error("a small reply has a deadline")
	}
	_, _ = w.Write(make([]byte, 1))
	_, _ = w.Write(make([]byte, 1))
	if len(s.limits) != 2 {
		t.Errorf("%d deadlines for two writes above writeSmall", len(s.limits))
	}
	if w.Bytes != writeSmall+2 {
		t.Errorf("counted %d", w.Bytes)
	}
}
