package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/configfile"
	"narwharf/hooks/login"
	"narwharf/narinfo/clip"
)

// loginFlags are those of login and logout.
type loginFlags struct {
	client          *command.ClientFlags
	issuer, jwtFile string
	system          bool
}

// Login is the command login.
func Login() *cobra.Command {
	c := command.New("login [SERVER]", "get a token for this machine, for Nix and for our commands", 0, 1,
		`In a CI's job it shows the server the JWT that the CI made for the job: GitHub
Actions and Forgejo (from 15 on), GitLab (id_tokens: NARWHARF_OIDC_TOKEN),
Buildkite, CircleCI, or whatever puts one into $NARWHARF_OIDC_TOKEN. Elsewhere you
log in at the server's issuer with a browser, or paste a token. A JWT is
exchanged for a token that ends soon; log in again then.

    narwharf login https://cache.example.org
    narwharf login https://cache.example.org --token-file ci.token
    narwharf login https://cache.example.org > nix.env; . ./nix.env

The last is for scripts: Nix of this shell then reads the token, and set -e ends
the script if the login failed, which eval "$(narwharf login)" would hide.

The token goes to netrc beside client.toml, mode 0600; what is there for other
machines stays. Nix reads one netrc alone, and is told so by the line that is
printed, in GitHub Actions by $GITHUB_ENV as well. nix-daemon reads its own:
--system writes /etc/nix/netrc. Our commands then talk to SERVER. What counts for
more: client.toml, the environment, flags.`)
	f := &loginFlags{client: command.AddClientFlags(c)}
	f.client.Makes = true
	c.Flags().Lookup("client-config").Usage = "`FILE` to use, and to make, instead of ~/.config/narwharf/client.toml"
	c.Flags().StringVar(&f.issuer, "oidc", "", "log in at the issuer of this `NAME`")
	c.Flags().StringVar(&f.jwtFile, "jwt-file", "", "`FILE` with a JWT to exchange; - is stdin")
	c.Flags().BoolVar(&f.system, "system", false, "for all of this machine: write to /etc/nix/netrc")
	f.adapt(c, "`FILE` with a token, or a JWT; - asks for it")
	c.RunE = func(c *cobra.Command, args []string) error { return f.login(c, args) }
	return c
}

// adapt gives --token-file its meaning here; there is no JSON.
func (f *loginFlags) adapt(c *cobra.Command, usage string) {
	c.Flags().Lookup("token-file").Usage = usage
	command.Must(c.Flags().MarkHidden("json"))
}

// load is the configuration, of the server that an argument names if there is one.
func (f *loginFlags) load(c *cobra.Command, args []string) (*configfile.Client, string, error) {
	if len(args) > 0 {
		if c.Flags().Changed("server") {
			return nil, "", errors.New("the server is named twice: as an argument and by --server")
		}
		command.Must(c.Flags().Set("server", args[0]))
	}
	cfg, err := f.client.Load()
	if err != nil {
		return nil, "", err
	}
	u, err := api.ParseURL(cfg.Server)
	if err != nil {
		return nil, "", fmt.Errorf("server %w", err)
	}
	cfg.Server = u.String()
	return cfg, u.Hostname(), nil
}

// netrc is the file that the token goes to.
func (f *loginFlags) netrc(cfg *configfile.Client) (string, error) {
	file := cfg.Netrc()
	if f.system {
		file = filepath.Join(cmp.Or(os.Getenv("NIX_CONF_DIR"), "/etc/nix"), "netrc")
	}
	if file == "" {
		return "", errors.New("there is no folder for the token: set HOME or XDG_CONFIG_HOME, or name --client-config FILE")
	}
	return filepath.Abs(file)
}

func (f *loginFlags) login(c *cobra.Command, args []string) error {
	cfg, machine, err := f.load(c, args)
	if err != nil {
		return err
	}
	file, err := f.netrc(cfg)
	if err != nil {
		return err
	}
	say := func(format string, args ...any) { fmt.Fprintf(c.ErrOrStderr(), format+"\n", args...) }
	if strings.HasPrefix(cfg.Server, "http://") && machine != "localhost" && !strings.HasPrefix(machine, "127.") && machine != "::1" {
		say("Careful: %s is no https URL, so whoever is on the way can read the token.", cfg.Server)
	}
	l := &login.Login{Issuer: f.issuer, Say: say, Client: func(token string) (*api.Client, error) {
		return command.ClientWith(cfg, token, c.Root().Version)
	}}
	if err := l.Ask(c.Context()); err != nil {
		return err
	}
	r, err := f.obtain(c, l)
	if err != nil {
		return err
	}
	if err := r.Keep(file, machine); err != nil {
		return byRoot(err, f.system)
	}
	return f.report(c, cfg, r, file, say)
}

func byRoot(err error, system bool) error {
	if system && errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: --system is for root, so try sudo narwharf login --system", err)
	}
	return err
}

// obtain logs in, in the way that fits.
func (f *loginFlags) obtain(c *cobra.Command, l *login.Login) (*login.Result, error) {
	tokenFile := c.Flags().Lookup("token-file").Value.String()
	job := (&login.Machine{Getenv: os.Getenv, Run: output}).CI()
	typed := terminal.IsTerminal(c.InOrStdin())
	switch {
	case tokenFile != "" && f.jwtFile != "":
		return nil, errors.New("--token-file and --jwt-file are both given: one is enough")
	case tokenFile != "" || f.jwtFile != "":
		secret, err := readSecret(c, cmp.Or(tokenFile, f.jwtFile))
		if err != nil {
			return nil, err
		}
		return l.With(c.Context(), secret)
	case job != nil:
		return l.Job(c.Context(), job)
	case typed && l.Person():
		return l.Device(c.Context(), &http.Client{Timeout: 30 * time.Second})
	case typed:
		secret, err := readSecret(c, "-")
		if err != nil {
			return nil, err
		}
		return l.With(c.Context(), secret)
	}
	return nil, errors.New("nobody types here, and no CI is known by its environment: give --token-file FILE or --jwt-file FILE (- is stdin), or put a JWT into $" + login.TokenVariable)
}

// output runs a program of the CI.
func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		err = fmt.Errorf("%w: %s", err, clip.Line(strings.TrimSpace(string(failed.Stderr)), 300))
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// readSecret reads a file that holds one thing, or stdin.
func readSecret(c *cobra.Command, file string) (string, error) {
	text := ""
	if file == "-" {
		var err error
		if text, err = terminal.ReadSecret(c.InOrStdin(), c.ErrOrStderr(), "Token: "); err != nil {
			return "", err
		}
	} else {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		text = strings.TrimSpace(string(content))
	}
	if text == "" || strings.ContainsAny(text, " \t\r\n") {
		return "", errors.New("there should be one token, or one JWT, and nothing else")
	}
	return text, nil
}

// report says what was done, and what is left to do.
func (f *loginFlags) report(c *cobra.Command, cfg *configfile.Client, r *login.Result, file string, say func(string, ...any)) error {
	line := "Logged in to " + cfg.Server
	if you := r.You; you != nil {
		line += " as " + clip.Line(you.Name, 200)
		if you.Subject != "" {
			line += " (" + clip.Line(you.Subject, 200) + ")"
		}
		line += ": " + clip.Line(strings.Join(you.Scopes, ", "), 500)
	}
	say("%s", line)
	if !r.Ends.IsZero() {
		say("It ends %s, in %s. Log in again then.", api.TimeText(r.Ends), time.Until(r.Ends).Round(time.Minute))
	}
	say("The token is in %s.", file)
	if f.system {
		return nil // Nix reads it anyway
	}
	if err := login.NameServer(cfg.File(), cfg.Server); err != nil {
		say("Commands do not talk to this server by themselves: %v", err)
	}
	if is, err := configfile.LoadClient(c.Flags().Lookup("client-config").Value.String()); err == nil && is.TokenFile != "" {
		say("Commands go on with the token in %s, which token_file in client.toml or $NARWHARF_TOKEN_FILE names: take that away, and they have this one.", is.TokenFile)
	}
	value := login.NixConfig(os.Getenv("NIX_CONFIG"), file)
	if to := os.Getenv("GITHUB_ENV"); to != "" {
		if err := login.TellActions(to, "NIX_CONFIG", value); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(c.OutOrStdout(), login.Export("NIX_CONFIG", value))
	return err
}
