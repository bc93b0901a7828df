package narwharf_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"narwharf/cache/nar/dump"
)

var writeVendorHash = flag.Bool("write-vendor-hash", false, "TestVendorHash writes the hash to nixos/package.nix: make vendor-hash")

// sources are the names in nixos/package.nix of what is compiled.
var sources = regexp.MustCompile(`\.\./(go\.mod|go\.sum|docs/[a-z.]+|[a-z]+)\b`)

// copySources makes a folder with what nixos/package.nix compiles, without what it leaves out there,
// which is no Go.
func copySources(t *testing.T, expression []byte) string {
	t.Helper()
	dir := t.TempDir()
	for _, m := range sources.FindAllSubmatch(expression, -1) {
		name := string(m[1])
		if st, err := os.Stat(name); err != nil {
			t.Fatal(err)
		} else if st.IsDir() {
			err = os.CopyFS(filepath.Join(dir, name), os.DirFS(name))
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		text, err := os.ReadFile(name)
		if err == nil {
			err = os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestVendorHash: nixos/package.nix has the hash of the dependencies that nixpkgs' buildGoModule
// compares: of what `go mod vendor` writes, as a NAR. It depends on the imports of the sources
// there, not on go.sum alone.
func TestVendorHash(t *testing.T) {
	if testing.Short() && !*writeVendorHash {
		t.Skip("go mod vendor copies every dependency")
	}
	const expression = "nixos/package.nix"
	text, err := os.ReadFile(expression)
	if err != nil {
		t.Fatal(err)
	}
	vendor := filepath.Join(t.TempDir(), "vendor")
	c := exec.Command("go", "mod", "vendor", "-o", vendor)
	c.Dir = copySources(t, text)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go mod vendor: %v\n%s", err, out)
	}
	sum := sha256.New()
	if _, err := dump.Write(t.Context(), sum, vendor); err != nil {
		t.Fatal(err)
	}
	want := []byte(`vendorHash = "sha256-` + base64.StdEncoding.EncodeToString(sum.Sum(nil)) + `";`)
	line := regexp.MustCompile(`vendorHash = .*;`)
	is := line.Find(text)
	switch {
	case is == nil:
		t.Fatal(expression + " has no vendorHash")
	case bytes.Equal(is, want):
	case !*writeVendorHash:
		t.Errorf("%s has %s and the dependencies %s: make vendor-hash", expression, is, want)
	default:
		if err := os.WriteFile(expression, line.ReplaceAllLiteral(text, want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
