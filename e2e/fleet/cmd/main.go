// Command fleet prepares this machine for the tests that boot hosts, and cleans up after one that
// was killed together with its reaper.
package main

import (
	"fmt"
	"os"
	"strings"

	"narwharf/e2e/fleet"
)

const usage = `usage: go run ./e2e/fleet/cmd COMMAND

    base        make the base tree, unless it is there, and print its folder
    clean       take away what killed runs left: processes, networks, mounts, folders
    clean all   running fleets too
`

func main() {
	if err := run(strings.Join(os.Args[1:], " ")); err != nil {
		fmt.Fprintf(os.Stderr, "fleet: %v\n", err)
		os.Exit(1)
	}
}

func run(command string) error {
	switch command {
	case "base":
		base, err := fleet.Base()
		if err == nil {
			fmt.Println(base)
		}
		return err
	case "clean", "clean all":
		gone, err := fleet.Clean(command == "clean all")
		for _, name := range gone {
			fmt.Println(name)
		}
		return err
	default:
		return fmt.Errorf("no command %q\n%s", command, usage)
	}
}
