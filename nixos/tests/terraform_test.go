package tests

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// Examples of Terraform are written as Terraform writes them, and it reads them. Their providers
// are fetched for nobody.
func TestTerraform(t *testing.T) {
	terraform, err := exec.LookPath("terraform")
	if err != nil {
		t.Skip("no terraform in PATH")
	}
	dirs, err := filepath.Glob("../../docs/examples/*/main.tf")
	if err != nil || len(dirs) == 0 {
		t.Fatal(dirs, err)
	}
	for _, name := range dirs {
		if out, err := exec.Command(terraform, "fmt", "-check", "-diff", filepath.Dir(name)).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}
