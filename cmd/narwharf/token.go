package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"narwharf/signing/access"
)

func tokenCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "token",
		Short: "make, list and revoke access tokens",
		Long: `Tokens give rights to programs: a CI job uploads with one. They are shown once
and stored as a hash. A token is the password in netrc, with any user name:

    machine cache.example.org
    login ci
    password nwt_…

or a Bearer token. Changes work at once, whether or not the server runs.`,
	}
	c.AddCommand(tokenNewCommand(), tokenListCommand(), tokenRevokeCommand())
	return c
}

func tokenRevokeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "revoke NAME|ID",
		Short: "make a token void, at once",
		Args:  cobra.ExactArgs(1),
	}
	config := configFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return runJob(c, *config, "token-revoke", args[0])
	}
	return c
}

func tokenRevoke(ctx context.Context, d place, name string, out io.Writer) (int, error) {
	t, err := d.tokens.Revoke(ctx, name, time.Now())
	if errors.Is(err, access.ErrNotFound) {
		return 2, fmt.Errorf("%w: narwharf token list shows what there is", err)
	}
	if err != nil {
		return 2, err
	}
	_, err = fmt.Fprintf(out, "revoked %s (%s)\n", t.Name, t.ID)
	return 0, err
}
