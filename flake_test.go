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

var writeVendorHash = flag.Bool("write-vendor-hash", false, "TestVendorHash writes the hash to flake.nix: make vendor-hash")

// TestVendorHash: flake.nix has the hash of the dependencies that nixpkgs' buildGoModule
// compares: of what `go mod vendor` writes, as a NAR. It depends on the imports of this
// module, not on go.sum alone.
func TestVendorHash(t *testing.T) {
	if testing.Short() && !*writeVendorHash {
		t.Skip("go mod vendor copies every dependency")
	}
	vendor := filepath.Join(t.TempDir(), "vendor")
	if out, err := exec.Command("go", "mod", "vendor", "-o", vendor).CombinedOutput(); err != nil {
		t.Fatalf("go mod vendor: %v\n%s", err, out)
	}
	sum := sha256.New()
	if _, err := dump.Write(t.Context(), sum, vendor); err != nil {
		t.Fatal(err)
	}
	want := []byte(`vendorHash = "sha256-` + base64.StdEncoding.EncodeToString(sum.Sum(nil)) + `";`)
	text, err := os.ReadFile("flake.nix")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`vendorHash = .*;`)
	is := line.Find(text)
	switch {
	case is == nil:
		t.Fatal("flake.nix has no vendorHash")
	case bytes.Equal(is, want):
	case !*writeVendorHash:
		t.Errorf("flake.nix has %s and the dependencies %s: make vendor-hash", is, want)
	default:
		if err := os.WriteFile("flake.nix", line.ReplaceAllLiteral(text, want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
