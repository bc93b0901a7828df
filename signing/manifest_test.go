package signing

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"narwharf/narinfo"
)

func TestManifest(t *testing.T) {
	m := testClosure(t, "/nix/store", "system")
	text := m.Text()
	root := testPath("system")
	again, err := ParseManifest(text, m.Digest(), root)
	if err != nil || !bytes.Equal(again.Text(), text) || again.Digest() != Digest(sha256.Sum256(text)) {
		t.Fatalf("read as %v, %v", again, err)
	}
	for _, l := range m.Lines {
		got, ok := again.Find(l.Path)
		if !ok || !got.Equal(l) {
			t.Errorf("%s is %v, %v", l.Path, got, ok)
		}
	}
	if _, ok := m.Find(testPath("absent")); ok {
		t.Error("found a path that is not there")
	}
	_, err = ParseManifest(text, Digest{1}, root)
	wantError(t, "digest", err, "the text has the digest")
	_, err = ParseManifest(text, m.Digest(), testPath("glibc-2.42"))
	wantError(t, "another root", err, "4 paths are listed, "+string(testPath("glibc-2.42"))+" needs 1")
	_, err = ParseManifest(text, m.Digest(), testPath("absent"))
	wantError(t, "absent root", err, "is not listed")
	_, err = ReadManifest(make([]byte, MaxManifest+1))
	wantError(t, "too large", err, "it should have 1 to")
}

func TestLineEqual(t *testing.T) {
	l := LineOf(testInfo("/nix/store", "a", 1, "b", "c"))
	for name, change := range map[string]func(l *Line){
		"path": func(l *Line) { l.Path = testPath("x") },
		"hash": func(l *Line) { l.NarHash[0]++ },
		"size": func(l *Line) { l.NarSize++ },
		"refs": func(l *Line) { l.References = l.References[:1] },
	} {
		o := l
		change(&o)
		if same := l; l.Equal(o) || !l.Equal(same) {
			t.Errorf("%s does not count", name)
		}
	}
}

func TestNewManifestSorts(t *testing.T) {
	a := testInfo("/nix/store", "a", 1)
	b := testInfo("/nix/store", "b", 2, "c", "a", "c", "b")
	c := testInfo("/nix/store", "c", 3, "b")
	refs := slices.Clone(b.References)
	m, err := NewManifest([]*narinfo.Info{c, b, a})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(b.References, refs) {
		t.Error("the caller's info was changed")
	}
	if l, _ := m.Find(b.Path); len(l.References) != 3 || !slices.IsSorted(l.References) || !l.Equal(LineOf(b)) {
		t.Errorf("references %v", l.References)
	}
	if _, err := ParseManifest(m.Text(), m.Digest(), b.Path); err != nil {
		t.Error(err)
	}
}

// What cannot be read is not made: a signature over it would be worthless.
func TestNewManifestRefuses(t *testing.T) {
	info := func(change func(i *narinfo.Info)) []*narinfo.Info {
		i := testInfo("/nix/store", "a", 1)
		change(i)
		return []*narinfo.Info{i}
	}
	// 400 paths that all refer to each other, with names as long as they get.
	var large []*narinfo.Info
	var all []narinfo.Path
	for i := range 600 {
		p := testPath(fmt.Sprint(i, strings.Repeat("x", 205)))
		all = append(all, p)
		large = append(large, &narinfo.Info{StoreDir: "/nix/store", Path: p, NarHash: narinfo.Hash{1}, NarSize: 1})
	}
	for _, i := range large {
		i.References = all
	}
	for name, v := range map[string]struct {
		infos []*narinfo.Info
		says  string
	}{
		"none":                {nil, "the closure is empty"},
		"two stores":          {[]*narinfo.Info{testInfo("/nix/store", "a", 1), testInfo("/gnu/store", "b", 1)}, "paths of /nix/store and /gnu/store"},
		"twice":               {[]*narinfo.Info{testInfo("/nix/store", "a", 1), testInfo("/nix/store", "a", 1)}, "there twice"},
		"reference missing":   {[]*narinfo.Info{testInfo("/nix/store", "a", 1, "b")}, "which is not listed"},
		"no hash":             {info(func(i *narinfo.Info) { i.NarHash = narinfo.Hash{} }), "no NarHash"},
		"no size":             {info(func(i *narinfo.Info) { i.NarSize = 0 }), "NarSize of 0"},
		"huge":                {info(func(i *narinfo.Info) { i.NarSize = math.MaxInt64 }), "NarSize of 9"},
		"no store":            {info(func(i *narinfo.Info) { i.StoreDir = "" }), "cannot be a store directory"},
		"semicolon":           {info(func(i *narinfo.Info) { i.StoreDir = "/a;b" }), "cannot be a store directory"},
		"comma":               {info(func(i *narinfo.Info) { i.StoreDir = "/a,/b" }), "cannot be a store directory"},
		"slash":               {info(func(i *narinfo.Info) { i.StoreDir = "/nix/store/" }), "cannot be a store directory"},
		"bad path":            {info(func(i *narinfo.Info) { i.Path = "x" }), "store path name"},
		"bad path with lines": {info(func(i *narinfo.Info) { i.Path += ";\n" }), "store path name"},
		"too large":           {large, "more than 67108864 bytes"},
		"two of one hash": {append(info(func(*narinfo.Info) {}), info(func(i *narinfo.Info) {
			i.Path += "-twin"
		})...), "have one hash"},
	} {
		m, err := NewManifest(v.infos)
		wantError(t, name, err, v.says)
		if m != nil {
			t.Errorf("%s: a manifest was made", name)
		}
	}
}

// A closure of any shape survives, rooted at what reaches all of it and at
// nothing else; no line can be left out, and no byte changed.
func TestManifestProperties(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(r, "paths")
		refs := make([][]int, n)
		infos := make([]*narinfo.Info, n)
		for i := range n {
			infos[i] = testInfo(rapid.SampledFrom([]string{"/nix/store"}).Draw(r, "store"), fmt.Sprint("p", i), rapid.Int64Range(1, 1<<40).Draw(r, "size"))
			for j := range n {
				if rapid.IntRange(0, 3).Draw(r, "refers") == 0 {
					refs[i] = append(refs[i], j)
					infos[i].References = append(infos[i].References, testPath(fmt.Sprint("p", j)))
				}
			}
		}
		m, err := NewManifest(rapid.Permutation(infos).Draw(r, "order"))
		if err != nil {
			r.Fatal(err)
		}
		text := m.Text()
		for root := range n {
			reached := map[int]bool{root: true}
			for todo := []int{root}; len(todo) > 0; {
				i := todo[0]
				todo = todo[1:]
				for _, j := range refs[i] {
					if !reached[j] {
						reached[j] = true
						todo = append(todo, j)
					}
				}
			}
			if _, err := ParseManifest(text, m.Digest(), testPath(fmt.Sprint("p", root))); (err == nil) != (len(reached) == n) {
				r.Fatalf("root %d reaches %d of %d: %v", root, len(reached), n, err)
			}
		}
		at := rapid.IntRange(0, len(text)-1).Draw(r, "at")
		changed := bytes.Clone(text)
		changed[at] ^= byte(rapid.IntRange(1, 255).Draw(r, "flip"))
		if _, err := ParseManifest(changed, m.Digest(), m.Lines[0].Path); err == nil {
			r.Fatalf("byte %d does not count", at)
		}
	})
}

func FuzzReadManifest(f *testing.F) {
	for _, tc := range allCases(f) {
		if tc.what == "manifest" {
			f.Add(tc.text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ReadManifest(text)
		if err != nil {
			return
		}
		if !bytes.Equal(m.Text(), text) || m.Digest() != Digest(sha256.Sum256(text)) {
			t.Fatalf("%q was read as %q", text, m.Text())
		}
		var infos []*narinfo.Info
		var sum int64
		for _, l := range m.Lines {
			sum += l.NarSize
			infos = append(infos, &narinfo.Info{StoreDir: m.StoreDir, Path: l.Path, NarHash: l.NarHash, NarSize: l.NarSize, References: l.References})
			for _, ref := range l.References {
				if _, ok := m.Find(ref); !ok {
					t.Fatalf("%s refers to nothing", l.Path)
				}
			}
		}
		if sum <= 0 || sum > maxNars {
			t.Fatalf("%d bytes", sum)
		}
		again, err := NewManifest(infos)
		if err != nil || !bytes.Equal(again.Text(), text) {
			t.Fatalf("%q cannot be made: %v", text, err)
		}
	})
}

func BenchmarkReadManifest(b *testing.B) {
	var infos []*narinfo.Info
	for i := range 2000 {
		var refs []string
		for j := max(0, i-5); j < i; j++ {
			refs = append(refs, fmt.Sprint("package-", j, "-1.2.3"))
		}
		infos = append(infos, testInfo("/nix/store", fmt.Sprint("package-", i, "-1.2.3"), 1000, refs...))
	}
	m, err := NewManifest(infos)
	if err != nil {
		b.Fatal(err)
	}
	text := m.Text()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := ReadManifest(text); err != nil {
			b.Fatal(err)
		}
	}
}
