package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"narwharf/hooks/api"
)

// noInstance is how --instance names an agent that says none.
const noInstance = "none"

// identityLines say which machine a host is, and who else claims to be it.
func identityLines(h *api.Host) (lines []string) {
	if id := h.Identity; id != nil {
		text := instanceName(id.Instance) + ", since " + id.Since.Local().Format(time.DateTime)
		if id.Was != "" {
			text += ", was " + id.Was
		}
		lines = append(lines, text)
		if id.Cloned {
			lines = append(lines, "CLONED: two machines take turns with this instance")
		}
	}
	for _, c := range h.Conflict {
		lines = append(lines, fmt.Sprintf("REFUSED: %s, from %s, since %s", instanceName(c.Instance), c.Address, c.Since.Local().Format(time.DateTime)))
	}
	return lines
}

// identityNotes are what of it belongs in a list of hosts.
func identityNotes(h *api.Host) (notes []string) {
	if len(h.Conflict) > 0 {
		notes = append(notes, fmt.Sprintf("%d other machines claim the name (narwharf host show %s)", len(h.Conflict), h.Host))
	}
	if h.Identity != nil && h.Identity.Cloned {
		notes = append(notes, "cloned: two machines take turns")
	}
	if h.Identity != nil && h.Identity.Was != "" {
		notes = append(notes, "was "+h.Identity.Was)
	}
	return notes
}

// seenText says when a host was last heard of, or that it is there.
func seenText(h *api.Host, now string) string {
	switch {
	case h.Online:
		return now
	case h.LastSeen.IsZero():
		return "never"
	}
	return h.LastSeen.Local().Format(time.DateTime)
}

func instanceName(instance string) string {
	if instance == "" {
		return noInstance
	}
	return instance
}

func hostApproveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "approve HOST",
		Short: "say which of the machines that claim a host name has it",
		Long: `A host name belongs to the machine that reported by it first. Another one that
uses it is refused, and narwharf host show lists it. This gives the name to it;
the former one is refused from then on, and if it joined by a token, its own
token is revoked.

With the instance that has the name already, all others are forgotten, and that
the host was cloned. docs/hosts.md says which to take when.

    narwharf host approve web-1 --instance 5f0c…`,
		Args: cobra.ExactArgs(1),
	}
	instance := c.Flags().String("instance", "", "`ID` of the machine; may be left out if one claims the name. "+noInstance+": one whose agent says none")
	return withServer(c, func(s *session, args []string) error {
		id := *instance
		switch id {
		case "":
			h, err := s.Host(s.ctx, args[0])
			if err != nil {
				return err
			}
			if id, err = onlyClaim(h); err != nil {
				return err
			}
		case noInstance:
			id = ""
		}
		return s.host(s.PostHost(s.ctx, args[0], "approve", map[string]string{"instance": id}))
	})
}

// onlyClaim is the one machine that claims a name.
func onlyClaim(h *api.Host) (string, error) {
	switch {
	case len(h.Conflict) == 1:
		return h.Conflict[0].Instance, nil
	case len(h.Conflict) > 1:
		return "", fmt.Errorf("%d machines claim to be %s: name one by --instance\n    %s", len(h.Conflict), h.Host, strings.Join(identityLines(h), "\n    "))
	case h.Identity != nil && h.Identity.Cloned:
		return h.Identity.Instance, nil
	}
	return "", fmt.Errorf("no other machine claims to be %s: there is nothing to approve", h.Host)
}

func hostRemoveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "remove HOST",
		Short: "forget a host, and which machine it was",
		Long: `Forgets what the host reported, its labels and its hold, and which machine it
is: the next one that reports by the name has it. If it joined by a token, its
own token is revoked. A host that is still there comes back by its next report,
unless that was its token.`,
		Args: cobra.ExactArgs(1),
	}
	return withServer(c, func(s *session, args []string) error {
		if err := s.RemoveHost(s.ctx, args[0]); err != nil {
			return err
		}
		return s.show(map[string]string{"removed": args[0]}, func() error {
			_, err := fmt.Fprintln(s.out, "removed "+args[0])
			return err
		})
	})
}
