package access

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/hooks/api"
	wire "narwharf/hooks/api/login"
	"narwharf/hooks/login/netrc"
)

// Logout is the command logout.
func Logout() *cobra.Command {
	c := command.New("logout [SERVER]", "end the token that login got, and forget it", 0, 1,
		`The server forgets the token, and its lines go out of netrc. A token of narwharf
token new stays good; who made it revokes it.`)
	f := &loginFlags{client: command.AddClientFlags(c)}
	c.Flags().BoolVar(&f.system, "system", false, "take it out of /etc/nix/netrc")
	f.adapt(c, "")
	command.Must(c.Flags().MarkHidden("token-file"))
	c.RunE = func(c *cobra.Command, args []string) error { return f.logout(c, args) }
	return c
}

func (f *loginFlags) logout(c *cobra.Command, args []string) error {
	cfg, machine, err := f.load(c, args)
	if err != nil {
		return err
	}
	file, err := f.netrc(cfg)
	if err != nil {
		return err
	}
	token, err := netrc.Password(file, machine)
	if err != nil {
		return byRoot(err, f.system)
	}
	if token == "" {
		return fmt.Errorf("%s has nothing for %s: there is no login to end", file, machine)
	}
	client, err := command.ClientWith(cfg, token, c.Root().Version)
	if err != nil {
		return err
	}
	revoked := wire.Client{Client: client}.Revoke(c.Context())
	if _, err := netrc.Remove(file, machine); err != nil {
		return byRoot(err, f.system)
	}
	out := c.ErrOrStderr()
	fmt.Fprintf(out, "The token for %s is out of %s.\n", machine, file)
	var e *api.Error
	switch {
	case revoked == nil:
		fmt.Fprintln(out, "The server has forgotten it.")
	case errors.As(revoked, &e) && e.Kind == api.Unauthorized:
		fmt.Fprintln(out, "It was worth nothing any more.")
	case errors.As(revoked, &e):
		fmt.Fprintf(out, "It stays good where it was copied to: %v\n", revoked)
	default:
		return fmt.Errorf("it is good until it ends, since the server was not told: %w", revoked)
	}
	return nil
}
