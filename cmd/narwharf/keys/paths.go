package keys

import (
	"errors"

	"github.com/spf13/cobra"

	"narwharf/cache/nixstore"
	"narwharf/cmd/narwharf/command"
	"narwharf/hooks/promoter"
	"narwharf/signing/external"
)

// Paths is narwharf key sign.
func Paths(version string) *cobra.Command {
	c := command.New("sign PATH…", "sign store paths in the cache with a content key that lies elsewhere", 1, -1,
		`Adds a signature to each path of the closures in the server's cache, after nix copy:
for a content key in a key service or a device, which Nix cannot sign with. What is signed
is what this machine's store has; where the cache has other bytes it is an error. It takes
a token with the scope push. A cache with require_upload_sig takes nothing unsigned in the
first place: there Nix has to sign.

    nix copy --refresh --to "$NARWHARF_SERVER" ./result
    narwharf key sign ./result --key ci.pub --sign-cmd 'kms-sign --key ci'`)
	client, with := command.AddClientFlags(c), AddFlags(c)
	var store nixstore.Options
	c.Flags().StringVar(&store.Root, "store-root", "", "prefix of the local store, as in Nix's local?root=")
	c.Flags().StringVar(&store.StoreDir, "store-dir", "/nix/store", "directory of store paths")
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := client.Load()
		if err != nil {
			return err
		}
		signers, err := with.Signers(cfg, c.ErrOrStderr())
		if err != nil {
			return err
		}
		if len(signers) != 1 {
			return errors.New("name one content key, with --key")
		}
		key := signers[0]
		if !key.Public().NixKnows() {
			return errors.New("--key: it is an ECDSA P-256 key: releases can be signed with one; paths cannot, since Nix knows Ed25519 alone")
		}
		if cmd, ok := key.(*external.Command); ok {
			key = external.NewPool(cmd, 8)
		}
		server, err := command.NewClient(cfg, version)
		if err != nil {
			return err
		}
		return promoter.Vouch(c.Context(), server, key, store, args, c.OutOrStdout())
	}
	return c
}
