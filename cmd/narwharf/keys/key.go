// Package keys is the commands and flags about signing keys: narwharf key, narwharf channel
// keys, and --key with --sign-cmd.
package keys

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/signing"
)

// Command is narwharf key.
func Command(version string) *cobra.Command {
	c := command.Group("key", "make signing keys in Nix's format",
		`Keys are those of Nix: "name:base64", Ed25519. Clients list the public key in
trusted-public-keys, the server reads the secret key from a file named in
signing.secret_key_files. Releases may be signed with ECDSA P-256 as well, whose keys
say so ("name:ecdsa-p256:base64"): for devices and key services that know no Ed25519.

    narwharf key generate cache.example.org-1 --out cache.sec > cache.pub
    narwharf key public < cache.sec`)
	generate := command.New("generate NAME", "make a new secret key", 1, 1,
		`Writes a new secret key to a file that you alone can read and prints its public
key; without --out it prints the secret key. NAME is what clients see in
signatures; the custom is the host name of the cache and a number, for the next
key: cache.example.org-1.`)
	file := generate.Flags().String("out", "", "write the secret key to this new `FILE`, mode 0600, and print the public key")
	kind := generate.Flags().String("type", "ed25519", "`TYPE` of the key: ed25519, or ecdsa-p256 for releases alone (agents before 0.6 know none)")
	generate.RunE = func(c *cobra.Command, args []string) error {
		make := map[string]func(string) (signing.SecretKey, error){"ed25519": signing.GenerateKey, "ecdsa-p256": signing.GenerateP256}[*kind]
		if make == nil {
			return fmt.Errorf("--type: %q is neither ed25519 nor ecdsa-p256", *kind)
		}
		key, err := make(args[0])
		if err != nil {
			return err
		}
		err = command.WriteSecret(*file, c.OutOrStdout(), func(out io.Writer) error {
			_, err := fmt.Fprintln(out, key.String())
			return err
		})
		if err == nil && *file != "" {
			_, err = fmt.Fprintln(c.OutOrStdout(), key.Public())
		}
		return err
	}
	public := command.New("public", "read a secret key on stdin, print its public key", 0, 0, "")
	public.RunE = func(c *cobra.Command, _ []string) error {
		text, err := io.ReadAll(io.LimitReader(c.InOrStdin(), 64<<10))
		if err != nil {
			return fmt.Errorf("read the secret key: %w", err)
		}
		if len(text) == 0 {
			return errors.New("no key on stdin: narwharf key public < cache.sec")
		}
		key, err := signing.ParsePromoterSecretKey(string(text))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), key.Public().String())
		return err
	}
	c.AddCommand(generate, public, Paths(version))
	return c
}
