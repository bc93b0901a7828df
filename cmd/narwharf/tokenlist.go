package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"narwharf/signing/access"
)

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

func tokenList(ctx context.Context, d place, asJSON bool, out io.Writer) (int, error) {
	tokens, err := d.tokens.List(ctx)
	if err != nil {
		return 2, err
	}
	now := time.Now()
	list := make([]listedToken, 0, len(tokens))
	for _, t := range tokens {
		list = append(list, listToken(t, now))
	}
	if asJSON {
		return 0, printJSON(out, list)
	}
	var text strings.Builder
	err = table(&text, "NAME\tID\tSTATE\tSCOPES\tCREATED\tEXPIRES\tBY", func(row func(...any)) {
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
			row(l.Name, l.ID, l.State, scopes, l.Created.Format(time.DateOnly), expires, l.By)
		}
	})
	if err == nil {
		_, err = io.WriteString(out, text.String())
	}
	return 0, err
}

func listToken(t access.Token, now time.Time) listedToken {
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
	switch {
	case !t.Revoked.IsZero():
		l.Revoked, l.State = &t.Revoked, "revoked"
	case t.Expired(now):
		l.State = "expired"
	case l.Uses > 0 && len(l.Used) == l.Uses:
		l.State = "used"
	}
	return l
}
