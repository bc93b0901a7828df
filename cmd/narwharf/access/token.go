package access

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/data"
	"narwharf/cmd/narwharf/server/token"
	"narwharf/cmd/narwharf/terminal"
)

// Token is the command token.
func Token() *cobra.Command {
	c := command.Group("token", "make, list and revoke access tokens",
		`Tokens give rights to programs: a CI job uploads with one. They are shown once
and stored as a hash. A token is the password in netrc, with any user name:

    machine cache.example.org
    login ci
    password nwt_…

or a Bearer token. Changes work at once, whether or not the server runs.`)
	c.AddCommand(tokenNewCommand(), tokenListCommand(), tokenRevokeCommand(), tokenDeclareCommand())
	return c
}

func tokenRevokeCommand() *cobra.Command {
	c := command.New("revoke NAME|ID | revoke --rule ISSUER/RULE", "make a token void, or all that a rule gave, at once", 0, 1,
		`With --rule all short-lived tokens end that a rule of the configuration gave, as
github/main: those that JWTs were exchanged for, sessions, hosts'. Who still
fits the rule may get another, and a JWT counts until its own end: take the rule
out of the configuration first, and restart the server.`)
	rule := c.Flags().String("rule", "", "the name of the rule, with that of its issuer: `ISSUER/RULE`")
	return data.With(c, func(run data.Job, args []string) error {
		switch {
		case (*rule != "") == (len(args) > 0):
			return errors.New("give the NAME or ID of a token, or --rule ISSUER/RULE")
		case *rule != "":
			return run("token-revoke-rule", *rule, c.OutOrStdout())
		}
		return run("token-revoke", args[0], c.OutOrStdout())
	})
}

func tokenNewCommand() *cobra.Command {
	c := command.New("new --name NAME --scope SCOPE | new --join CHANNEL", "make a token and print it, once", 0, 0,
		`Writes a new token to a file that you alone can read, or prints it; it cannot be
shown again.

Scopes, of which --scope may be repeated or have several with commas:

    pull                   read the cache and channels
    push                   upload
    promote:CHANNEL        promote; includes read:CHANNEL
    promote:CHANNEL/HOST   promote what changes that target alone; with :test at
                           its end only by --action test
    follow:CHANNEL         be a host
    operate:CHANNEL        its hosts and policy; includes read:CHANNEL.
                           Alone: all channels, pins and collections
    read:CHANNEL           look at hosts, events, logs
    metrics, admin         /metrics; everything

CHANNEL and HOST may have * for any characters. push, promote and follow include
pull.

    narwharf token new --name ci --scope push --expires 90d --out ci.token
    narwharf token new --scope promote:prod/web-1:test

With --join it is a join token: all that it can do is let a new host follow the
channel. The host's agent exchanges it for a token of its own. It is void after
two hours (--expires) or one host (--uses). Made for one --host, it also lets a
machine that was installed anew take the name of the one before.

    narwharf token new --join web --host web-7 --out web-7.join`)
	var ask token.New
	c.Flags().StringVar(&ask.Name, "name", "", "`NAME` that stands in logs and in narwharf token list")
	c.Flags().StringSliceVar(&ask.Scopes, "scope", nil, "a right that the token gives; may be repeated")
	expires := c.Flags().String("expires", "never", "`TIME` from now after which it is void, as 12h or 90d")
	c.Flags().StringVar(&ask.Join, "join", "", "make a join token for hosts of this `CHANNEL`")
	c.Flags().StringVar(&ask.Host, "host", "", "the token can act as the host `NAME` alone")
	c.Flags().IntVar(&ask.Uses, "uses", 0, "how many hosts may join (default 1)")
	file := c.Flags().String("out", "", "write the token to this new `FILE`, mode 0600")
	return data.With(c, func(run data.Job, _ []string) error {
		if err := ask.Check(); err != nil {
			return err
		}
		if ask.Join != "" && !c.Flags().Changed("expires") {
			*expires = "2h"
		}
		if *expires != "never" {
			d, err := command.ParseAge(*expires)
			if err != nil {
				return fmt.Errorf("--expires: %w", err)
			}
			ask.Expires = time.Now().Add(d)
		}
		ask.By = command.CallerName()
		return command.WriteSecret(*file, c.OutOrStdout(), func(out io.Writer) error { return run("token-new", ask, out) })
	})
}

func tokenListCommand() *cobra.Command {
	c := command.New("list", "list the tokens, without their secrets", 0, 0, "")
	asJSON := c.Flags().Bool("json", false, "print JSON")
	return data.With(c, func(run data.Job, _ []string) error {
		var text strings.Builder
		if err := run("token-list", true, &text); err != nil {
			return err
		}
		if *asJSON {
			_, err := io.WriteString(c.OutOrStdout(), text.String())
			return err
		}
		var list []token.Listed
		if err := json.Unmarshal([]byte(text.String()), &list); err != nil {
			return err
		}
		return tokenTable(c.OutOrStdout(), list)
	})
}

func tokenTable(out io.Writer, list []token.Listed) error {
	return terminal.Table(out, "NAME\tID\tSTATE\tSCOPES\tCREATED\tEXPIRES\tBY", func(row func(...any)) {
		for _, l := range list {
			expires := "never"
			if l.Expires != nil {
				expires = l.Expires.Format(time.DateOnly)
			}
			scopes := strings.Join(l.Scopes, ",")
			if l.Host != "" {
				scopes += " as " + l.Host
			}
			by := l.By
			if l.Kind != "" { // it ends soon
				expires, by = l.Expires.Format("2006-01-02 15:04"), l.Subject
			}
			if l.Uses > 0 {
				scopes += fmt.Sprintf(" (%d of %d used)", len(l.Used), l.Uses)
			}
			row(l.Name, l.ID, l.State, scopes, l.Created.Format(time.DateOnly), expires, by)
		}
	})
}
