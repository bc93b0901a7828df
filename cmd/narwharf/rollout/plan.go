package rollout

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/summary"
)

func planCommand() *cobra.Command {
	c := command.New("plan CHANNEL [PATH|SEQ|last-good]", "tell what a release would do to the hosts of a channel", 1, 2,
		`For each kind of host: what it fetches, which packages become others, whether it
reboots and for what, in which wave it is, and what is in the way now. PATH is a
system that is in the server's cache already (nix copy), for all hosts or, with
--target, for some. SEQ is an earlier release. Without either it is about the
release that is there: what it still has to do.

    narwharf plan web ./result
    narwharf plan prod ./result --target web-1
    narwharf plan web last-good

It needs no key. narwharf promote --dry-run tells the same of a whole release, and
whether it would be taken.`)
	target := c.Flags().String("target", "", "the path is for this `TARGET`, and the others stay as they are")
	most := c.Flags().Int("packages", 20, "how many packages of each step are shown")
	return command.WithServer(c, func(s *command.Session, args []string) error {
		to := ""
		if len(args) > 1 {
			var err error
			if to, err = destination(args[1]); err != nil {
				return err
			}
		}
		p, err := s.Plan(s.Ctx, args[0], to, *target)
		if err != nil {
			return err
		}
		return s.Show(p, func() error { return summary.Plan(s.Out, p, *most) })
	})
}

// destination is a store path where a link to one was typed.
func destination(text string) (string, error) {
	if text == "last-good" || strings.Trim(text, "0123456789") == "" {
		return text, nil
	}
	full, err := filepath.EvalSymlinks(text)
	if os.IsNotExist(err) && filepath.IsAbs(text) {
		return text, nil // the cache may have it
	}
	if err != nil {
		return "", fmt.Errorf("plan: %w: say a store path, a link to one, a seq, or last-good", err)
	}
	return filepath.Abs(full)
}
