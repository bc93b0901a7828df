package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"narwharf/hooks/api"
	"narwharf/hooks/promoter"
	"narwharf/signing"
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
		body, head, entries, err := promoter.ReadFile(args[0])
		if err != nil {
			return err
		}
		if err := showRelease(c, body, head, entries, *all); err != nil || len(keys) == 0 {
			return err
		}
		if err := promoter.AddSignatures(args[0], body, keys); err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "\nsigned %s seq %d; %d signatures now\n", head.Channel, head.Seq, len(body.Head.Signatures))
		return nil
	}
	return c
}

// shownTargets is how many targets of a release are shown unless all are.
const shownTargets = 20

// showRelease prints what a signer vouches for. What is free text in a release
// comes quoted: it may have been written to deceive a terminal.
func showRelease(c *cobra.Command, body *api.Promotion, head *signing.Head, entries []signing.Entry, all bool) error {
	out := c.OutOrStdout()
	line := func(name, format string, args ...any) {
		fmt.Fprintf(out, "%-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	rollback := ""
	if head.Rollback {
		rollback = ", a rollback"
	}
	line("channel", "%s", head.Channel)
	line("seq", "%d%s", head.Seq, rollback)
	line("origin", "%s", head.Origin)
	line("made", "%s", api.TimeText(head.Created))
	if head.Expires != nil {
		line("expires", "%s", api.TimeText(*head.Expires))
	}
	if head.Order != nil {
		line("order", "%d", *head.Order)
	}
	for _, k := range slices.Sorted(maps.Keys(head.Meta)) {
		line("meta", "%q = %q", k, head.Meta[k])
	}
	if len(body.Keys) > 0 {
		line("rules", "%d of %s must sign from now on", max(body.Threshold, 1), strings.Join(body.Keys, ", "))
	}
	var signers []string
	for _, s := range body.Head.Signatures {
		signers = append(signers, strconv.Quote(s.Key))
	}
	if len(signers) == 0 {
		line("signatures", "none")
	} else {
		line("signatures", "%s (not verified here)", strings.Join(signers, ", "))
	}
	fmt.Fprintln(out)
	shown := entries
	if !all && len(shown) > shownTargets {
		shown = shown[:shownTargets]
	}
	err := entryTable(out, shown)
	if more := len(entries) - len(shown); more > 0 {
		fmt.Fprintf(out, "… %d more (--all shows them)\n", more)
	}
	return err
}
