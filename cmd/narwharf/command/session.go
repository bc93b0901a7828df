package command

import (
	"cmp"
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/api/trust"
	"narwharf/hooks/configfile"
	"narwharf/hooks/login/netrc"
)

// ClientFlags are the flags of commands that talk to a server.
type ClientFlags struct {
	server, tokenFile, caFile, config string
	JSON                              bool
	Makes                             bool // the file that --client-config names, if it is not there
}

// AddClientFlags adds them to a command.
func AddClientFlags(c *cobra.Command) *ClientFlags {
	f := new(ClientFlags)
	c.Flags().StringVar(&f.server, "server", "", "`URL` of the server (else $NARWHARF_SERVER, client.toml)")
	c.Flags().StringVar(&f.tokenFile, "token-file", "", "`FILE` with the token, may be a pipe (else $NARWHARF_TOKEN_FILE, client.toml, what narwharf login got)")
	c.Flags().StringVar(&f.caFile, "ca-file", "", "`FILE` with certificates to trust instead of the system's (else $NARWHARF_CA_FILE, client.toml)")
	c.Flags().StringVar(&f.config, "client-config", "", "`FILE` to read instead of ~/.config/narwharf/client.toml")
	c.Flags().BoolVar(&f.JSON, "json", false, "print JSON")
	return f
}

// Load reads client.toml and puts flags over it.
func (f *ClientFlags) Load() (*configfile.Client, error) {
	load := configfile.LoadClient
	if f.Makes {
		load = configfile.LoadClientToMake
	}
	cfg, err := load(f.config)
	if err != nil {
		return nil, err
	}
	cfg.Server = cmp.Or(f.server, cfg.Server)
	cfg.TokenFile = cmp.Or(f.tokenFile, cfg.TokenFile)
	cfg.CAFile = cmp.Or(f.caFile, cfg.CAFile)
	if cfg.Server == "" {
		return nil, errors.New("no server is named: give --server URL, set NARWHARF_SERVER, or run narwharf login URL, which writes it into ~/.config/narwharf/client.toml")
	}
	return cfg, nil
}

// NewClient is a client of the server that the configuration names, with the token that it has for
// it: of token_file, or what narwharf login has kept.
func NewClient(cfg *configfile.Client, version string) (*api.Client, error) {
	if err := cfg.CheckSecret(cfg.TokenFile); cfg.TokenFile != "" && err != nil {
		return nil, err
	}
	o := api.ClientOptions{TokenFile: cfg.TokenFile}
	if o.TokenFile == "" {
		var err error
		if o.Token, err = keptToken(cfg); err != nil {
			return nil, err
		}
	}
	return newClient(cfg, o, version)
}

// ClientWith is NewClient with another token, or without one ("").
func ClientWith(cfg *configfile.Client, token, version string) (*api.Client, error) {
	return newClient(cfg, api.ClientOptions{Token: token}, version)
}

func newClient(cfg *configfile.Client, o api.ClientOptions, version string) (*api.Client, error) {
	if err := cfg.CheckSecret(cfg.KeyFile); cfg.KeyFile != "" && err != nil {
		return nil, err
	}
	o.Servers, o.UserAgent = []string{cfg.Server}, "narwharf/"+version
	o.Trust = trust.Files{CA: cfg.CAFile, Cert: cfg.CertFile, Key: cfg.KeyFile}
	return api.NewClient(o)
}

// keptToken is what narwharf login has kept for the server, "" if nothing.
func keptToken(cfg *configfile.Client) (string, error) {
	u, err := api.ParseURL(cfg.Server)
	if err != nil {
		return "", nil // whoever uses it says so
	}
	token, err := netrc.Password(cfg.Netrc(), u.Hostname())
	if token != "" && err == nil {
		err = cfg.CheckSecret(cfg.Netrc())
	}
	return token, err
}

// Session is a call of a command that talks to a server.
type Session struct {
	*api.Client
	Ctx       context.Context
	Out, Errs io.Writer
	JSON      bool
}

// WithServer makes a command one that talks to a server.
func WithServer(c *cobra.Command, run func(s *Session, args []string) error) *cobra.Command {
	f := AddClientFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := f.Load()
		if err != nil {
			return err
		}
		client, err := NewClient(cfg, c.Root().Version)
		if err != nil {
			return err
		}
		return run(&Session{client, c.Context(), c.OutOrStdout(), c.ErrOrStderr(), f.JSON}, args)
	}
	return c
}

// Show prints v as JSON if --json is there, and else as text does.
func (s *Session) Show(v any, text func() error) error {
	if s.JSON {
		return terminal.JSON(s.Out, v)
	}
	return text()
}
