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
	return withServer(c, func(s *session, args []string) error { return s.watch(args[0]) })
}

// watch follows the audit log from its end on.
func (s *session) watch(channel string) error {
	since := int64(1)
	first := true
	for s.ctx.Err() == nil {
		wait := 45 * time.Second
		if first {
			wait = 0
		}
		events, next, err := s.Events(s.ctx, since, channel, wait)
		var e *api.Error
		switch {
		case s.ctx.Err() != nil:
			return nil
		case errors.As(err, &e) && e.Kind != api.Unavailable && e.Kind != api.Internal:
			return err
		case err != nil:
			fmt.Fprintf(s.errs, "waiting for the server: %v\n", err)
			time.Sleep(2 * time.Second)
			continue
		}
		if first {
			events = events[max(len(events)-10, 0):] // where it stands, not the whole past
		}
		for _, ev := range events {
			if err := s.show(ev, func() error { return s.event(ev) }); err != nil {
				return err
			}
		}
		if next == since {
			first = false
		}
		since = next
	}
	return nil
}

func (s *session) event(ev api.Event) error {
	alarm := ""
	if ev.Alarm {
		alarm = "ALARM "
	}
	_, err := fmt.Fprintf(s.out, "%s  %s%s\n", ev.Time.Local().Format(time.DateTime), alarm, ev.Text)
	return err
}
