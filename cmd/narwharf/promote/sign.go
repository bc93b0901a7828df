package promote

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/keys"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/configfile"
	"narwharf/hooks/promoter"
	"narwharf/hooks/promoter/rotation"
	"narwharf/signing"
)

func signCommand() *cobra.Command {
	c := command.New("sign [--key FILE] RELEASE", "add a signature to what promote --out or channel keys --out wrote", 1, 1,
		`Shows what the release does, and adds a signature by each key to the file. With
no key it only shows it: look first, and sign when it is what you expect.

    narwharf promote prod ./release --out r.json
    narwharf sign r.json
    narwharf sign --key mine.sec r.json
    narwharf promote prod --envelope r.json

The store paths are what is signed, with every byte of their closures.`)
	with := keys.AddFlags(c)
	all := c.Flags().Bool("all", false, fmt.Sprintf("show all targets, not the first %d", shownTargets))
	asJSON := c.Flags().Bool("json", false, "print all of it as JSON")
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := configfile.LoadClient("")
		if err != nil {
			return err
		}
		cfg.Keys = nil // only what is typed signs
		signers, err := with.Signers(cfg, c.ErrOrStderr())
		if err != nil {
			return err
		}
		out := c.OutOrStdout()
		if _, err := rotation.ReadFile(args[0]); !errors.Is(err, rotation.ErrOther) {
			return keys.SignFile(out, args[0], signers)
		}
		f, err := promoter.ReadFile(args[0])
		if err != nil {
			return err
		}
		if *asJSON {
			n, err := f.Sign(signers)
			return errors.Join(err, terminal.JSON(out, map[string]any{"head": f.Head, "entries": f.Entries, "signatures": n}))
		}
		f.Show(out)
		fmt.Fprintln(out)
		shown := f.Entries
		if !*all && len(shown) > shownTargets {
			shown = shown[:shownTargets]
		}
		if err := Entries(out, shown); err != nil {
			return err
		}
		if more := len(f.Entries) - len(shown); more > 0 {
			fmt.Fprintf(out, "… %d more (--all shows them)\n", more)
		}
		if len(signers) == 0 {
			return nil
		}
		n, err := f.Sign(signers)
		if err == nil {
			fmt.Fprintf(out, "\nsigned %s seq %d; %d signatures now\n", f.Head.Channel, f.Head.Seq, n)
		}
		return err
	}
	return c
}

// shownTargets is how many targets of a release are shown unless all are.
const shownTargets = 20

// Entries shows what targets are to run.
func Entries(out io.Writer, entries []signing.Entry) error {
	return terminal.Table(out, "TARGET\tACTION\tSYSTEM\tSTORE PATH", func(row func(...any)) {
		for _, e := range entries {
			row(e.Target, e.Action, e.System, e.StorePath)
		}
	})
}
