package promoter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/signing"
	"narwharf/signing/keyring"
)

// Options say how releases of a channel are made. Client, Channel and Keys are
// enough for most.
type Options struct {
	Client  *api.Client
	Channel string
	Keys    []signing.Signer // that sign
	// Trusted are the keys of promoters whose releases are built upon; Keys if nil.
	Trusted []signing.PublicKey
	// ContentKeys vouch for the cache's bytes, with FromCache and Adopt.
	ContentKeys []signing.PublicKey

	// Kind, ChannelKeys and Threshold are said with the first promote of a channel;
	// later on to change them. Keys are among the channel's by themselves.
	Kind        api.ChannelKind
	ChannelKeys []signing.PublicKey
	Threshold   int // 1 if 0

	// Origin is what hosts know the channel as: if empty that of the last release,
	// else the server's host name, a slash and the channel. Another than that of the
	// last release changes it, which takes the scope admin; with KeepOrigin it is an
	// error.
	Origin     string
	KeepOrigin bool
	IfSeq      *int64        // promote only if the channel is at it; 0: if it is not there yet
	Seq        *int64        // of the release, if not the next one
	Order      *int64        // of the source: a lower one than the last is refused
	Expires    time.Duration // after which hosts do not start on it; 0: never
	Meta       map[string]string
	Action     signing.Action // of the entries that are made; auto if empty
	Last       bool           // hosts may be without an agent then, and follow no more
	System     string         // of paths that do not say it themselves; this machine's if empty

	FromCache bool   // compute closures from the cache's narinfos
	Adopt     bool   // where the cache has other bytes, take them if a content key signed them
	StoreDir  string // /nix/store if empty
	StoreRoot string // prefix of the local store, as in Nix's local?root=

	DryRun bool // the server checks everything, and changes nothing
	// Now goes past waves, bakes, requires, after and quarantine, and needs a Reason and the scope
	// operate; Force goes past quarantine.
	Now, Force bool
	Reason     string
	// RequireHosts is how many hosts must run the release for Wait to be done.
	RequireHosts int
}

// A Promoter makes releases of one channel and sends them.
type Promoter struct {
	Options
	out, err io.Writer

	base     api.Channel   // what the server says the channel is
	baseHead *signing.Head // verified with Trusted; nil if there is none
	baseRaw  [][]byte      // its entries
	keys     int64         // version of the channel's keys, see keyring
}

// New checks the options; it asks no server. Of the writers the first gets what
// was done and the second notes.
func New(o Options, out, err io.Writer) (*Promoter, error) {
	if err := signing.CheckChannel(o.Channel); err != nil {
		return nil, err
	}
	if (o.FromCache || o.Adopt) && len(o.ContentKeys) == 0 {
		return nil, errors.New("--from-cache and --adopt believe the cache only where a --content-key signed")
	}
	if o.Trusted == nil {
		for _, k := range o.Keys {
			o.Trusted = append(o.Trusted, k.Public())
		}
	}
	if o.Action == "" {
		o.Action = signing.Auto
	}
	if o.StoreDir == "" {
		o.StoreDir = "/nix/store"
	}
	return &Promoter{Options: o, out: out, err: err}, nil
}

// readBase reads the channel and verifies its release. A caller who says which
// seq he follows, and takes nothing else from it, needs no keys for that.
func (p *Promoter) readBase(ctx context.Context, entriesToo bool) error {
	p.baseHead, p.baseRaw = nil, nil
	c, err := p.Client.Channel(ctx, p.Channel)
	var e *api.Error
	switch {
	case errors.As(err, &e) && e.Kind == api.NotFound && e.Channel != nil:
		c = e.Channel
	case err != nil:
		return err
	}
	p.base = *c
	if p.keys, err = p.keysVersion(ctx, c.KeysVersion); err != nil {
		return err
	}
	if p.IfSeq != nil && c.Seq != *p.IfSeq {
		return &api.Error{Kind: api.RaceLost, Message: fmt.Sprintf("channel %s is at seq %d, not at %d", p.Channel, c.Seq, *p.IfSeq)}
	}
	if c.Release == nil {
		return nil
	}
	head, _, err := c.Release.Check()
	if err != nil {
		return fmt.Errorf("the channel's release: %w", err)
	}
	origin := head.Origin // signed, and the same key will sign it again
	if p.Origin != "" && p.Origin != origin && (p.KeepOrigin || entriesToo) {
		return fmt.Errorf("the last release of %s cannot be built upon: hosts know the channel as %s, not as %s: correct --origin (or origin in client.toml); to change it, promote whole releases with --origin %[3]s and a token with the scope admin, and tell hosts the new one before", p.Channel, origin, p.Origin)
	}
	_, err = signing.VerifyHead(c.Release.Head, p.trust(origin))
	switch {
	case err == nil:
		p.baseHead, p.baseRaw = head, c.Release.Entries
	case p.IfSeq == nil || entriesToo:
		return fmt.Errorf("the last release of %s cannot be built upon: %w; %s", p.Channel, err, p.whichKey(c))
	}
	return nil
}

// keysVersion is the version of the channel's keys that a release is made under, which hosts
// then have to have come to. The server says it, and a key that is trusted here has to have
// signed it: hosts would refuse a release that names one which is not there.
func (p *Promoter) keysVersion(ctx context.Context, says int64) (int64, error) {
	if says == 0 {
		return 0, nil
	}
	k, err := p.Client.Keys(ctx, p.Channel, nil)
	if err != nil {
		return 0, err
	}
	for _, e := range k.Statements {
		s, err := keyring.ParseKeys(e.Payload)
		if err != nil || s.Version != says || s.Channel != p.Channel {
			continue
		}
		if len(e.Signers(keyring.KeysKind, p.Trusted)) > 0 {
			return says, nil
		}
	}
	fmt.Fprintf(p.err, "none of your keys signed version %d of the keys of %s, so the release does not name it: hosts take it all the same; --trusted-key names who did\n", says, p.Channel)
	return 0, nil
}

// whichKey says what to do where none of the keys signed the last release of a channel,
// by what the server says are the channel's.
func (p *Promoter) whichKey(c *api.Channel) string {
	var signers []string
	for _, s := range c.Release.Head.Signatures {
		signers = append(signers, s.Key)
	}
	for _, k := range p.Keys {
		if slices.Contains(c.Keys, k.Public().String()) {
			return fmt.Sprintf("it was signed by %s: if you trust that promoter, name the key with --trusted-key (the channel's are %s), or say --if-seq %d to build on nothing of it",
				strings.Join(signers, ", "), strings.Join(c.Keys, ", "), c.Seq)
		}
	}
	if len(p.Keys) == 0 {
		return fmt.Sprintf("it was signed by %s: name the key with --trusted-key (the channel's are %s)", strings.Join(signers, ", "), strings.Join(c.Keys, ", "))
	}
	return p.bringIn(c.Keys)
}

// bringIn says how a key that is none of a channel's may sign its releases.
func (p *Promoter) bringIn(keys []string) string {
	mine := p.Keys[0].Public()
	return fmt.Sprintf(`your key %s is none of the channel's, which are %s.
Sign with one of those (--key FILE), or let who has one bring yours in, with a token of the scope admin:
    narwharf promote %s … --key THEIRS.sec --channel-key '%s'
with --channel-key for each other key that shall stay. Hosts take it when their configuration has your key, too.`,
		mine.Name(), strings.Join(keys, ", "), p.Channel, mine)
}

func (p *Promoter) trust(origin string) signing.Trust {
	return signing.Trust{Keys: p.Trusted, Threshold: 1, Origin: origin, Channel: p.Channel}
}
