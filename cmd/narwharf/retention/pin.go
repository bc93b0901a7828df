package retention

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/api/retention"
)

func pinCommand() *cobra.Command {
	c := command.New("pin [NAME PATH|CHANNEL@SEQ]", "keep a path or a release, or list what is kept so", 0, 2,
		`Keeps a store path, or all that a release names, with everything it refers to,
until the pin is taken away or its time is over. Without arguments it lists the
pins.

    narwharf pin audit-2026 web@42 --reason "audit" --until 400d
    narwharf pin toolchain /nix/store/…-gcc-14.3.0
    narwharf unpin toolchain`)
	until := c.Flags().String("until", "", "end by itself at this `TIME` from now, as 4h or 90d (default: at unpin)")
	reason := c.Flags().String("reason", "", "`TEXT` for people who ask why")
	return command.WithServer(c, func(s *command.Session, args []string) error {
		client := retention.Client{Client: s.Client}
		switch len(args) {
		case 0:
			list, err := client.Pins(s.Ctx)
			if err != nil {
				return err
			}
			return s.Show(list, func() error { return pins(s, list) })
		case 1:
			return fmt.Errorf("pin: what is %s to keep? It is used as\n    narwharf pin %s /nix/store/…\n    narwharf pin %[1]s CHANNEL@SEQ", args[0], args[0])
		}
		p, err := pinOf(args[0], args[1])
		if err == nil {
			p.Reason = *reason
			p.Until, err = command.ParseUntil(*until)
		}
		if err != nil {
			return err
		}
		if p, err = client.Pin(s.Ctx, p); err != nil {
			return err
		}
		return s.Show(p, func() error {
			_, err := fmt.Fprintf(s.Out, "pinned %s as %s: %d store paths with all that they refer to\n", pinned(p), p.Name, len(p.Paths))
			return err
		})
	})
}

// pinOf is the pin that somebody types.
func pinOf(name, what string) (*retention.Pin, error) {
	if strings.HasPrefix(what, "/") {
		return &retention.Pin{Name: name, Path: what}, nil
	}
	channel, text, ok := strings.Cut(what, "@")
	seq, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil || seq < 1 {
		return nil, errors.New("pin: " + strconv.Quote(what) + " is neither a store path nor CHANNEL@SEQ, as web@42: narwharf channel history CHANNEL lists the releases")
	}
	return &retention.Pin{Name: name, Channel: channel, Seq: seq}, nil
}

func pinned(p *retention.Pin) string {
	if p.Channel != "" {
		return fmt.Sprintf("%s@%d", p.Channel, p.Seq)
	}
	return p.Path
}

func pins(s *command.Session, list []retention.Pin) error {
	return terminal.Table(s.Out, "PIN\tKEEPS\tUNTIL\tBY\tSINCE\tREASON", func(row func(...any)) {
		for _, p := range list {
			until := "unpin"
			if p.Until != nil {
				until = api.TimeText(*p.Until)
			}
			row(p.Name, pinned(&p), until, p.By, api.TimeText(p.Created), p.Reason)
		}
	})
}

func unpinCommand() *cobra.Command {
	c := command.New("unpin NAME", "take a pin away", 1, 1,
		`Takes a pin away. What it kept stays for its grace, and as long as anything else
keeps it.`)
	return command.WithServer(c, func(s *command.Session, args []string) error {
		if err := (retention.Client{Client: s.Client}).Unpin(s.Ctx, args[0]); err != nil {
			return err
		}
		return s.Show(map[string]string{"unpinned": args[0]}, func() error {
			_, err := fmt.Fprintln(s.Out, "unpinned "+args[0])
			return err
		})
	})
}

func deleteCommand() *cobra.Command {
	c := command.New("delete PATH", "delete one store path that nothing keeps", 1, 1,
		`Deletes an upload now, within its grace, too: a path that should never have been
here. It is refused while a channel, a host, a pin or another path keeps it, and
for as long as somebody who uploads was just told that it is here (lease).

A path that the store of the server's machine has is served from there as before.`)
	return command.WithServer(c, func(s *command.Session, args []string) error {
		d, err := retention.Client{Client: s.Client}.Delete(s.Ctx, args[0][strings.LastIndexByte(args[0], '/')+1:])
		if err != nil {
			return err
		}
		return s.Show(d, func() error {
			text := ""
			if d.Local {
				text = "; the store of the server's machine has it, and serves it as before"
			}
			_, err := fmt.Fprintf(s.Out, "deleted %s (%s)%s\n", d.Path, retention.Bytes(d.Freed), text)
			return err
		})
	})
}
