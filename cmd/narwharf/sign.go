package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"narwharf/hooks/promoter"
)

func signCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "sign [--key FILE] RELEASE",
		Short: "add a signature to a release that promote --out wrote",
		Long: `Shows what the release does, and adds a signature by each key to the file. With
no key it only shows it: look first, and sign when it is what you expect.

    narwharf promote prod ./release --out r.json
    narwharf sign r.json
    narwharf sign --key mine.sec r.json
    narwharf promote prod --envelope r.json

The store paths are what is signed, with every byte of their closures.`,
		Args: cobra.ExactArgs(1),
	}
	keyFiles := c.Flags().StringSlice("key", nil, "secret key `FILE`; may be repeated")
	all := c.Flags().Bool("all", false, fmt.Sprintf("show all targets, not the first %d", shownTargets))
	c.RunE = func(c *cobra.Command, args []string) error {
		keys, err := readSecretKeys(*keyFiles)
		if err != nil {
			return err
		}
		f, err := promoter.ReadFile(args[0])
		if err != nil {
			return err
		}
		out := c.OutOrStdout()
		f.Show(out)
		fmt.Fprintln(out)
		shown := f.Entries
		if !*all && len(shown) > shownTargets {
			shown = shown[:shownTargets]
		}
		if err := entryTable(out, shown); err != nil {
			return err
		}
		if more := len(f.Entries) - len(shown); more > 0 {
			fmt.Fprintf(out, "… %d more (--all shows them)\n", more)
		}
		if len(keys) == 0 {
			return nil
		}
		n, err := f.Sign(keys)
		if err == nil {
			fmt.Fprintf(out, "\nsigned %s seq %d; %d signatures now\n", f.Head.Channel, f.Head.Seq, n)
		}
		return err
	}
	return c
}

// shownTargets is how many targets of a release are shown unless all are.
const shownTargets = 20
