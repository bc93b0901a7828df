package access

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/access/declared"
	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/data"
)

func tokenDeclareCommand() *cobra.Command {
	c := command.New("declare FILE", "make tokens be those that a file declares", 1, 1,
		`For configuration management: the NixOS module calls it. FILE (- is stdin) is JSON with
a member for each token:

    {"ci": {"scopes": ["push", "promote:web"], "expires": "90d"},
     "web-1": {"scopes": ["follow:web"], "host": "web-1"}}

Each is made once, into a file of its name in --dir. One that FILE has no more is
revoked and its file removed; one whose scopes, host or time changed, or whose file is
gone, is revoked and made anew. Tokens that were made otherwise are never touched.

    narwharf token declare tokens.json --dir /var/lib/narwharf/tokens.d`)
	dir := c.Flags().String("dir", "", "the `FOLDER` with a file for each token, for you alone")
	command.Must(c.MarkFlagRequired("dir"))
	return data.With(c, func(run data.Job, args []string) error {
		in := c.InOrStdin()
		if args[0] != "-" {
			file, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			in = file
		}
		var want map[string]declared.Token
		read := json.NewDecoder(in)
		read.DisallowUnknownFields()
		if err := read.Decode(&want); err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		return declared.Apply(run, *dir, want, command.CallerName(), c.ErrOrStderr())
	})
}
