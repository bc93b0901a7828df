package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
)

func hostsCommand() *cobra.Command {
	c := command.New("hosts [CHANNEL]", "list hosts: what they run, what they should run, why they wait", 0, 1, "")
	return withServer(c, func(s *session, args []string) error {
		list, _, err := s.hostsOf(strings.Join(args, ""))
		if err != nil {
			return err
		}
		return s.Show(list, func() error { return terminal.Hosts(s.Out, list) })
	})
}

// hostsOf lists the hosts of a channel, or of all (""), and the channels that the token
// may see. A channel of which there is nothing is an error.
func (s *session) hostsOf(channel string) ([]api.Host, []api.Channel, error) {
	hosts, err := s.Hosts(s.Ctx, channel)
	if err != nil {
		return nil, nil, err
	}
	all, err := s.Channels(s.Ctx)
	var e *api.Error
	if errors.As(err, &e) && (e.Kind == api.Forbidden || e.Kind == api.Unauthorized) {
		return hosts, nil, nil // the scope operate does not let it look at channels
	}
	var names []string
	var some []api.Channel
	for _, c := range all {
		if !c.Deleted {
			names = append(names, c.Channel)
		}
		if c.Channel == channel || channel == "" && !c.Deleted {
			some = append(some, c)
		}
	}
	switch {
	case err != nil || channel == "" || len(hosts) > 0 || len(some) > 0:
		return hosts, some, err
	case names == nil:
		return nil, nil, fmt.Errorf("there is no channel %s, and no other: the first promote makes it", channel)
	}
	return nil, nil, fmt.Errorf("there is no channel %s; there is %s", channel, strings.Join(names, ", "))
}

func statusCommand() *cobra.Command {
	c := command.New("status [CHANNEL]", "sum up channels: how many hosts run the last release", 0, 1, "")
	return withServer(c, func(s *session, args []string) error {
		list, channels, err := s.hostsOf(strings.Join(args, ""))
		if err != nil {
			return err
		}
		sums := terminal.Sum(list, channels)
		return s.Show(sums, func() error { return terminal.Sums(s.Out, sums) })
	})
}

func watchCommand() *cobra.Command {
	c := command.New("watch CHANNEL", "print what happens to a channel and its hosts, as it happens", 1, 1, "")
	return withServer(c, func(s *session, args []string) error { return s.watch(args[0]) })
}

// watch follows the audit log from its end on.
func (s *session) watch(channel string) error {
	if _, _, err := s.hostsOf(channel); err != nil {
		return err
	}
	since := int64(1)
	first := true
	for s.Ctx.Err() == nil {
		wait := 45 * time.Second
		if first {
			wait = 0
		}
		events, next, err := s.Events(s.Ctx, since, channel, wait)
		var e *api.Error
		switch {
		case s.Ctx.Err() != nil:
			return nil
		case errors.As(err, &e) && e.Kind != api.Unavailable && e.Kind != api.Internal:
			return err
		case err != nil:
			fmt.Fprintf(s.Errs, "waiting for the server: %v\n", err)
			time.Sleep(2 * time.Second)
			continue
		}
		if first {
			events = events[max(len(events)-10, 0):] // where it stands, not the whole past
		}
		for _, ev := range events {
			if err := s.Show(ev, func() error { return s.event(ev) }); err != nil {
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
	_, err := fmt.Fprintf(s.Out, "%s  %s%s\n", api.TimeText(ev.Time), alarm, clip.Line(ev.Text, 4096))
	return err
}
