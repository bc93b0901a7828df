package main

import (
	"cmp"
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/configfile"
	"narwharf/signing"
)

// clientFlags are the flags of commands that talk to a server.
type clientFlags struct {
	server, tokenFile, caFile, config string
	json                              bool
}

func addClientFlags(c *cobra.Command) *clientFlags {
	f := new(clientFlags)
	c.Flags().StringVar(&f.server, "server", "", "`URL` of the server (else $NARWHARF_SERVER, client.toml)")
	c.Flags().StringVar(&f.tokenFile, "token-file", "", "`FILE` with the token, may be a pipe (else $NARWHARF_TOKEN_FILE, client.toml)")
	c.Flags().StringVar(&f.caFile, "ca-file", "", "`FILE` with certificates to trust instead of the system's")
	c.Flags().StringVar(&f.config, "client-config", "", "`FILE` to read instead of ~/.config/narwharf/client.toml")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return f
}

// load reads client.toml and puts flags over it.
func (f *clientFlags) load() (*configfile.Client, error) {
	cfg, err := configfile.LoadClient(f.config)
	if err != nil {
		return nil, err
	}
	cfg.Server = cmp.Or(f.server, cfg.Server)
	cfg.TokenFile = cmp.Or(f.tokenFile, cfg.TokenFile)
	cfg.CAFile = cmp.Or(f.caFile, cfg.CAFile)
	if cfg.Server == "" {
		return nil, errors.New("no server is named: give --server URL, or set NARWHARF_SERVER")
	}
	return cfg, nil
}

func newClient(cfg *configfile.Client) (*api.Client, error) {
	if err := cfg.CheckSecret(cfg.TokenFile); cfg.TokenFile != "" && err != nil {
		return nil, err
	}
	return api.NewClient(api.ClientOptions{
		Servers: []string{cfg.Server}, TokenFile: cfg.TokenFile, CAFile: cfg.CAFile, UserAgent: "narwharf/" + versionText(),
	})
}

// session is a call of a command that talks to a server.
type session struct {
	*api.Client
	ctx       context.Context
	out, errs io.Writer
	json      bool
}

// withServer makes a command one that talks to a server.
func withServer(c *cobra.Command, run func(s *session, args []string) error) *cobra.Command {
	f := addClientFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := f.load()
		if err != nil {
			return err
		}
		client, err := newClient(cfg)
		if err != nil {
			return err
		}
		return run(&session{client, c.Context(), c.OutOrStdout(), c.ErrOrStderr(), f.json}, args)
	}
	return c
}

// show prints v as JSON if --json is there, and else as text does.
func (s *session) show(v any, text func() error) error {
	if s.json {
		return terminal.JSON(s.out, v)
	}
	return text()
}

// entryTable shows what targets are to run.
func entryTable(out io.Writer, entries []signing.Entry) error {
	return terminal.Table(out, "TARGET\tACTION\tSYSTEM\tSTORE PATH", func(row func(...any)) {
		for _, e := range entries {
			row(e.Target, e.Action, e.System, e.StorePath)
		}
	})
}
