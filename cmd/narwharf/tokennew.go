package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"narwharf/signing"
	"narwharf/signing/access"
)

type tokenNewArgs struct {
	Name    string    `json:"name"`
	Scopes  []string  `json:"scopes"`
	Expires time.Time `json:"expires"`
	By      string    `json:"by"`
	Join    string    `json:"join,omitempty"` // channel
	Host    string    `json:"host,omitempty"`
	Uses    int       `json:"uses,omitempty"`
}

func tokenNewCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "new --name NAME --scope SCOPE | new --join CHANNEL",
		Short: "make a token and print it, once",
		Long: `Prints a new token on stdout, and nothing else; it cannot be shown again.

Scopes: pull (read), push (upload; includes pull), promote:GLOB and follow:GLOB
(channels), operate, admin (everything). Repeat --scope or separate by commas.

    narwharf token new --name ci --scope push --expires 90d > ci.token

With --join it is a join token: all that it can do is let a new host follow the
channel. The host's agent exchanges it for a token of its own. It is void after
two hours (--expires) or one host (--uses). Made for one --host, it also lets a
machine that was installed anew take the name of the one before.

    narwharf token new --join web --host web-7 > web-7.join`,
		Args: cobra.NoArgs,
	}
	config := configFlag(c)
	args := tokenNewArgs{}
	c.Flags().StringVar(&args.Name, "name", "", "`NAME` that stands in logs and in narwharf token list")
	c.Flags().StringSliceVar(&args.Scopes, "scope", nil, "a right that the token gives; may be repeated")
	expires := c.Flags().String("expires", "never", "`TIME` from now after which it is void, as 12h or 90d")
	c.Flags().StringVar(&args.Join, "join", "", "make a join token for hosts of this `CHANNEL`")
	c.Flags().StringVar(&args.Host, "host", "", "the token can act as the host `NAME` alone")
	c.Flags().IntVar(&args.Uses, "uses", 0, "how many hosts may join (default 1)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := args.check(); err != nil {
			return err
		}
		if args.Join != "" && !c.Flags().Changed("expires") {
			*expires = "2h"
		}
		if *expires != "never" {
			d, err := parseAge(*expires)
			if err != nil {
				return fmt.Errorf("--expires: %w", err)
			}
			args.Expires = time.Now().Add(d)
		}
		args.By = callerName()
		return runJob(c, *config, "token-new", args)
	}
	return c
}

// check fills in what a join token has by itself.
func (a *tokenNewArgs) check() error {
	switch {
	case a.Join == "" && (a.Name == "" || len(a.Scopes) == 0):
		return errors.New("give --name and --scope, or --join CHANNEL for a host")
	case a.Join == "" && a.Uses != 0:
		return errors.New("--uses goes with --join: other tokens are used as often as one likes")
	case a.Join == "":
		return nil
	case len(a.Scopes) > 0:
		return errors.New("a join token has no other --scope: the host's own will have pull and follow")
	case a.Uses < 0:
		return fmt.Errorf("--uses %d is below 1", a.Uses)
	case a.Uses == 0:
		a.Uses = 1
	}
	if a.Name == "" {
		of := a.Host
		if of == "" {
			of = a.Join
		}
		a.Name = fmt.Sprintf("join-%.48s-%s", of, strings.ToLower(rand.Text()[:8]))
	}
	return nil
}

// make makes the token.
func (a *tokenNewArgs) make(now time.Time) (string, access.Token, error) {
	if a.Join != "" {
		if err := signing.CheckChannel(a.Join); err != nil {
			return "", access.Token{}, fmt.Errorf("--join: %w", err)
		}
		return access.NewJoin(a.Name, a.Join, a.Host, a.Uses, now, a.Expires)
	}
	scopes, err := access.ParseScopes(a.Scopes)
	if err != nil {
		return "", access.Token{}, fmt.Errorf("--scope: %w", err)
	}
	return access.NewBound(a.Name, a.Host, scopes, now, a.Expires)
}

func tokenNew(ctx context.Context, d place, args tokenNewArgs, out io.Writer) (int, error) {
	secret, t, err := args.make(time.Now())
	if err != nil {
		return 2, err
	}
	t.By = args.By
	if err := d.tokens.Add(ctx, t); err != nil {
		if errors.Is(err, access.ErrExists) {
			return 2, fmt.Errorf("%w: take another --name, or first run narwharf token revoke %s", err, args.Name)
		}
		return 2, err
	}
	_, err = fmt.Fprintln(out, secret)
	return 0, err
}
