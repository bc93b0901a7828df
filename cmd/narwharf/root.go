package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "narwharf",
		Short: "a Nix binary cache whose channels are deploy targets",
		Long: `Narwharf serves and receives Nix store paths: any Nix substitutes from it, and
` + "`nix copy --to http://…`" + ` uploads to it.

To try it:

    narwharf init ./data
    narwharf serve --config ./data/config.toml

and type what serve prints. Exit status: 0 fine, 1 damage found (fsck),
2 anything else that went wrong.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(initCommand(), serveCommand(), tokenCommand(), keyCommand(), fsckCommand(), rebuildCommand(), versionCommand(),
		promoteCommand(), rollbackCommand(), signCommand(), channelCommand(), watchCommand(), hostCommand(), hostsCommand(), statusCommand(), agentCommand(), bootstrapCommand())
	return root
}

// exitError carries an exit status; with a nil err all was said already.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }
