package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"narwharf/hooks/api"
)

func watchCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "watch CHANNEL",
		Short: "print what happens to a channel and its hosts, as it happens",
		Args:  cobra.ExactArgs(1),
	}
	f := addClientFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return withClient(f, func(client *api.Client) error { return watch(c, f, client, args[0]) })
	}
	return c
}

// watch follows the audit log from its end on.
func watch(c *cobra.Command, f *clientFlags, client *api.Client, channel string) error {
	ctx := c.Context()
	since := int64(1)
	first := true
	for ctx.Err() == nil {
		wait := 45 * time.Second
		if first {
			wait = 0
		}
		events, next, err := client.Events(ctx, since, channel, wait)
		var e *api.Error
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &e) && e.Kind != api.Unavailable && e.Kind != api.Internal:
			return err
		case err != nil:
			fmt.Fprintf(c.ErrOrStderr(), "waiting for the server: %v\n", err)
			time.Sleep(2 * time.Second)
			continue
		}
		for i, ev := range events {
			if first && i < len(events)-10 {
				continue // where it stands, not the whole past
			}
			if f.json {
				if err := printJSON(c, ev); err != nil {
					return err
				}
				continue
			}
			alarm := ""
			if ev.Alarm {
				alarm = "ALARM "
			}
			fmt.Fprintf(c.OutOrStdout(), "%s  %s%s\n", ev.Time.Local().Format(time.DateTime), alarm, ev.Text)
		}
		if next == since {
			first = false
		}
		since = next
	}
	return nil
}
