// Narwharf is a Nix binary cache whose channels are deploy targets.
// `narwharf help` lists the commands; docs/ has the rest.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/access"
	"narwharf/cmd/narwharf/agent"
	"narwharf/cmd/narwharf/channel"
	"narwharf/cmd/narwharf/check"
	"narwharf/cmd/narwharf/client"
	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/data"
	"narwharf/cmd/narwharf/deploy"
	"narwharf/cmd/narwharf/gate"
	"narwharf/cmd/narwharf/keys"
	"narwharf/cmd/narwharf/manual"
	"narwharf/cmd/narwharf/migrate"
	"narwharf/cmd/narwharf/promote"
	"narwharf/cmd/narwharf/replicas"
	"narwharf/cmd/narwharf/retention"
	"narwharf/cmd/narwharf/rollout"
	"narwharf/cmd/narwharf/telling"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/cmd/narwharf/uploadhook"
	"narwharf/narinfo/clip"
)

func main() {
	log.SetOutput(io.Discard) // net/http writes there of servers that speak no HTTP
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program, so that tests can run it in their own process.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	stdout, stderr = clip.NewWriter(stdout), clip.NewWriter(stderr) // hosts, servers and releases say what they like
	root := rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := unknownMember(root, args)
	if err == nil {
		c, failed := root.ExecuteContextC(ctx)
		if failed == nil {
			return 0
		}
		err = command.RequiredFlags(c, failed)
	}
	var said command.Exit
	if errors.As(err, &said) {
		return int(said)
	}
	fmt.Fprintln(stderr, "narwharf: "+err.Error()+terminal.Hint(err))
	var failed command.Failed
	if errors.As(err, &failed) {
		return failed.Code
	}
	return 2
}

// unknownMember is what cobra answers with a page of help and the exit status 0: a
// command of a group that the group does not have.
func unknownMember(root *cobra.Command, args []string) error {
	if len(args) > 0 && args[0] == "help" {
		args = args[1:]
	}
	if len(args) > 0 && strings.HasPrefix(args[0], "__") {
		return nil // a shell asks how a line may go on
	}
	c, rest, err := root.Find(args)
	if err == nil && (c.Runnable() || !c.HasSubCommands()) {
		return nil
	}
	for _, arg := range rest {
		if strings.HasPrefix(arg, "-") && arg != "-h" && arg != "--help" && c != root {
			return fmt.Errorf("a command is missing behind %q, before %s: %s --help lists those that there are", c.CommandPath(), arg, c.CommandPath())
		}
		if !strings.HasPrefix(arg, "-") && arg != "help" {
			return fmt.Errorf("unknown command %q for %q%s", arg, c.CommandPath(), terminal.Suggest(c.SuggestionsFor(arg), c.CommandPath()))
		}
	}
	return nil
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "narwharf",
		Short: "a Nix binary cache whose channels are deploy targets",
		Long: `Narwharf serves and receives Nix store paths: any Nix substitutes from it, and
` + "`nix copy --to http://…`" + ` uploads to it.

To try it:

    narwharf init ./data
    narwharf serve --config ./data/config.toml

and type what serve prints. Exit status: 0 fine, 1 damage found (fsck, rebuild),
2 anything else that went wrong.`,
		SilenceUsage:               true,
		SilenceErrors:              true,
		Version:                    versionText(),
		SuggestionsMinimumDistance: 2,
	}
	root.SetVersionTemplate("narwharf {{.Version}}\n")
	root.SetFlagErrorFunc(command.FlagError)
	root.AddCommand(slices.Concat(data.Commands(), retention.Commands(), access.Commands(), rollout.Commands(), promote.Commands(), telling.Commands())...)
	root.AddCommand(replicas.Command(), migrate.Command())
	root.AddCommand(client.Commands()...)
	root.AddCommand(gate.Commands()...)
	root.AddCommand(manual.Commands()...)
	root.AddCommand(deploy.Command(), uploadhook.Command())
	root.AddCommand(initCommand(), serveCommand(), check.Command(), keys.Command(versionText()), versionCommand(),
		channel.Command(versionText()), watchCommand(), hostCommand(), hostsCommand(), statusCommand(), agent.Command(), bootstrapCommand())
	return root
}

// version is set by the linker (see the Makefile).
var version = ""

func versionText() string {
	if version != "" {
		return version
	}
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" && b.Main.Version != "(devel)" {
		return b.Main.Version
	}
	return "dev"
}

func versionCommand() *cobra.Command {
	c := command.New("version", "print the version", 0, 0, "")
	c.RunE = func(c *cobra.Command, _ []string) error {
		_, err := fmt.Fprintln(c.OutOrStdout(), "narwharf "+versionText())
		return err
	}
	return c
}
