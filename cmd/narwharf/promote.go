package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/signing"
)

// promoteFlags are those of promote; rollback shares the most of them.
type promoteFlags struct {
	client *clientFlags

	targets                         string
	set                             []string
	keys, trusted, channelKeys      []string
	threshold                       int
	ifSeq, seq                      int64
	action, kind, origin            string
	meta                            []string
	order                           int64
	expires                         string
	fromCache, adopt                bool
	contentKeys                     []string
	out, envelope                   string
	wait, dryRun                    bool
	waitTimeout, offline            time.Duration
	storeRoot, storeDir, systemFlag string
}

func addPromoteFlags(c *cobra.Command) *promoteFlags {
	f := &promoteFlags{client: addClientFlags(c)}
	fl := c.Flags()
	fl.StringSliceVar(&f.keys, "key", nil, "secret key `FILE` to sign with; may be repeated (else client.toml)")
	fl.StringSliceVar(&f.trusted, "trusted-key", nil, "public `KEY` or file of promoters whose releases are built upon (default: those of --key)")
	fl.StringSliceVar(&f.channelKeys, "channel-key", nil, "public `KEY` or file that the channel's releases may be signed by, beside --key; said with the first promote")
	fl.IntVar(&f.threshold, "threshold", 0, "how many of the channel's keys must sign; said with the first promote (default 1)")
	fl.StringVar(&f.kind, "kind", "", "nixos, or path for anything else; said with the first promote (default nixos)")
	fl.StringVar(&f.origin, "origin", "", "what hosts know the channel as (default: the server's host name, /, the channel)")
	fl.Int64Var(&f.ifSeq, "if-seq", -1, "promote only if the channel is at this `SEQ`; 0: if it is not there yet")
	fl.Int64Var(&f.seq, "seq", 0, "`SEQ` of the new release, if not the next one: above what hosts saw before an older backup was restored")
	fl.StringSliceVar(&f.meta, "meta", nil, "`K=V` for people: rev=…, url=…; may be repeated")
	fl.Int64Var(&f.order, "order", 0, "`N` of the source, a commit count or run number: a lower one is refused")
	fl.StringVar(&f.expires, "expires", "", "hosts do not start on it after this `TIME` from now, as 12h or 30d")
	fl.BoolVar(&f.wait, "wait", false, "wait until the hosts run it; exit 0 completed, 3 reverted or failed, 4 superseded, 5 time-out")
	fl.DurationVar(&f.waitTimeout, "wait-timeout", 30*time.Minute, "how long --wait waits")
	fl.DurationVar(&f.offline, "offline-after", time.Minute, "how long --wait waits for hosts that are not there")
	fl.BoolVar(&f.dryRun, "dry-run", false, "check everything and say what would change")
	return f
}

func promoteCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "promote CHANNEL PATH | CHANNEL TARGET=PATH…",
		Short: "point a channel at new systems: the roll-out",
		Long: `Makes, signs and sends the next release of a channel. The closures must be in
the server's cache already (nix copy), byte for byte what this machine has.

    narwharf promote web ./result                 one system for all hosts
    narwharf promote prod web-1=./a web-2=./b     one for each host
    narwharf promote prod --targets hosts.json    {"web-1": "/nix/store/…", …}
    narwharf promote prod ./release               a folder of links to systems
    narwharf promote prod --set web-1=./a         as the last release, but this

With --out FILE the release is written and not sent; others add signatures with
narwharf sign, and narwharf promote CHANNEL --envelope FILE sends it.`,
		Args: cobra.MinimumNArgs(1),
	}
	f := addPromoteFlags(c)
	fl := c.Flags()
	fl.StringVar(&f.targets, "targets", "", "`FILE` of JSON, from target to store path; - for stdin")
	fl.StringSliceVar(&f.set, "set", nil, "`TARGET=PATH` to change in the last release; may be repeated")
	fl.StringVar(&f.action, "action", "auto", "what hosts do: auto (switch; where a reboot is needed, that by the policy's reboot_slots, else by a person), switch, boot, test, dry-activate, reboot")
	fl.BoolVar(&f.fromCache, "from-cache", false, "compute the closures from the cache's narinfos, which --content-key must have signed")
	fl.BoolVar(&f.adopt, "adopt", false, "where the cache has other bytes, take them if --content-key signed them")
	fl.StringSliceVar(&f.contentKeys, "content-key", nil, "public `KEY` or file that vouches for bytes; may be repeated (else client.toml)")
	fl.StringVar(&f.out, "out", "", "write the release to `FILE` instead of sending it")
	fl.StringVar(&f.envelope, "envelope", "", "send the release in `FILE`")
	fl.StringVar(&f.storeRoot, "store-root", "", "prefix of the local store, as in Nix's local?root=")
	fl.StringVar(&f.storeDir, "store-dir", "/nix/store", "directory of store paths")
	fl.StringVar(&f.systemFlag, "system", "", "`SYSTEM` of paths that do not say it themselves (default: this machine's)")
	c.RunE = func(c *cobra.Command, args []string) error {
		p, err := newPromoter(c, f, args[0])
		if err != nil {
			return err
		}
		if f.envelope != "" {
			if len(args) > 1 || len(f.set) > 0 || f.targets != "" || f.seq != 0 {
				return errors.New("--envelope sends what is in the file: it goes with no paths and no --seq")
			}
			return p.sendFile(c.Context(), f.envelope)
		}
		return p.promote(c.Context(), args[1:])
	}
	return c
}

// promoter makes one release of a channel and sends it.
type promoter struct {
	cmd     *cobra.Command
	f       *promoteFlags
	cfg     *clientConfig
	api     *api.Client
	channel string

	keys        []signing.SecretKey
	trusted     []signing.PublicKey
	contentKeys []signing.PublicKey

	base     *api.Channel  // what the server says the channel is
	baseHead *signing.Head // verified with trusted; nil if there is none
	baseRaw  [][]byte
	manifest map[signing.Digest]*signing.Manifest
}

func newPromoter(c *cobra.Command, f *promoteFlags, channel string) (*promoter, error) {
	if err := signing.CheckChannel(channel); err != nil {
		return nil, err
	}
	cfg, err := f.client.load()
	if err != nil {
		return nil, err
	}
	p := &promoter{cmd: c, f: f, cfg: cfg, channel: channel, manifest: make(map[signing.Digest]*signing.Manifest)}
	keyFiles := f.keys
	if len(keyFiles) == 0 {
		keyFiles = cfg.Keys
	}
	if p.keys, err = readSecretKeys(keyFiles); err != nil {
		return nil, err
	}
	if len(p.keys) == 0 && f.out == "" && f.envelope == "" {
		return nil, errors.New("no key to sign with: give --key FILE (make one with narwharf key generate NAME)")
	}
	trusted := f.trusted
	if len(trusted) == 0 {
		trusted = cfg.TrustedKeys
	}
	if p.trusted, err = parsePublicKeys("--trusted-key", trusted); err != nil {
		return nil, err
	}
	if len(trusted) == 0 {
		for _, k := range p.keys {
			p.trusted = append(p.trusted, k.Public())
		}
	}
	content := f.contentKeys
	if len(content) == 0 {
		content = cfg.ContentKeys
	}
	if p.contentKeys, err = parsePublicKeys("--content-key", content); err != nil {
		return nil, err
	}
	if (f.fromCache || f.adopt) && len(p.contentKeys) == 0 {
		return nil, errors.New("--from-cache and --adopt believe the cache only where a --content-key signed")
	}
	p.api, err = cfg.client()
	return p, err
}

// readBase reads the channel and verifies its release: seq and entries that
// are built upon come from what a promoter signed, not from what a server says.
func (p *promoter) readBase(ctx context.Context) error {
	a, err := p.api.Do(ctx, api.Call{Path: channelPath(p.channel), MaxBody: 256 << 20})
	var e *api.Error
	switch {
	case errors.As(err, &e) && e.Kind == api.NotFound && e.Channel != nil:
		p.base = e.Channel
	case err != nil:
		return err
	default:
		p.base = new(api.Channel)
		if err := a.Decode(p.base); err != nil {
			return err
		}
	}
	if p.f.ifSeq >= 0 && p.base.Seq != p.f.ifSeq {
		return exitError{4, fmt.Errorf("channel %s is at seq %d, not at %d", p.channel, p.base.Seq, p.f.ifSeq)}
	}
	if p.base.Release == nil {
		return nil
	}
	head, _, err := p.base.Release.Check()
	if err != nil {
		return fmt.Errorf("the channel's release: %w", err)
	}
	origin, err := p.cfg.origin(p.f.origin, p.channel)
	if err != nil {
		return err
	}
	if p.f.origin == "" && p.cfg.Origin == "" {
		origin = head.Origin // signed, and the same key will sign it again
	}
	_, err = signing.VerifyHead(p.base.Release.Head, signing.Trust{Keys: p.trusted, Threshold: 1, Origin: origin, Channel: p.channel})
	if err != nil {
		if p.f.ifSeq >= 0 && len(p.f.set) == 0 {
			return nil // the caller said which seq he follows, and takes nothing else from it
		}
		return fmt.Errorf("the last release of %s cannot be built upon: %w; name the keys of its promoters with --trusted-key, or say --if-seq %d", p.channel, err, p.base.Seq)
	}
	p.baseHead, p.baseRaw = head, p.base.Release.Entries
	return nil
}

// head is the next release's, without its targets.
func (p *promoter) head() (signing.Head, error) {
	h := signing.Head{Channel: p.channel, Seq: p.base.Seq + 1, Created: time.Now().UTC().Truncate(time.Second)}
	if p.baseHead != nil {
		h.Seq, h.Origin = p.baseHead.Seq+1, p.baseHead.Origin
	}
	if p.cmd.Flags().Changed("seq") {
		if p.f.seq < h.Seq || p.f.seq >= h.Seq+signing.MaxSeqJump {
			return h, fmt.Errorf("--seq %d: the channel is at %d, so it must be from %d to %d: hosts refuse to go back, and a jump over %d",
				p.f.seq, h.Seq-1, h.Seq, h.Seq+signing.MaxSeqJump-1, signing.MaxSeqJump)
		}
		h.Seq = p.f.seq
	}
	if h.Origin == "" || p.f.origin != "" {
		origin, err := p.cfg.origin(p.f.origin, p.channel)
		if err != nil {
			return h, err
		}
		h.Origin = origin
	}
	if p.cmd.Flags().Changed("order") {
		h.Order = &p.f.order
	}
	if p.f.expires != "" {
		d, err := parseAge(p.f.expires)
		if err != nil {
			return h, fmt.Errorf("--expires: %w", err)
		}
		t := h.Created.Add(d)
		h.Expires = &t
	}
	for _, kv := range p.f.meta {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return h, fmt.Errorf("--meta %q is not of the form K=V", kv)
		}
		if h.Meta == nil {
			h.Meta = make(map[string]string)
		}
		h.Meta[k] = v
	}
	return h, nil
}

func (p *promoter) promote(ctx context.Context, args []string) error {
	if err := p.readBase(ctx); err != nil {
		return err
	}
	entries, err := p.entries(ctx, args)
	if err != nil {
		return err
	}
	return p.send(ctx, entries, false)
}

// send signs the entries and puts them to the channel; where the cache differs
// it sends manifests and, with --adopt, takes the cache's lines.
func (p *promoter) send(ctx context.Context, entries []leaf, rollback bool) error {
	for attempt := 0; ; attempt++ {
		h, err := p.head()
		if err != nil {
			return err
		}
		h.Rollback = rollback
		raw := make([][]byte, 0, len(entries))
		for _, e := range entries {
			raw = append(raw, e.raw)
		}
		release, err := signing.SealRelease(h, raw, p.keys...)
		if err != nil {
			return err
		}
		body, err := p.promotion(release)
		if err != nil {
			return err
		}
		if p.f.out != "" {
			return p.writeFile(body, h.Seq)
		}
		answer, err := p.put(ctx, body)
		var e *api.Error
		if errors.As(err, &e) && attempt < 3 {
			again, aerr := p.resolve(ctx, e, entries)
			if aerr != nil {
				return aerr
			}
			if again {
				continue
			}
		}
		if err != nil {
			return p.explain(err)
		}
		return p.done(ctx, answer)
	}
}

// A leaf is an entry with its bytes. Those of an earlier release stay as they
// are: hosts know an entry by its bytes, and a newer narwharf may have written
// fields into it that this one does not know.
type leaf struct {
	signing.Entry
	raw []byte
}

func newLeaf(e signing.Entry) (leaf, error) {
	raw, err := json.Marshal(e)
	return leaf{e, raw}, err
}

func readLeaves(raw [][]byte) ([]leaf, error) {
	var leaves []leaf
	for _, r := range raw {
		e, err := signing.ParseEntry(r)
		if err != nil {
			return nil, err
		}
		leaves = append(leaves, leaf{*e, r})
	}
	return leaves, nil
}

// promotion adds what the first promote of a channel says about it.
func (p *promoter) promotion(r *signing.Release) (*api.Promotion, error) {
	body := &api.Promotion{Release: *r, Kind: api.ChannelKind(p.f.kind)}
	extra, err := parsePublicKeys("--channel-key", p.f.channelKeys)
	if err != nil {
		return nil, err
	}
	if len(p.base.Keys) > 0 && len(extra) == 0 && p.f.threshold == 0 {
		return body, nil // the rules stand
	}
	for _, k := range p.keys {
		body.Keys = append(body.Keys, k.Public().String())
	}
	for _, k := range extra {
		body.Keys = append(body.Keys, k.String())
	}
	body.Threshold = max(p.f.threshold, 1)
	return body, nil
}

func (p *promoter) put(ctx context.Context, body *api.Promotion) (*api.Promoted, error) {
	call := api.Call{Method: http.MethodPut, Path: channelPath(p.channel), Body: body, IfMatch: fmt.Sprintf(`"%d"`, p.base.Seq), Timeout: 10 * time.Minute}
	if p.f.dryRun {
		call.Query = map[string][]string{"dry_run": {"1"}}
	}
	a, err := p.api.Do(ctx, call)
	if err != nil {
		return nil, err
	}
	answer := new(api.Promoted)
	return answer, a.Decode(answer)
}

// resolve does what can be done about a refusal, and tells whether to go on.
func (p *promoter) resolve(ctx context.Context, e *api.Error, entries []leaf) (again bool, err error) {
	switch {
	case e.Kind == api.ManifestMissing:
		for _, text := range e.Closures {
			d, err := signing.ParseDigest(text)
			if err != nil {
				return false, err
			}
			m := p.manifest[d]
			if m == nil {
				return false, fmt.Errorf("the server asks for a manifest %s that is none of this release", d)
			}
			_, err = p.api.Do(ctx, api.Call{Method: http.MethodPut, Path: "/api/v1/closures/" + d.Hex(), Body: m.Text(), Timeout: 10 * time.Minute})
			if err != nil {
				return false, err
			}
		}
		return true, nil
	case e.Kind == api.ClosureDiffers && p.f.adopt:
		return p.takeOver(ctx, e, entries)
	}
	return false, nil
}

// takeOver replaces lines of our manifests by the cache's, each of which one
// of the content keys must have signed.
func (p *promoter) takeOver(ctx context.Context, e *api.Error, entries []leaf) (bool, error) {
	adopted := make(map[narinfo.Path]signing.Line)
	for _, d := range e.Differs {
		base := d.StorePath[strings.LastIndexByte(d.StorePath, '/')+1:]
		path, err := narinfo.ParseBase(base)
		if err != nil {
			return false, err
		}
		info, err := p.signedInfo(ctx, path)
		if err != nil {
			return false, fmt.Errorf("--adopt: %w", err)
		}
		adopted[path] = signing.LineOf(info)
	}
	for i := range entries {
		m := p.manifest[entries[i].Closure]
		if m == nil {
			continue
		}
		next := &signing.Manifest{StoreDir: m.StoreDir}
		changed := false
		for _, l := range m.Lines {
			if a, ok := adopted[l.Path]; ok {
				l, changed = a, true
			}
			next.Lines = append(next.Lines, l)
		}
		if !changed {
			continue
		}
		_, err := signing.ReadManifest(next.Text())
		if err != nil {
			return false, fmt.Errorf("--adopt: the cache's paths do not make a closure: %w", err)
		}
		changedEntry := entries[i].Entry
		changedEntry.Closure = next.Digest()
		if entries[i], err = newLeaf(changedEntry); err != nil {
			return false, err
		}
		p.manifest[next.Digest()] = next
	}
	for path := range adopted {
		fmt.Fprintf(p.cmd.ErrOrStderr(), "taking the cache's bytes of %s\n", path)
	}
	return len(adopted) > 0, nil
}

// explain adds to a refusal what its fields say, for people.
func (p *promoter) explain(err error) error {
	var e *api.Error
	if !errors.As(err, &e) {
		return err
	}
	text := e.Message
	for _, m := range e.Missing {
		text += fmt.Sprintf("\n  %s lacks %d paths:", m.Target, m.Count)
		for i, path := range m.Paths {
			if i == 5 {
				text += "\n    …"
				break
			}
			text += "\n    " + string(path)
		}
	}
	for i, d := range e.Differs {
		if i == 5 {
			text += "\n  …"
			break
		}
		text += fmt.Sprintf("\n  %s (target %s)\n    yours %s\n    ours  %s", d.StorePath, d.Target, d.Yours, d.Ours)
	}
	code := 2
	if e.Kind == api.RaceLost {
		code = 4
	}
	return exitError{code, errors.New(text)}
}

// done prints what a promote did, and waits if asked to.
func (p *promoter) done(ctx context.Context, a *api.Promoted) error {
	if p.f.client.json && !p.f.wait {
		return printJSON(p.cmd, a)
	}
	out := p.cmd.OutOrStdout()
	verb := "promoted"
	switch {
	case a.DryRun:
		verb = "would promote"
	case a.Already:
		verb = "already promoted"
	}
	if !p.f.client.json {
		fmt.Fprintf(out, "%s %s to seq %d: %d changed, %d unchanged, %d removed\n", verb, a.Channel, a.Seq, len(a.Changed), a.Unchanged, len(a.Removed))
		for _, t := range a.Changed {
			fmt.Fprintf(out, "  %-20s %s\n  %20s %d of %d paths to fetch, %s\n", t.Target, t.To, "", t.FetchPaths, t.Paths, bytesText(t.Fetch))
		}
	}
	if a.DryRun || !p.f.wait {
		return nil
	}
	return p.waitFor(ctx, a)
}

func bytesText(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	case n < 10<<30:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d GiB", n>>30)
}
