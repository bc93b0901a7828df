package retention

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/api/retention"
	"narwharf/narinfo/clip"
)

func whyCommand() *cobra.Command {
	c := command.New("why PATH", "say why a store path is in the cache, or is not", 1, 1,
		`Prints who keeps a store path: channels by their releases, hosts by what they run,
pins. For each there is one chain of references, as nix why-depends shows it.
What nobody keeps stays for its grace, and the command says until when.

    narwharf why /nix/store/…-openssl-3.0.14`)
	return command.WithServer(c, func(s *command.Session, args []string) error {
		w, err := retention.Client{Client: s.Client}.Why(s.Ctx, args[0])
		if err != nil {
			return err
		}
		return s.Show(w, func() error {
			why(s.Out, w)
			return nil
		})
	})
}

func why(out io.Writer, w *retention.Why) {
	here := map[string]string{
		retention.Upload:     "is an upload",
		retention.LocalStore: "is in the store of the server's machine, and is served from there; it is no upload",
		retention.Upstream:   "is at " + clip.Line(w.By, 200) + ", a cache behind this one, and is served from there; it is no upload",
		"":                   "is not here",
	}[w.Here]
	fmt.Fprintf(out, "%s %s", w.Path, here)
	if w.Bytes > 0 {
		fmt.Fprintf(out, ", %s", retention.Bytes(w.Bytes))
	}
	if w.Uploaded != nil && w.Here == retention.Upload {
		fmt.Fprintf(out, ", since %s by %s", api.TimeText(*w.Uploaded), clip.Line(w.By, 200))
	}
	fmt.Fprintln(out)
	for _, chain := range w.Roots {
		fmt.Fprintln(out, ownerText(chain.Owner))
		for i, path := range chain.Paths {
			arrow := ""
			if i > 0 {
				arrow = strings.Repeat("    ", i-1) + "└── "
			}
			fmt.Fprintln(out, "  "+arrow+path)
		}
	}
	if w.More > 0 {
		fmt.Fprintf(out, "and %d more keep it\n", w.More)
	}
	switch {
	case w.Used != nil && len(w.Roots) > 0:
		fmt.Fprintf(out, "last used %s\n", api.TimeText(*w.Used))
	case w.Used != nil && w.GraceUntil.After(time.Now()):
		fmt.Fprintf(out, "nothing keeps it but its grace, until %s: last used %s\n", api.TimeText(*w.GraceUntil), api.TimeText(*w.Used))
	case w.Used != nil:
		fmt.Fprintf(out, "nothing keeps it: it goes when room is needed, or by narwharf gc; last used %s\n", api.TimeText(*w.Used))
	case w.Here == "" && len(w.Roots) == 0:
		fmt.Fprintln(out, "nothing keeps it: it was never uploaded, or was collected; nix copy --refresh uploads it (again)")
	case w.Here == "":
		fmt.Fprintln(out, "what is above needs it: upload it (again) with nix copy --refresh")
	}
}

// ownerText says who keeps something.
func ownerText(owner string) string {
	kind, rest, _ := strings.Cut(owner, ":")
	switch kind {
	case "release":
		channel, seq, _ := strings.Cut(rest, ":")
		return fmt.Sprintf("channel %s keeps it, by its release %s", channel, seq)
	case "host":
		return "host " + rest + " runs it, or may go back to it"
	case "pin":
		return "it is pinned as " + rest
	}
	return owner + " keeps it"
}

func duCommand() *cobra.Command {
	c := command.New("du [CHANNEL]", "say who takes how much of the cache", 0, 1,
		`Prints what channels, hosts and pins keep, the largest first; or what the releases
of one channel keep. OWN would go with it, SHARED others keep, too.

    narwharf du
    narwharf du web`)
	return command.WithServer(c, func(s *command.Session, args []string) error {
		u, err := retention.Client{Client: s.Client}.Usage(s.Ctx, strings.Join(args, ""))
		if err != nil {
			return err
		}
		return s.Show(u, func() error { return usage(s.Out, u) })
	})
}

func usage(out io.Writer, u *retention.Usage) error {
	err := terminal.Table(out, "WHO\tOWN\tSHARED\tTOTAL\tPATHS", func(row func(...any)) {
		for _, of := range u.Of {
			name := of.Name
			if kind, rest, ok := strings.Cut(name, ":"); ok {
				name = kind + " " + strings.ReplaceAll(rest, ":", " ")
			}
			row(name, retention.Bytes(of.Own.Bytes), retention.Bytes(of.Shared.Bytes), retention.Bytes(of.Total.Bytes), of.Total.Paths)
		}
		row("nobody", retention.Bytes(u.Loose.Bytes), "", retention.Bytes(u.Loose.Bytes), u.Loose.Paths)
		row("all", "", "", retention.Bytes(u.Uploads.Bytes), u.Uploads.Paths)
		if u.Leaning.Paths > 0 {
			row("at upstreams", "", "", retention.Bytes(u.Leaning.Bytes), u.Leaning.Paths)
		}
	})
	packed := ""
	if u.Packed.Paths > 0 {
		packed = fmt.Sprintf(", and %s of packed copies, which make way", sumText(u.Packed))
	}
	if err == nil {
		_, err = fmt.Fprintf(out, "%s on the disk%s\n", retention.Bytes(u.Size), packed)
	}
	return err
}
