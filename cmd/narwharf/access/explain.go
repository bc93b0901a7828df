package access

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/server"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/serverconfig"
	"narwharf/narinfo/clip"
	"narwharf/signing/access/oidc"
)

// Rules is the command access.
func Rules() *cobra.Command {
	c := command.New("explain FILE|-", "say which rule a JWT fits, and which claims of it fit no rule", 1, 1,
		`Judges a JWT, in a file or on stdin, by the rules in a server's configuration as it
stands, and asks the issuer for its keys. It says what is wrong with the JWT, which
rule counts, and for each other rule which claims differ. Exit status 1: it gives
nothing.

    narwharf access explain --config /etc/narwharf/config.toml job.jwt

A JWT is a secret as long as it lasts: keep it out of arguments and logs. Its
signature is never printed.`)
	config := command.ConfigFlag(c)
	asJSON := c.Flags().Bool("json", false, "print JSON")
	c.RunE = func(c *cobra.Command, args []string) error {
		jwt, err := readJWT(c.InOrStdin(), args[0])
		if err != nil {
			return err
		}
		cfg, err := serverconfig.Load(*config)
		if err != nil {
			return err
		}
		r := server.Explain(c.Context(), cfg, jwt, slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelError})))
		if *asJSON {
			err = terminal.JSON(c.OutOrStdout(), r)
		} else {
			err = printReport(c.OutOrStdout(), r)
		}
		if err == nil && (r.Problem != "" || r.Rule == "") {
			return command.Exit(1)
		}
		return err
	}
	return command.Group("access", "say what credentials of others give, and who is logged in", "", c, sessionsCommand())
}

// readJWT reads a file, or stdin. A JWT in an argument would be seen by all who list processes.
func readJWT(stdin io.Reader, file string) (string, error) {
	if strings.Count(file, ".") == 2 && strings.HasPrefix(file, "eyJ") {
		return "", errors.New("the argument is a JWT itself, which others see in the list of processes: put it into a file, or give it on stdin, as -")
	}
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, 64<<10))
	jwt := strings.TrimSpace(string(text))
	if err == nil && (jwt == "" || strings.ContainsAny(jwt, " \t\r\n")) {
		err = errors.New("there should be one JWT and nothing else")
	}
	return jwt, err
}

// printReport says in words what a JWT comes to.
func printReport(out io.Writer, r oidc.Report) error {
	var text strings.Builder
	line := func(format string, args ...any) {
		text.WriteString(clip.Line(fmt.Sprintf(format, args...), 2000) + "\n")
	}
	if r.Problem != "" {
		line("%s", r.Problem)
	}
	if r.Issuer != "" {
		line("The issuer is %s.", r.Issuer)
	}
	for _, v := range r.Rules {
		switch {
		case v.Rule == r.Rule:
			line("rule %s: it fits, and counts", v.Rule)
		case v.Fits:
			line("rule %s: it fits, but one above it counts", v.Rule)
		default:
			line("rule %s: it does not fit", v.Rule)
		}
		for _, d := range v.Differences {
			line("    %s", d)
		}
	}
	_, err := io.WriteString(out, text.String())
	return err
}
