// Package client has the commands that set this machine up as a client of a cache, and look at what
// is wrong with it, with a host, or with a server.
package client

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api/trust"
	"narwharf/hooks/configfile"
	"narwharf/hooks/doctor"
	"narwharf/hooks/doctor/client"
	"narwharf/hooks/doctor/remote"
	"narwharf/hooks/login/netrc"
	"narwharf/hooks/nixconf"
	"narwharf/narinfo/clip"
)

// Commands are those of this package.
func Commands() []*cobra.Command { return []*cobra.Command{useCommand(), doctorCommand()} }

// before is this machine and the cache that the flags and an argument name.
func before(c *cobra.Command, f *command.ClientFlags, args []string) (*client.Client, *configfile.Client, error) {
	if len(args) > 0 {
		command.Must(c.Flags().Set("server", args[0]))
	}
	cfg, err := f.Load()
	if err != nil {
		return nil, nil, err
	}
	cache, err := remote.New(cfg.Server, trust.Files{CA: cfg.CAFile, Cert: cfg.CertFile, Key: cfg.KeyFile})
	if err != nil {
		return nil, nil, fmt.Errorf("server %w", err)
	}
	m, err := nixconf.Load()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: Nix does not read that either", err)
	}
	return &client.Client{Machine: m, Cache: cache, Home: os.Getenv("HOME")}, cfg, nil
}

// token is the one that the flags name, or that narwharf login has kept for the cache.
func token(c *cobra.Command, cfg *configfile.Client, host string) (string, error) {
	if cfg.TokenFile != "" {
		return command.ReadToken(cfg.TokenFile, c.InOrStdin())
	}
	password, err := netrc.Password(cfg.Netrc(), host)
	if password == "" && err == nil {
		err = errors.New("no token is kept for " + host + ": narwharf login gets one, or name --token-file FILE")
	}
	return password, err
}

// show prints a report; faults make the exit status 1.
func show(out io.Writer, r *doctor.Report, asJSON bool) error {
	if asJSON {
		if err := terminal.JSON(out, r); err != nil {
			return err
		}
	} else {
		for _, f := range r.Findings {
			fmt.Fprintf(out, "%-8s %s: %s\n", f.Level, f.Check, clip.Line(f.Text, 2000))
			for _, line := range f.Type {
				fmt.Fprintf(out, "             %s\n", clip.Line(line, 2000))
			}
		}
	}
	if r.Faults() > 0 {
		return command.Exit(1)
	}
	return nil
}
