package upload_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/index"
	"narwharf/cache/nar"
	"narwharf/cache/refusal"
	"narwharf/cache/root"
	"narwharf/cache/state"
	"narwharf/cache/state/memory"
	"narwharf/cache/state/statetest"
	"narwharf/cache/upload"
	"narwharf/cache/upload/fsck"
	"narwharf/cache/upload/recovery"
	"narwharf/narinfo"
)

var errKilled = errors.New("the process was killed")

// killer ends a process after so many writes, of the state and of files: what it does
// then has no effect any more.
type killer struct {
	mu   sync.Mutex
	left int // -1: never
	dead bool
}

func (k *killer) step() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.left == 0 {
		k.dead = true
	}
	k.left--
	if k.dead {
		return errKilled
	}
	return nil
}

// killable is a state that others share, as a process has it.
type killable struct {
	state.Store
	*killer
}

func (s killable) View(ctx context.Context, fn func(tx state.Reader) error) error {
	s.mu.Lock()
	dead := s.dead
	s.mu.Unlock()
	if dead {
		return errKilled
	}
	return s.Store.View(ctx, fn)
}

func (s killable) Scan(ctx context.Context, bucket string, r state.Range, fn func(page []state.Entry) error) error {
	return state.Pages(ctx, s, bucket, r, fn)
}

// Update may be killed before it is made, within it, or after.
func (s killable) Update(ctx context.Context, locks []string, fn func(tx state.Tx) error) error {
	if err := s.step(); err != nil {
		return err
	}
	if err := s.Store.Update(ctx, locks, fn); err != nil {
		return err
	}
	return s.step()
}

const (
	modelLease = 24 * time.Hour
	modelGrace = 24 * time.Hour // of NARs
)

// model is a cache, and what its users were told.
type model struct {
	t     *testing.T
	r     *rand.Rand
	dir   string
	ahead time.Duration
	state state.Store
	s     *upload.Store
	kill  *killer
	paths []*modelPath
	story []string

	used    map[narinfo.Path]time.Time // when somebody was told last that a path is here
	claimed map[string]time.Time       // and a NAR file
	rooted  map[narinfo.Path]bool      // roots that were here when they were made
}

type modelPath struct {
	info     *narinfo.Info
	variants [2][]byte // its NAR plain and in gzip
	refs     []*modelPath
}

func newModel(t *testing.T, seed uint64) *model {
	dir, err := os.MkdirTemp("/dev/shm", "narwharf-test-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m := &model{t: t, r: rand.New(rand.NewPCG(seed, 1)), dir: dir, used: map[narinfo.Path]time.Time{}, claimed: map[string]time.Time{}, rooted: map[narinfo.Path]bool{}}
	m.state = statetest.Twice(memory.New(m.now))
	for i := range 20 {
		var text []byte
		for _, w := range []string{"nix-archive-1", "(", "type", "regular", "contents", fmt.Sprint("content ", i%7), ")"} {
			text = nar.AppendString(text, w)
		}
		name := fmt.Sprint("p", i)
		hash := narinfo.Hash(sha256.Sum256([]byte(name)))
		p := &modelPath{info: &narinfo.Info{StoreDir: "/nix/store", Path: narinfo.Path(hash.Base32()[20:] + "-" + name), NarHash: sha256.Sum256(text), NarSize: int64(len(text))}}
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, _ = z.Write(text)
		_ = z.Close()
		p.variants = [2][]byte{text, packed.Bytes()}
		for range m.r.IntN(4) {
			if i > 0 {
				p.refs = append(p.refs, m.paths[m.r.IntN(i)])
			}
		}
		for _, ref := range p.refs {
			p.info.References = append(p.info.References, ref.info.Path)
		}
		slices.Sort(p.info.References)
		p.info.References = slices.Compact(p.info.References)
		m.paths = append(m.paths, p)
	}
	m.open()
	return m
}

func (m *model) now() time.Time { return time.Now().Add(m.ahead) }

// open starts a process over what is there.
func (m *model) open() {
	m.t.Helper()
	m.kill = &killer{left: -1}
	files, err := blob.NewFS(filepath.Join(m.dir, "cache"), filepath.Join(m.dir, "tmp"))
	if err == nil {
		err = files.Clean()
	}
	var idx *index.Table
	if err == nil {
		idx, err = index.Open(killable{m.state, m.kill}, index.Options{Lease: modelLease})
	}
	if err == nil {
		m.s, err = upload.New(files, idx, upload.Options{StoreDir: "/nix/store", MaxNarSize: 1 << 20, NarGrace: modelGrace}, slog.New(slog.DiscardHandler))
	}
	if err == nil {
		_, _, err = recovery.Recover(m.s)
	}
	if err == nil {
		err = recovery.Check(context.Background(), m.s, time.Time{})
	}
	if err != nil {
		m.t.Fatal(err)
	}
	files.Fault = func(string, string) error { return m.kill.step() }
}

// variant is the narinfo of a path with one of its NAR files.
func (p *modelPath) variant(v int) (*narinfo.Info, []byte) {
	i, body := p.info.Clone(), p.variants[v]
	i.FileHash, i.FileSize = sha256.Sum256(body), int64(len(body))
	i.URL, i.Compression = "nar/"+i.FileHash.Base32()+".nar", "none"
	if v == 1 {
		i.URL, i.Compression = i.URL+".gz", "gzip"
	}
	return i, body
}

// told notes what an answer has promised.
func (m *model) told(p narinfo.Path) { m.used[p] = m.now() }

func (m *model) random() *modelPath { return m.paths[m.r.IntN(len(m.paths))] }

// upload sends a path, and what it refers to before it, as Nix does: what is here it skips.
func (m *model) upload(p *modelPath) error {
	if gone, err := m.s.Index.Use(context.Background(), []string{p.info.Path.Hash()}); err != nil {
		return err
	} else if len(gone) == 0 {
		m.told(p.info.Path)
		return nil
	}
	for _, ref := range p.refs {
		if err := m.upload(ref); err != nil {
			return err
		}
	}
	return m.put(p)
}

func (m *model) put(p *modelPath) error {
	i, body := p.variant(m.r.IntN(2))
	there := false
	if m.r.IntN(2) == 0 {
		_, err := m.s.Claim(strings.TrimPrefix(i.URL, "nar/"))
		if there = err == nil; m.kill.dead {
			return err
		}
	}
	if !there {
		if err := m.s.PutNar(strings.TrimPrefix(i.URL, "nar/"), bytes.NewReader(body), int64(len(body))); err != nil {
			return err
		}
	}
	if there {
		m.claimed[i.URL] = m.now()
	}
	err := m.s.PutInfo(p.info.Path.Hash(), i, "ci")
	if m.s.Rest(); !m.kill.dead { // else a NAR that was sent may be forgotten
		m.claimed[i.URL] = m.now()
	}
	if err == nil {
		m.told(p.info.Path)
	}
	return err
}

// collect offers random paths, referrers first.
func (m *model) collect(all bool) error {
	var batch []string
	for _, p := range slices.Backward(m.paths) {
		if all || m.r.IntN(3) > 0 {
			batch = append(batch, p.info.Path.Hash())
		}
	}
	gone, err := m.s.Collect(context.Background(), batch, nil)
	for _, g := range gone {
		if at, was := m.used[g.Path]; was && m.now().Sub(at) <= modelLease {
			m.t.Errorf("%s was collected within its lease", g.Path)
		}
	}
	return err
}

func (m *model) root(p *modelPath, set bool) error {
	var paths []narinfo.Path
	if set {
		paths = []narinfo.Path{p.info.Path}
	}
	owner := "pin:" + p.info.Path.Name()
	here := false
	err := m.state.Update(context.Background(), root.Locks([]narinfo.Path{p.info.Path}), func(tx state.Tx) error {
		v, err := tx.Get("index/1/path", p.info.Path.Hash())
		here = v != nil
		if err != nil {
			return err
		}
		return root.Set(tx, owner, paths)
	})
	delete(m.rooted, p.info.Path)
	if set && here {
		m.rooted[p.info.Path] = true
	}
	return err
}

// step does one thing. What a path refers to may be missing, and is refused then.
func (m *model) step() error {
	p := m.random()
	note := func(format string, args ...any) { m.story = append(m.story, fmt.Sprintf(format, args...)) }
	switch n := m.r.IntN(20); {
	case n < 6:
		note("upload %s", p.info.Path.Name())
		return m.upload(p)
	case n < 8:
		note("put %s", p.info.Path.Name())
		return m.put(p)
	case n < 9:
		note("look %s up", p.info.Path.Name())
		gone, err := m.s.Index.Use(context.Background(), []string{p.info.Path.Hash()})
		if err == nil && len(gone) == 0 {
			m.told(p.info.Path)
		}
		return err
	case n < 11:
		hours := time.Duration(m.r.IntN(40))
		note("%d hours", hours)
		m.ahead += hours * time.Hour
		return nil
	case n < 12:
		set := m.r.IntN(2) == 0
		note("root %s %v", p.info.Path.Name(), set)
		return m.root(p, set)
	case n < 16:
		note("collect")
		return m.collect(false)
	case n < 17:
		note("keep")
		return m.s.Keep()
	default:
		note("sweep")
		_, _, err := m.s.Sweep(m.now())
		return err
	}
}

// filesAlone holds the files of a process that was killed to what a Nix expects that reads
// them: no path is there without its NAR and what it refers to.
func (m *model) filesAlone() {
	m.t.Helper()
	stat := func(name string) error {
		_, err := os.Stat(filepath.Join(m.dir, "cache", name))
		return err
	}
	names, err := filepath.Glob(filepath.Join(m.dir, "cache", "*.narinfo"))
	if err != nil {
		m.t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			m.t.Fatal(err)
		}
		info, err := narinfo.Parse(text)
		if err != nil {
			m.t.Fatal(err)
		}
		err = stat(info.URL)
		for _, ref := range info.References {
			err = errors.Join(err, stat(ref.Hash()+".narinfo"))
		}
		if err != nil {
			m.t.Errorf("the file of %s is there: %v", info.Path, err)
		}
	}
}

// check holds the cache to what was promised, and to itself.
func (m *model) check() {
	m.t.Helper()
	here := map[narinfo.Path]bool{}
	err := m.s.Index.Each(func(_ string, r *index.Record, err error) error {
		if err == nil {
			here[r.Info.Path] = true
			_, err = m.s.Files.Stat(r.Info.URL)
		}
		if err == nil {
			var text []byte
			text, err = blob.ReadFile(m.s.Files, r.Info.Path.Hash()+".narinfo", upload.MaxNarinfo)
			if !bytes.Equal(text, r.Info.Append(nil)) {
				m.t.Errorf("%s: the file differs from the index: %v", r.Info.Path, err)
			}
		}
		return err
	})
	if err != nil {
		m.t.Error(err)
	}
	for _, p := range m.paths {
		for _, ref := range p.refs {
			if path := p.info.Path; here[path] && !here[ref.info.Path] {
				m.t.Errorf("%s is here without %s", path, ref.info.Path)
			}
		}
		if at, was := m.used[p.info.Path]; was && m.now().Sub(at) < modelLease && !here[p.info.Path] {
			m.t.Errorf("%s is gone within its lease", p.info.Path)
		}
		if m.rooted[p.info.Path] && !here[p.info.Path] {
			m.t.Errorf("%s is gone and is a root", p.info.Path)
		}
	}
	for name, at := range m.claimed {
		if _, err := m.s.Files.Stat(name); err != nil && m.now().Sub(at) < modelGrace {
			m.t.Errorf("%s is gone within its time: %v", name, err)
		}
	}
	if m.t.Failed() {
		m.t.Fatalf("%s", strings.Join(m.story[max(0, len(m.story)-30):], "\n"))
	}
}

func (m *model) fsck() {
	m.t.Helper()
	if _, _, err := m.s.Sweep(m.now()); err != nil { // hours may have passed at once
		m.t.Fatal(err)
	}
	var lines []string
	r, err := fsck.Run(context.Background(), m.s, fsck.Options{Report: func(line string) { lines = append(lines, line) }})
	if err != nil || r.Damage > 0 {
		m.t.Fatalf("%v %s\nafter %s", err, strings.Join(lines, "\n"), strings.Join(m.story[max(0, len(m.story)-30):], "\n"))
	}
}

// Uploads, lookups, roots, collections, sweeps, hours and kills between any two writes:
// nothing goes that somebody counts on, and in the end all goes.
func TestModel(t *testing.T) {
	seeds, steps := 6, 2500
	if testing.Short() {
		seeds, steps = 2, 400
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newModel(t, uint64(seed))
			kills := 0
			for range steps {
				if m.r.IntN(2) == 0 {
					m.kill.left = m.r.IntN(25)
				}
				err := m.step()
				if m.kill.dead {
					kills++
					m.story = append(m.story, "killed")
					m.filesAlone()
					m.open()
					m.fsck()
				} else if m.kill.left = -1; err != nil {
					if r := refusal.In(err); r == nil || r.Kind != refusal.MissingReference && r.Kind != refusal.MissingNar {
						t.Fatalf("%v\n%s", err, strings.Join(m.story[max(0, len(m.story)-10):], "\n"))
					}
				}
				m.check()
			}
			for _, p := range m.paths {
				if err := m.root(p, false); err != nil {
					t.Fatal(err)
				}
			}
			m.ahead += 100 * time.Hour
			m.used, m.claimed = nil, nil
			if err := m.collect(true); err != nil {
				t.Fatal(err)
			}
			m.fsck()
			left, err := filepath.Glob(filepath.Join(m.dir, "cache", "*"))
			more, err2 := filepath.Glob(filepath.Join(m.dir, "cache", "nar", "*"))
			if left = append(left, more...); err != nil || err2 != nil || len(left) > 2 { // nix-cache-info and nar
				t.Errorf("left are %q, %v, %v", left, err, err2)
			}
			if c := m.s.Counts(); c.NarFiles != 0 || c.NarBytes != 0 {
				t.Errorf("%+v", c)
			}
			t.Logf("%d kills", kills)
		})
	}
}
