package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"narwharf/signing"
)

func keyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "key",
		Short: "make signing keys in Nix's format",
		Long: `Keys are those of Nix: "name:base64", Ed25519. Clients list the public key in
trusted-public-keys, the server reads the secret key from a file named in
signing.secret_key_files.

    narwharf key generate cache.example.org-1 > cache.sec
    narwharf key public < cache.sec > cache.pub`,
	}
	c.AddCommand(&cobra.Command{
		Use:   "generate NAME",
		Short: "print a new secret key",
		Long: `Prints a new secret key on stdout. NAME is what clients see in signatures; the
custom is the host name of the cache and a number, for the next key:
cache.example.org-1.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			key, err := signing.GenerateKey(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), key.String())
			return err
		},
	}, &cobra.Command{
		Use:   "public",
		Short: "read a secret key on stdin, print its public key",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			text, err := io.ReadAll(io.LimitReader(c.InOrStdin(), 64<<10))
			if err != nil {
				return fmt.Errorf("read the secret key: %w", err)
			}
			if len(text) == 0 {
				return errors.New("no key on stdin: narwharf key public < cache.sec")
			}
			key, err := signing.ParseSecretKey(string(text))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), key.Public().String())
			return err
		},
	})
	return c
}
