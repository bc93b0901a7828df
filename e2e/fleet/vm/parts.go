package vm

import (
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"narwharf/e2e/repository"
)

// scripts are what runs in the fleet, in the guest, and where systems are built.
//
//go:embed *.sh guest/* nixos/*
var scripts embed.FS

func script(name string) string {
	text, err := scripts.ReadFile(name)
	if err != nil {
		panic(err) // the name is a constant of this package
	}
	return string(text)
}

// parts is the folder that parts.sh made, or makes now (some seconds).
var parts = sync.OnceValues(func() (string, error) {
	cmd := exec.Command(filepath.Join(repository.Root, "e2e", "fleet", "vm", "parts.sh"))
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("virtual machines: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	fmt.Fprint(os.Stderr, stderr.String())
	return strings.TrimSpace(stdout.String()), nil
})
