package promote

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/keys"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/configfile"
	"narwharf/hooks/promoter"
	"narwharf/signing"
)

// Flags are those of promote; rollback shares the most of them.
type Flags struct {
	client  *command.ClientFlags
	options promoter.Options
	bar     *terminal.Progress

	targets                           string
	set                               []string
	keys                              *keys.Flags
	trusted, channelKeys, contentKeys []string
	ifSeq                             *int64
	seq, order                        int64
	meta                              []string
	expires                           string
	out, envelope                     string
	wait                              bool
	timeout, offline                  time.Duration
	summary                           string
}

// AddFlags adds them to a command.
func AddFlags(c *cobra.Command) *Flags {
	f := &Flags{client: command.AddClientFlags(c), keys: keys.AddFlags(c)}
	fl := c.Flags()
	fl.StringSliceVar(&f.trusted, "trusted-key", nil, "public `KEY` or file of promoters whose releases are built upon (default: those of --key)")
	fl.StringSliceVar(&f.channelKeys, "channel-key", nil, "public `KEY` or file that the channel's releases may be signed by, beside --key; said with the first promote")
	fl.IntVar(&f.options.Threshold, "threshold", 0, "how many of the channel's keys must sign; said with the first promote (default 1)")
	fl.StringVar((*string)(&f.options.Kind), "kind", "", "nixos, or path for anything else; said with the first promote (default nixos)")
	fl.StringVar(&f.options.Origin, "origin", "", "what hosts know the channel as: `NAME/CHANNEL`, said by its first release (default: the server's host name, /, the channel); another later takes the scope admin")
	f.ifSeq = command.IfSeq(c, "promote only if the channel is at this `SEQ`; 0: if it is not there yet")
	fl.Int64Var(&f.seq, "seq", 0, "`SEQ` of the new release, if not the next one: above what hosts saw before an older backup was restored")
	fl.StringArrayVar(&f.meta, "meta", nil, "`K=V` for people: rev=…, url=…; may be repeated")
	fl.Int64Var(&f.order, "order", 0, "`N` of the source, a commit count or run number: a lower one is refused")
	fl.StringVar(&f.expires, "expires", "", "hosts do not start on it after this `TIME` from now, as 12h or 30d")
	fl.BoolVar(&f.wait, "wait", false, "wait until the hosts run it, and say who does not; exit 0 completed, 3 reverted or failed in a channel without roll-outs, 4 superseded, 5 time-out, 6 halted, 7 aborted")
	fl.IntVar(&f.options.RequireHosts, "require-hosts", 0, "with --wait: not done before `N` hosts run it")
	f.timeout, f.offline = 30*time.Minute, time.Minute
	fl.Var((*configfile.Duration)(&f.timeout), "wait-timeout", "how long --wait waits")
	fl.Var((*configfile.Duration)(&f.offline), "offline-after", "how long --wait waits for hosts that are not there")
	fl.BoolVar(&f.options.DryRun, "dry-run", false, "check everything and say what would change, on which hosts")
	fl.BoolVar(&f.options.Now, "now", false, "past the policy's waves, bakes, checks, requires and quarantine, with --reason; takes the scope operate")
	fl.BoolVar(&f.options.Force, "force", false, "in spite of a quarantine")
	fl.StringVar(&f.options.Reason, "reason", "", "`TEXT` for people who ask why, and the audit log")
	fl.StringVar(&f.summary, "summary", "", "append Markdown to `FILE`: the plan before, with --wait the outcome after (as $GITHUB_STEP_SUMMARY)")
	return f
}

// Promoter is made of the flags, of client.toml and of the environment.
func (f *Flags) Promoter(c *cobra.Command, channel string) (*promoter.Promoter, error) {
	if err := signing.CheckChannel(channel); err != nil {
		return nil, err
	}
	cfg, err := f.client.Load()
	if err != nil {
		return nil, err
	}
	o := &f.options
	o.Channel = channel
	switch {
	case o.Now && strings.TrimSpace(o.Reason) == "":
		return nil, errors.New(`--now goes past what the policy asks for, and people will ask why: add --reason "…"`)
	case f.summary != "" && f.out != "":
		return nil, errors.New("--summary tells what a release does when it is sent: it goes with no --out")
	}
	if err := f.readKeys(cfg, c.ErrOrStderr()); err != nil {
		return nil, err
	}
	if err := f.readOptions(c, cfg); err != nil {
		return nil, err
	}
	if o.Client, err = command.NewClient(cfg, c.Root().Version); err != nil {
		return nil, err
	}
	out := c.OutOrStdout()
	if f.client.JSON {
		out = io.Discard
	}
	f.bar = terminal.NewProgress(c.ErrOrStderr())
	c.SetContext(f.bar.With(c.Context()))
	return promoter.New(*o, f.bar.Writer(out), f.bar.Writer(c.ErrOrStderr()))
}

// readKeys reads the keys that sign, and those that are believed.
func (f *Flags) readKeys(cfg *configfile.Client, words io.Writer) (err error) {
	o := &f.options
	if o.Keys, err = f.keys.Signers(cfg, words); err != nil {
		return err
	}
	if len(o.Keys) == 0 && f.out == "" && f.envelope == "" {
		return errors.New("no key to sign with: give --key FILE (make one with narwharf key generate NAME)")
	}
	for _, k := range []struct {
		flag   string
		values []string
		keys   *[]signing.PublicKey
		parse  func(string) (signing.PublicKey, error)
	}{
		{"--trusted-key", keys.FirstOf(f.trusted, cfg.TrustedKeys), &o.Trusted, signing.ParsePromoterKey},
		{"--content-key", keys.FirstOf(f.contentKeys, cfg.ContentKeys), &o.ContentKeys, signing.ParsePublicKey},
		{"--channel-key", f.channelKeys, &o.ChannelKeys, signing.ParsePromoterKey},
	} {
		if *k.keys, err = keys.ParsePublic(k.flag, k.values, k.parse); err != nil {
			return err
		}
	}
	return nil
}

// readOptions reads what else a release says, and what it is sent upon.
func (f *Flags) readOptions(c *cobra.Command, cfg *configfile.Client) (err error) {
	o := &f.options
	if o.Meta, err = pairs("--meta", "K=V", f.meta); err != nil {
		return err
	}
	if f.expires != "" {
		if o.Expires, err = command.ParseAge(f.expires); err != nil {
			return fmt.Errorf("--expires: %w", err)
		}
	}
	if o.Origin == "" && cfg.Origin != "" {
		o.Origin, o.KeepOrigin = strings.TrimRight(cfg.Origin, "/")+"/"+o.Channel, true
	}
	if *f.ifSeq >= 0 {
		o.IfSeq = f.ifSeq
	}
	if c.Flags().Changed("seq") {
		o.Seq = &f.seq
	}
	if c.Flags().Changed("order") {
		o.Order = &f.order
	}
	return nil
}
