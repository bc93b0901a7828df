// Package repository finds this repository's folder, for tests that build, run and read what lies in it.
package repository

import (
	"fmt"
	"os"
	"path/filepath"
)

// Root is the absolute path of the folder that has go.mod. It is looked for from the folder in which
// the program was started, which `go test` makes the package's own. The paths that the compiler
// writes into a program would not do: with -trimpath they are those of the module.
var Root = find()

func find() string {
	start, err := os.Getwd()
	if err != nil {
		panic(fmt.Sprintf("repository: %v", err))
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			panic(fmt.Sprintf("repository: no go.mod in %s or above it; run this in a clone of the repository", start))
		}
	}
}
