package keys

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api"
	"narwharf/hooks/configfile"
	"narwharf/hooks/promoter/rotation"
	"narwharf/signing"
	"narwharf/signing/keyring"
)

// ForChannel is narwharf channel keys.
func ForChannel(version string) *cobra.Command {
	c := command.New("keys CHANNEL [list | add KEY… | retire NAME… | revoke NAME… | recovery KEY… | send FILE]", "which keys sign a channel's releases, over time", 1, -1,
		`Lists the keys that may sign releases of a channel, or changes them. Hosts follow a
change by themselves, from the keys of their configuration on: each is signed by as many
of the keys before as had to sign a release (--threshold), and by as many of those after.

    narwharf channel keys prod
    narwharf channel keys prod add bob.pub --key alice.sec
    narwharf promote prod ./release --key alice.sec --key bob.sec     for a while, with both
    narwharf channel refresh prod --key bob.sec
    narwharf channel keys prod retire alice-1 --key bob.sec

A key that was stolen is revoked by a recovery key, which lies offline. Hosts have it in
their configuration (recovery_keys), and an admin names it to the server:

    narwharf channel keys prod recovery recovery.pub
    narwharf channel keys prod revoke alice-1 --reason 'laptop stolen' --out r.json
    narwharf sign --key recovery.sec r.json       where the recovery key is
    narwharf channel keys prod send r.json

With --out FILE a change is written and not sent; others sign it with narwharf sign.`)
	f := &channelFlags{client: command.AddClientFlags(c), with: AddFlags(c)}
	fl := c.Flags()
	fl.StringSliceVar(&f.trusted, "trusted-key", nil, "public `KEY` or file of who signed what is built upon (default: those of --key)")
	fl.IntVar(&f.threshold, "threshold", 0, "how many of the keys must sign from then on (default: as many as now)")
	fl.StringVar(&f.reason, "reason", "", "why keys are revoked, for people")
	fl.Int64Var(&f.version, "version", -1, "with revoke: the last version of the keys that is right, if that is not the last one")
	fl.Lookup("version").DefValue = "0"
	fl.StringVar(&f.out, "out", "", "write the change to this new `FILE` instead of sending it")
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := f.client.Load()
		if err != nil {
			return err
		}
		r, err := f.rotation(c, cfg, args[0], version)
		if err != nil {
			return err
		}
		verb, rest := "list", args[1:]
		if len(rest) > 0 {
			verb, rest = rest[0], rest[1:]
		}
		return f.run(c, r, verb, rest)
	}
	return c
}

type channelFlags struct {
	client      *command.ClientFlags
	with        *Flags
	trusted     []string
	threshold   int
	reason, out string
	version     int64
}

func (f *channelFlags) rotation(c *cobra.Command, cfg *configfile.Client, channel, version string) (*rotation.Rotation, error) {
	if err := signing.CheckChannel(channel); err != nil {
		return nil, err
	}
	r := &rotation.Rotation{Channel: channel}
	var err error
	if r.Signers, err = f.with.Signers(cfg, c.ErrOrStderr()); err != nil {
		return nil, err
	}
	if r.Trusted, err = ParsePublic("--trusted-key", FirstOf(f.trusted, cfg.TrustedKeys), signing.ParsePromoterKey); err != nil {
		return nil, err
	}
	if len(r.Trusted) > 0 {
		for _, s := range r.Signers {
			r.Trusted = append(r.Trusted, s.Public())
		}
	}
	r.Client, err = command.NewClient(cfg, version)
	return r, err
}

func (f *channelFlags) run(c *cobra.Command, r *rotation.Rotation, verb string, args []string) error {
	ctx := c.Context()
	switch {
	case verb == "list" && len(args) == 0:
		k, err := r.Client.Keys(ctx, r.Channel, nil)
		return f.show(c, k, err)
	case len(args) == 0 || verb == "list":
		return fmt.Errorf("channel keys: it is used as\n    %s", c.UseLine())
	case (verb == "add" || verb == "retire") && len(r.Signers) == 0:
		return errors.New("no key to sign with: give --key FILE")
	}
	var file *rotation.File
	var err error
	switch verb {
	case "add", "recovery":
		var list []signing.PublicKey
		if list, err = ParsePublic(verb, args, signing.ParsePromoterKey); err != nil {
			return err
		}
		if verb == "recovery" {
			k, err := r.Recovery(ctx, list)
			return f.show(c, k, err)
		}
		file, err = r.Add(ctx, list, f.threshold)
	case "retire":
		file, err = r.Retire(ctx, args, f.threshold)
	case "revoke":
		if f.reason == "" {
			return errors.New("say why, with --reason TEXT: it stands in the audit log")
		}
		file, err = r.Revoke(ctx, args, f.reason, f.version)
	case "send":
		file, err = rotation.ReadFile(args[0])
	default:
		return fmt.Errorf("channel keys: %q is none of list, add, retire, revoke, recovery and send", verb)
	}
	if err != nil {
		return err
	}
	if f.out != "" {
		if err = file.Save(f.out); err == nil {
			fmt.Fprintf(c.ErrOrStderr(), "wrote %s; next: narwharf sign --key FILE %[1]s, then narwharf channel keys %s send %[1]s\n", f.out, r.Channel)
		}
		return err
	}
	k, err := r.Send(ctx, file)
	return f.show(c, k, err)
}

// show prints what the keys are.
func (f *channelFlags) show(c *cobra.Command, k *api.Keys, err error) error {
	out := c.OutOrStdout()
	switch {
	case err != nil:
		return err
	case f.client.JSON:
		return terminal.JSON(out, k)
	}
	fmt.Fprintf(out, "channel    %s\norigin     %s\nversion    %d\nthreshold  %d\n", k.Channel, k.Origin, k.Version, k.Threshold)
	for _, list := range []struct {
		name string
		keys []string
	}{{"key", k.Keys}, {"revoked", k.Revoked}, {"recovery", k.Recovery}} {
		for _, text := range list.keys {
			fmt.Fprintf(out, "%-10s %s\n", list.name, text)
		}
	}
	for _, e := range k.Statements {
		s, err := keyring.ParseKeys(e.Payload)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "was made   %s: version %d, %d of %s, signed by %s\n", api.TimeText(s.Created), s.Version, s.Threshold, keyring.Names(s.Public()), signersOf(e))
	}
	return nil
}

func signersOf(e *signing.Envelope) string {
	var names []string
	for _, s := range e.Signatures {
		names = append(names, s.Key)
	}
	return strings.Join(names, ", ")
}

// SignFile is narwharf sign of a change of keys.
func SignFile(out io.Writer, name string, signers []signing.Signer) error {
	f, err := rotation.ReadFile(name)
	if err != nil {
		return err
	}
	if err := f.Show(out); err != nil || len(signers) == 0 {
		return err
	}
	n, err := f.Sign(signers)
	if err == nil {
		fmt.Fprintf(out, "\nsigned; %d signatures now\n", n)
	}
	return err
}
