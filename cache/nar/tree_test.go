package nar

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// names of entries: any bytes but slash and NUL, often ones that nearly collide.
func names() *rapid.Generator[string] {
	odd := rapid.SliceOfN(rapid.Byte().Filter(func(b byte) bool { return b != 0 && b != '/' }), 1, 30)
	return rapid.OneOf(
		rapid.StringMatching(`[ab]{1,3}`),
		rapid.StringMatching(`[a-zA-Z0-9 ._+~-]{1,16}`),
		rapid.Custom(func(t *rapid.T) string { return string(odd.Draw(t, "bytes")) }),
		rapid.SampledFrom([]string{"a-", "a.", "a0", "...", "日本語", strings.Repeat("l", MaxName)}),
	).Filter(func(s string) bool { return CheckName(s) == nil })
}

func targets() *rapid.Generator[string] {
	return rapid.OneOf(names(), rapid.SampledFrom([]string{"/", "..", "../../x", "/nix/store/x", strings.Repeat("t", MaxTarget)}))
}

func bodies() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		size := rapid.OneOf(rapid.IntRange(0, 20), rapid.IntRange(0, 5000)).Draw(t, "size")
		return strings.Repeat(rapid.StringN(1, 8, -1).Draw(t, "body"), size)[:size]
	})
}

// trees are the entries of a random tree, in the order of an archive.
func trees() *rapid.Generator[[]file] {
	return rapid.Custom(func(t *rapid.T) []file {
		var files []file
		var grow func(path string, depth int)
		grow = func(path string, depth int) {
			switch kind := rapid.IntRange(0, 6).Draw(t, "kind"); {
			case depth == 0 && kind > 1, kind > 3 && depth < 6: // mostly a directory at the root
				files = append(files, dir(path))
				used := map[string]bool{}
				if path != "" {
					path += "/"
				}
				for range rapid.IntRange(0, 5).Draw(t, "entries") {
					name := names().Draw(t, "name")
					if !used[name] && len(path)+len(name) < 2000 { // what a file system lets us make
						used[name] = true
						grow(path+name, depth+1)
					}
				}
			case kind%3 == 0:
				files = append(files, link(path, targets().Draw(t, "target")))
			case kind%3 == 1:
				files = append(files, plainFile(path, bodies().Draw(t, "body")))
			default:
				files = append(files, exeFile(path, bodies().Draw(t, "body")))
			}
		}
		grow("", 0)
		return sorted(files...)
	})
}

func clearOffsets(files []file) {
	for i := range files {
		files[i].Offset = 0
	}
}

func TestAnyTree(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		files := trees().Draw(rt, "tree")
		b := write(t, files...)
		got, err := read(bytes.NewReader(b))
		if err != nil {
			rt.Fatal(err)
		}
		clearOffsets(got)
		if !reflect.DeepEqual(got, files) {
			rt.Fatalf("read back as %+v", got)
		}
		list, err := List(bytes.NewReader(b), 1<<20)
		if err != nil {
			rt.Fatal(err)
		}
		for _, f := range files {
			n := list.Lookup(f.Path)
			if n == nil || n.Type != f.Type || n.Size != f.Size || n.Target != f.Target || n.Executable != f.Executable ||
				f.Type == Regular && string(b[n.Offset:n.Offset+n.Size]) != f.Body {
				rt.Fatalf("%q is listed as %+v", f.Path, n)
			}
		}
		if text, err := list.AppendJSON(nil); err == nil { // not UTF-8: nothing to compare
			parsed, err := ParseListing(text)
			if err != nil || !reflect.DeepEqual(parsed, list) {
				rt.Fatalf("the listing %s comes back as %+v (%v)", text, parsed, err)
			}
		}
	})
}

// Good NARs with one thing changed are refused, or are the one spelling of another tree, which
// go-nix reads the same. TestCheckAgreesWithNix asks real Nix about some of them.
func TestMutants(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var good int
	for i := range 5000 {
		b := mutate(random, trees().Example(i%200))
		files, err := read(bytes.NewReader(b))
		if err != nil {
			continue
		}
		good++
		if !bytes.Equal(write(t, files...), b) {
			t.Fatalf("accepted, but not canonical: %q", b)
		}
		theirs, err := gonixRead(b)
		clearOffsets(files)
		if err != nil || !reflect.DeepEqual(theirs, files) {
			t.Fatalf("go-nix reads %+v (%v), we %+v", theirs, err, files)
		}
	}
	if good < 500 || good > 4500 {
		t.Errorf("%d of 5000 were good: not much of a test", good)
	}
}

// mutate writes a NAR of the files and changes something in it.
func mutate(random *rand.Rand, files []file) []byte {
	b := spellFiles(files)
	at := func() int { return random.IntN(len(b)) }
	switch random.IntN(8) {
	case 0: // as it is
	case 1: // another bit
		b[at()] ^= 1 << random.IntN(8)
	case 2: // another byte
		b[at()] = byte(random.Uint32())
	case 3: // cut off
		b = b[:at()]
	case 4: // eight bytes less
		i := at() &^ 7
		b = append(b[:i], b[min(i+8, len(b)):]...)
	case 5: // eight bytes twice
		i := at() &^ 7
		b = append(b[:i:i], b[max(0, i-8):]...)
	case 6: // two eights exchanged
		i, j := at()&^7, at()&^7
		if i+8 <= len(b) && j+8 <= len(b) {
			var tmp [8]byte
			copy(tmp[:], b[i:])
			copy(b[i:i+8], b[j:])
			copy(b[j:], tmp[:])
		}
	case 7: // entries exchanged, renamed, without checks
		if len(files) > 2 {
			i, j := 1+random.IntN(len(files)-1), 1+random.IntN(len(files)-1)
			files[i].Path, files[j].Path = files[j].Path, files[i].Path
			b = spellFiles(files)
		}
	}
	return b
}
