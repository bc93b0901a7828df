package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Many small files, and big files that do and do not compress; closureSizes says how many and
// how big.
func TestBig(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		for _, name := range []string{"many", "random", "compressible"} {
			if testing.Short() && (name != "many" || suite != newest()) {
				continue
			}
			t.Run(name, func(t *testing.T) {
				s := NewServer(t, nil)
				path := c.Path(name)
				NewNix(t, suite).In(c.Root).Netrc(s.Token("ci", "push")).Push(s.URL(), "?compression=zstd", path)
				down := NewNix(t, suite).Trust(s.URL(), s.Key)
				down.Must("nix-store", "--realise", path)
				down.Verify()
			})
		}
	})
}

// The same uncompressed: what is stored is what is sent.
func TestBigUncompressed(t *testing.T) {
	t.Parallel()
	onlyLong(t)
	suite := newest()
	c := NeedClosures(t, suite)
	s := NewServer(t, nil)
	NewNix(t, suite).In(c.Root).Netrc(s.Token("ci", "push")).Push(s.URL(), "?compression=none", c.Path("random"))
	down := NewNix(t, suite).Trust(s.URL(), s.Key)
	down.Must("nix-store", "--realise", c.Path("random"))
	down.Verify()
}

// Every odd name arrives as it was.
func TestZoo(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s := NewServer(t, nil)
		paths := c.Paths("zoo", "latin", "singleFile", "singleExe", "singleLink")
		NewNix(t, suite).In(c.Root).Netrc(s.Token("ci", "push")).Push(s.URL(), "?compression=zstd", paths...)
		down := NewNix(t, suite).Trust(s.URL(), s.Key)
		down.Must("nix-store", append([]string{"--realise"}, paths...)...)
		for _, p := range paths {
			if want, got := tree(t, c.Root, p), tree(t, down.Root, p); want != got {
				t.Errorf("%s came back as\n%s\nand was\n%s", p, got, want)
			}
		}
	})
}

// tree prints names, types, permission to execute, targets and contents below a store path.
func tree(t *testing.T, root, path string) string {
	t.Helper()
	var b strings.Builder
	base := filepath.Join(root, path)
	err := filepath.Walk(base, func(name string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		b.WriteString(strings.TrimPrefix(name, base) + "\x00 " + info.Mode().Type().String())
		switch {
		case info.Mode().IsRegular():
			body, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			if info.Mode()&0o111 != 0 {
				b.WriteString(" executable")
			}
			b.WriteString(" " + nixDigest(body))
		case info.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			b.WriteString(" -> " + target)
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
