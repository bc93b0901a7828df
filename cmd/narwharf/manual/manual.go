// Package manual has the commands that make of our help what shells and man(1) take: packages install it.
package manual

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
)

// Commands are those of this package.
func Commands() []*cobra.Command { return []*cobra.Command{completionCommand(), manCommand()} }

// shells are those that completions are made for.
var shells = map[string]func(root *cobra.Command, out io.Writer) error{
	"bash": func(root *cobra.Command, out io.Writer) error { return root.GenBashCompletionV2(out, true) },
	"fish": func(root *cobra.Command, out io.Writer) error { return root.GenFishCompletion(out, true) },
	"zsh":  (*cobra.Command).GenZshCompletion,
}

func completionCommand() *cobra.Command {
	c := command.New("completion bash|zsh|fish", "print the script by which a shell completes commands and flags", 1, 1,
		`A package installs it. Without one, for this shell:

    . <(narwharf completion bash)
    narwharf completion zsh > ~/.zfunc/_narwharf
    narwharf completion fish > ~/.config/fish/completions/narwharf.fish

bash needs bash-completion.`)
	c.ValidArgs = []string{"bash", "fish", "zsh"}
	c.RunE = func(c *cobra.Command, args []string) error {
		script := shells[args[0]]
		if script == nil {
			return fmt.Errorf("completion: %q is none of bash, zsh and fish", args[0])
		}
		return script(c.Root(), c.OutOrStdout())
	}
	return c
}

func manCommand() *cobra.Command {
	c := command.New("man DIR", "write manual pages, one for each command", 1, 1,
		`They say what --help says.

    narwharf man ./man && man ./man/narwharf-promote.1`)
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := os.MkdirAll(args[0], 0o755); err != nil {
			return err
		}
		return each(c.Root(), func(of *cobra.Command) error {
			return os.WriteFile(filepath.Join(args[0], pageName(of)+".1"), page(of), 0o644)
		})
	}
	return c
}

// each visits a command and all below it that help shows.
func each(c *cobra.Command, visit func(*cobra.Command) error) error {
	if err := visit(c); err != nil {
		return err
	}
	for _, sub := range c.Commands() {
		if !sub.IsAvailableCommand() || sub.Name() == "help" {
			continue
		}
		if err := each(sub, visit); err != nil {
			return err
		}
	}
	return nil
}
