package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"narwharf/hooks/configfile"
	"narwharf/signing"
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

// parseAge reads a duration that may be in days.
func parseAge(s string) (time.Duration, error) {
	var d configfile.Duration
	if err := d.UnmarshalText([]byte(s)); err != nil || d == 0 {
		return 0, fmt.Errorf("%q is not a time like 12h or 90d", s)
	}
	return time.Duration(d), nil
}

// callerName is the person who types, for the record.
func callerName() string {
	if s := os.Getenv("SUDO_USER"); s != "" && os.Getuid() == 0 {
		return s
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

func tokenNew(ctx context.Context, d place, raw json.RawMessage, out io.Writer) (int, error) {
	var args tokenNewArgs
	if err := json.Unmarshal(raw, &args); err != nil {
		return 2, err
	}
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

func tokenListCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "list the tokens, without their secrets",
		Args:  cobra.NoArgs,
	}
	config := configFlag(c)
	asJSON := c.Flags().Bool("json", false, "print JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return runJob(c, *config, "token-list", asJSON)
	}
	return c
}

// listedToken is the form of `token list --json`.
type listedToken struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	Scopes  []string   `json:"scopes"`
	State   string     `json:"state"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires"`
	Revoked *time.Time `json:"revoked"`
	By      string     `json:"by"`
	Host    string     `json:"host,omitempty"` // that it can act as
	Uses    int        `json:"uses,omitempty"` // of a join token
	Used    []string   `json:"used,omitempty"` // by which hosts
}

func tokenList(ctx context.Context, d place, raw json.RawMessage, out io.Writer) (int, error) {
	var asJSON bool
	if err := json.Unmarshal(raw, &asJSON); err != nil {
		return 2, err
	}
	tokens, err := d.tokens.List(ctx)
	if err != nil {
		return 2, err
	}
	now := time.Now()
	list := make([]listedToken, 0, len(tokens))
	for _, t := range tokens {
		l := listedToken{ID: t.ID, Name: t.Name, State: "active", Created: t.Created, By: t.By, Host: t.Host, Uses: t.Uses}
		for _, u := range t.Used {
			l.Used = append(l.Used, u.Host)
		}
		for _, s := range t.Scopes {
			l.Scopes = append(l.Scopes, s.String())
		}
		if !t.Expires.IsZero() {
			l.Expires = &t.Expires
		}
		if t.Expired(now) {
			l.State = "expired"
		} else if l.Uses > 0 && len(l.Used) == l.Uses {
			l.State = "used"
		}
		if !t.Revoked.IsZero() {
			l.Revoked, l.State = &t.Revoked, "revoked"
		}
		list = append(list, l)
	}
	if asJSON {
		text, err := json.MarshalIndent(list, "", "  ")
		if err != nil {
			return 2, err
		}
		_, err = fmt.Fprintln(out, string(text))
		return 0, err
	}
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tID\tSTATE\tSCOPES\tCREATED\tEXPIRES\tBY")
	for _, l := range list {
		expires := "never"
		if l.Expires != nil {
			expires = l.Expires.Format(time.DateOnly)
		}
		scopes := strings.Join(l.Scopes, ",")
		if l.Host != "" {
			scopes += " as " + l.Host
		}
		if l.Uses > 0 {
			scopes += fmt.Sprintf(" (%d of %d used)", len(l.Used), l.Uses)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.Name, l.ID, l.State, scopes, l.Created.Format(time.DateOnly), expires, l.By)
	}
	if err := table.Flush(); err != nil {
		return 2, err
	}
	_, err = io.WriteString(out, text.String())
	return 0, err
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

func tokenRevoke(ctx context.Context, d place, raw json.RawMessage, out io.Writer) (int, error) {
	var name string
	if err := json.Unmarshal(raw, &name); err != nil {
		return 2, err
	}
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

// must is for mistakes of the program that show on its first start.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
