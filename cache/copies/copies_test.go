package copies

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"narwharf/cache/blob"
	"narwharf/narinfo"
)

// memory is a cache in memory: a Source, and a Target as strict as a server.
type memory struct {
	mu     sync.Mutex
	infos  map[string]*narinfo.Info // by hash part
	nars   map[string][]byte        // by URL
	beside map[string]string        // sidecars
	steps  int                      // that it still makes; below 0: as many as one likes
}

func newMemory() *memory {
	return &memory{infos: map[string]*narinfo.Info{}, nars: map[string][]byte{}, beside: map[string]string{}, steps: -1}
}

var errKilled = errors.New("killed")

func (m *memory) step() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.steps == 0 {
		return errKilled
	}
	m.steps--
	return nil
}

func (m *memory) Info(_ context.Context, hash string) (*narinfo.Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := m.infos[hash]; i != nil {
		return i, nil
	}
	return nil, fs.ErrNotExist
}

func (m *memory) NAR(_ context.Context, info *narinfo.Info) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	nar, ok := m.nars[info.URL]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(nar)), nil
}

func (m *memory) has(ctx context.Context, hash string) (bool, error) {
	_, err := m.Info(ctx, hash)
	return err == nil, m.step()
}

func (m *memory) Has(ctx context.Context, info *narinfo.Info) (bool, error) {
	return m.has(ctx, info.Path.Hash())
}

func (m *memory) HasNAR(_ context.Context, name string, size int64) (bool, error) {
	m.mu.Lock()
	nar, ok := m.nars[name]
	m.mu.Unlock()
	return ok && int64(len(nar)) == size, m.step()
}

func (m *memory) PutNAR(_ context.Context, name string, size int64, body func() (io.ReadCloser, error)) error {
	if err := m.step(); err != nil {
		return err
	}
	in, err := body()
	if err != nil {
		return err
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if int64(len(text)) != size || !strings.HasPrefix(name, "nar/"+narinfo.Hash(sha256.Sum256(text)).Base32()) {
		return fmt.Errorf("%s has other bytes", name)
	}
	m.mu.Lock()
	m.nars[name] = text
	m.mu.Unlock()
	return m.step()
}

func (m *memory) PutSidecar(_ context.Context, name string, text []byte) error {
	if err := m.step(); err != nil {
		return err
	}
	if bytes.HasPrefix(text, []byte("bad")) {
		return &Refused{"it is bad"}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.beside[name] = string(text)
	return nil
}

func (m *memory) PutInfo(_ context.Context, info *narinfo.Info) error {
	if err := m.step(); err != nil {
		return err
	}
	m.mu.Lock()
	if m.nars[info.URL] == nil {
		m.mu.Unlock()
		return &Refused{"the NAR is missing"}
	}
	for _, ref := range info.References {
		if ref != info.Path && m.infos[ref.Hash()] == nil {
			m.mu.Unlock()
			return &Refused{"a reference is missing: " + string(ref)}
		}
	}
	m.infos[info.Path.Hash()] = info
	m.mu.Unlock()
	return m.step()
}

// path adds a path to a source. Its NAR is not one, which no target here looks at.
func (m *memory) path(name, content, compression string, refs ...narinfo.Path) narinfo.Path {
	sum := narinfo.Hash(sha256.Sum256([]byte(content)))
	p := narinfo.Path(narinfo.Hash(sha256.Sum256([]byte(name))).Base32()[:32] + "-" + name)
	info := &narinfo.Info{
		StoreDir: "/nix/store", Path: p, URL: "nar/" + sum.Base32() + ".nar.zst", Compression: compression,
		FileHash: sum, FileSize: int64(len(content)), NarHash: sum, NarSize: int64(len(content)), References: refs,
	}
	if compression == "none" {
		info.URL, info.FileHash, info.FileSize = "nar/"+name+".nar", narinfo.Hash{}, 0
	}
	m.infos[p.Hash()] = info
	m.nars[info.URL] = []byte(content)
	return p
}

// forest is a source of n paths with random references.
func forest(seed uint64, n int) (*memory, []string) {
	r := rand.New(rand.NewPCG(seed, 1))
	m := newMemory()
	var paths []narinfo.Path
	var hashes []string
	for i := range n {
		var refs []narinfo.Path
		for range min(i, r.IntN(4)) {
			if ref := paths[r.IntN(i)]; !strings.Contains(fmt.Sprint(refs), string(ref)) {
				refs = append(refs, ref)
			}
		}
		p := m.path(fmt.Sprintf("p%d", i), fmt.Sprintf("content %d of %d", i%7, seed), []string{"zstd", "none"}[r.IntN(2)], refs...)
		if r.IntN(4) == 0 {
			m.infos[p.Hash()].References = append(m.infos[p.Hash()].References, p)
		}
		paths, hashes = append(paths, p), append(hashes, p.Hash())
	}
	return m, hashes
}

func importAll(t *testing.T, from, to *memory, roots []string) (Result, error) {
	t.Helper()
	infos, there, failed, err := Closure(t.Context(), from, roots, to.has, 4)
	if err != nil {
		return Result{}, err
	}
	c := &Copy{From: from, To: to, Temp: t.TempDir(), Pack: true, Jobs: 4, Verb: "imported"}
	r, err := c.Run(t.Context(), infos)
	r.There += there
	r.Failed = append(failed, r.Failed...)
	return r, err
}

// An import that is killed anywhere goes on, and ends as one that was not.
func TestImportKilledAnywhere(t *testing.T) {
	for seed := range uint64(4) {
		from, roots := forest(seed, 25)
		whole := newMemory()
		if r, err := importAll(t, from, whole, roots); err != nil || r.Copied != 25 || len(r.Failed) > 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		for step := 0; ; step += 1 + step/9 {
			to := newMemory()
			to.steps = step
			_, err := importAll(t, from, to, roots)
			killed := errors.Is(err, errKilled)
			if err != nil && !killed {
				t.Fatal(err)
			}
			to.steps = -1
			r, err := importAll(t, from, to, roots)
			if err != nil || r.Copied+r.There != 25 || len(r.Failed) > 0 {
				t.Fatalf("step %d: %+v, %v", step, r, err)
			}
			if !maps.EqualFunc(to.infos, whole.infos, func(a, b *narinfo.Info) bool { return string(a.Append(nil)) == string(b.Append(nil)) }) || !maps.EqualFunc(to.nars, whole.nars, bytes.Equal) {
				t.Fatalf("step %d: another end", step)
			}
			if !killed {
				break
			}
		}
	}
}

// checkFolder fails unless each narinfo's NAR and references are there.
func checkFolder(t *testing.T, dir string) (paths int) {
	t.Helper()
	f := &Folder{dir: dir}
	hashes, err := f.Hashes()
	if err != nil {
		t.Fatal(err)
	}
	for _, hash := range hashes {
		info, err := f.Info(t.Context(), hash)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, info.URL))
		if err != nil || narinfo.Hash(sha256.Sum256(text)) != info.FileHash {
			t.Fatalf("the NAR of %s: %v", info.Path, err)
		}
		for _, ref := range info.References {
			if _, err := os.Stat(filepath.Join(dir, ref.Hash()+".narinfo")); err != nil {
				t.Fatalf("%s refers to %s: %v", info.Path, ref, err)
			}
		}
	}
	return len(hashes)
}

// An export that is killed at any step on the disk leaves a folder of whole closures, and
// goes on.
func TestExportKilledAnywhere(t *testing.T) {
	from, roots := forest(9, 12)
	infos, _, _, err := Closure(t.Context(), from, roots, newMemory().has, 4)
	if err != nil {
		t.Fatal(err)
	}
	export := func(dir string, steps int) error {
		store, err := blob.NewFS(dir, filepath.Join(dir, work))
		if err != nil {
			return err
		}
		var mu sync.Mutex
		store.Fault = func(op, _ string) error {
			mu.Lock()
			defer mu.Unlock()
			if steps == 0 {
				return errKilled
			}
			steps--
			return nil
		}
		to, err := NewFiles(store, "/nix/store", func() {})
		if err != nil {
			return err
		}
		c := &Copy{From: from, To: to, Temp: t.TempDir(), Pack: true, Jobs: 3, Verb: "exported"}
		r, err := c.Run(t.Context(), infos)
		if err == nil && len(r.Failed) > 0 {
			err = fmt.Errorf("%+v", r.Failed)
		}
		return err
	}
	for step := 0; ; step += 1 + step/40 {
		dir := t.TempDir()
		err := export(dir, step)
		if err != nil && !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		checkFolder(t, dir)
		if export(dir, -1) != nil || checkFolder(t, dir) != 12 {
			t.Fatalf("step %d: it does not go on", step)
		}
		if err == nil {
			break
		}
	}
}

// What cannot be read, and what refers to it, is named and left out; the rest is copied.
func TestLeftOut(t *testing.T) {
	from, to := newMemory(), newMemory()
	lib := from.path("lib", "lib", "zstd")
	app := from.path("app", "app", "zstd", lib)
	lies := from.path("lies", "lies", "zstd")
	from.nars[from.infos[lies.Hash()].URL] = []byte("LIES")
	plain := from.path("plain", "plain", "none")
	from.nars[from.infos[plain.Hash()].URL] = []byte("other")
	above := from.path("above", "above", "zstd", lies)
	ghost := narinfo.Path(strings.Repeat("0", 32) + "-ghost")
	haunted := from.path("haunted", "haunted", "zstd", ghost)
	circle := from.path("circle", "circle", "zstd", "11111111111111111111111111111111-no")
	from.infos[circle.Hash()].References = []narinfo.Path{circle, app}
	r, err := importAll(t, from, to, []string{app.Hash(), above.Hash(), plain.Hash(), haunted.Hash(), circle.Hash()})
	if err != nil || r.Copied != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	text := fmt.Sprint(r.Failed)
	for _, want := range []string{
		"{/nix/store/" + string(ghost) + " the source has no such path}",
		string(lies) + " read nar/", "it is not what its narinfo says: its SHA-256 is",
		string(above) + " /nix/store/" + string(lies) + ", which it refers to, is not copied",
		string(plain) + " read nar/plain.nar: the store path is not what its nar hash says",
		string(haunted) + " a reference is missing",
	} {
		if !strings.Contains(strings.ReplaceAll(text, "the file is not", "it is not"), want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if len(r.Failed) != 5 {
		t.Errorf("%s", text)
	}
}

// A chain takes from the next what the first lacks, and Trusted only what is signed.
func TestChain(t *testing.T) {
	mine, nixos, to := newMemory(), newMemory(), newMemory()
	glibc := nixos.path("glibc", "glibc", "zstd")
	app := mine.path("app", "app", "zstd", glibc)
	infos, _, failed, err := Closure(t.Context(), Chain{mine, nixos}, []string{app.Hash()}, to.has, 0)
	if err != nil || len(failed) > 0 || len(infos) != 2 {
		t.Fatal(infos, failed, err)
	}
	c := &Copy{From: Chain{mine, nixos}, To: to, Temp: t.TempDir()}
	if r, err := c.Run(t.Context(), infos); err != nil || r.Copied != 2 {
		t.Fatal(r, err)
	}
	if _, err := (Trusted{Source: mine}).Info(t.Context(), app.Hash()); err == nil || !strings.Contains(err.Error(), "none of the trusted keys") {
		t.Error(err)
	}
}
