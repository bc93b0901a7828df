package promoter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"narwharf/cache/state/progress"
	"narwharf/hooks/api"
	"narwharf/hooks/api/retention"
	"narwharf/narinfo"
	"narwharf/narinfo/clip"
	"narwharf/signing"
)

// Send signs a release and puts it to the channel. Where the server asks for
// manifests it sends them, and with Adopt it takes the cache's bytes.
func (p *Promoter) Send(ctx context.Context, r *Release) (*api.Promoted, error) {
	defer progress.Every(ctx, "seconds that the server has been checking the closures, and keeping what is its machine's own", time.Second)()
	for attempt := 0; ; attempt++ {
		body, head, err := p.seal(r)
		if err != nil {
			return nil, err
		}
		answer, err := p.Client.PromoteAs(ctx, p.Channel, p.base.Seq, body, p.as())
		if err == nil {
			if p.base.Release == nil && p.base.Origin == "" && p.Origin == "" {
				fmt.Fprintf(p.err, "the origin of %s is %s: hosts are configured with it, and it stays\n", p.Channel, head.Origin)
			}
			p.report(answer)
			return answer, nil
		}
		var e *api.Error
		if !errors.As(err, &e) {
			return nil, err
		}
		again := false
		if attempt < 3 {
			if again, err = p.resolve(ctx, e, r); err != nil {
				return nil, err
			}
		}
		if !again {
			return nil, p.explained(e, r)
		}
	}
}

// Quiet calls send, and prints nothing of it.
func (p *Promoter) Quiet(send func() (*api.Promoted, error)) (*api.Promoted, error) {
	out := p.out
	p.out = io.Discard
	defer func() { p.out = out }()
	return send()
}

func (p *Promoter) as() api.PromoteAs {
	return api.PromoteAs{DryRun: p.DryRun, Now: p.Now, Force: p.Force, Reason: p.Reason}
}

// seal makes the next release of the channel and signs it.
func (p *Promoter) seal(r *Release) (*api.Promotion, *signing.Head, error) {
	h, err := p.head()
	if err != nil {
		return nil, nil, err
	}
	h.Rollback = r.rollback
	raw := make([][]byte, 0, len(r.entries))
	for _, e := range r.entries {
		raw = append(raw, e.raw)
	}
	sealed, err := signing.SealRelease(h, raw)
	if err == nil {
		err = signBy(sealed.Head, p.Keys)
	}
	if err != nil {
		return nil, nil, err
	}
	return p.promotion(sealed), &h, nil
}

func signBy(head *signing.Envelope, keys []signing.Signer) error {
	for _, k := range keys {
		if err := head.SignBy(signing.HeadKind, k); err != nil {
			return err
		}
	}
	return nil
}

// head is the next release's, without its targets.
func (p *Promoter) head() (signing.Head, error) {
	h := signing.Head{Channel: p.Channel, Seq: p.base.Seq + 1, Created: time.Now().UTC().Truncate(time.Second), Order: p.Order, Meta: p.Meta, KeysVersion: p.keys}
	if p.baseHead != nil {
		h.Seq = p.baseHead.Seq + 1
	}
	var err error
	if h.Origin, err = p.origin(); err != nil {
		return h, err
	}
	if p.Seq != nil {
		if *p.Seq < h.Seq || *p.Seq >= h.Seq+signing.MaxSeqJump {
			return h, fmt.Errorf("--seq %d: the channel is at %d, so it must be from %d to %d: hosts refuse to go back, and a jump over %d",
				*p.Seq, h.Seq-1, h.Seq, h.Seq+signing.MaxSeqJump-1, signing.MaxSeqJump)
		}
		h.Seq = *p.Seq
	}
	if p.Expires > 0 {
		t := h.Created.Add(p.Expires)
		h.Expires = &t
	}
	return h, nil
}

// origin is what hosts know the channel as. The first release settles it, so an address
// that happens to be the server's today has to be said.
func (p *Promoter) origin() (string, error) {
	was := p.base.Origin
	if p.baseHead != nil {
		was = p.baseHead.Origin
	}
	if is := cmp.Or(p.Origin, was); is != "" {
		if was != "" && is != was {
			fmt.Fprintf(p.err, "the origin of %s changes from %s to %s: hosts refuse it until their configuration says the new one\n", p.Channel, was, is)
		}
		return is, nil
	}
	name := p.Client.Hostname()
	if name == "localhost" || strings.HasSuffix(name, ".localhost") || net.ParseIP(name) != nil {
		return "", fmt.Errorf("channel %s has no release yet, and the first says its origin: the name by which hosts know it, which stays. %s is no name for that: give it one that will be the server's, as --origin cache.example.org/%[1]s, or say --origin %s/%[1]s if that is what hosts are configured with", p.Channel, name, name)
	}
	return name + "/" + p.Channel, nil
}

// promotion adds what the first promote of a channel says about it.
func (p *Promoter) promotion(r *signing.Release) *api.Promotion {
	body := &api.Promotion{Release: *r, Kind: p.Kind}
	if len(p.base.Keys) > 0 && len(p.ChannelKeys) == 0 && p.Threshold == 0 {
		return body // the rules stand
	}
	for _, k := range p.Keys {
		body.Keys = append(body.Keys, k.Public().String())
	}
	for _, k := range p.ChannelKeys {
		body.Keys = append(body.Keys, k.String())
	}
	body.Threshold = max(p.Threshold, 1)
	return body
}

// resolve does what can be done about a refusal, and tells whether to go on.
func (p *Promoter) resolve(ctx context.Context, e *api.Error, r *Release) (again bool, err error) {
	switch {
	case e.Kind == api.ManifestMissing:
		for _, text := range e.Closures {
			d, err := signing.ParseDigest(text)
			if err != nil {
				return false, err
			}
			m := r.manifests[d]
			if m == nil {
				return false, fmt.Errorf("the server asks for a manifest %s that is none of this release", d)
			}
			if err := p.Client.PutClosure(ctx, m); err != nil {
				return false, err
			}
		}
		return true, nil
	case e.Kind == api.ClosureDiffers && p.Adopt:
		return p.takeTheirs(ctx, e, r)
	}
	return false, nil
}

// takeTheirs replaces lines of our manifests by the cache's, each of which one of the
// content keys must have signed.
func (p *Promoter) takeTheirs(ctx context.Context, e *api.Error, r *Release) (bool, error) {
	taken := make(map[narinfo.Path]signing.Line)
	for _, d := range e.Differs {
		path, err := narinfo.ParseBase(d.StorePath[strings.LastIndexByte(d.StorePath, '/')+1:])
		if err != nil {
			return false, err
		}
		info, err := p.signedInfo(ctx, path)
		if err != nil {
			return false, fmt.Errorf("--adopt: %w", err)
		}
		taken[path] = signing.LineOf(info)
	}
	for i := range r.entries {
		m := r.manifests[r.entries[i].Closure]
		if m == nil {
			continue
		}
		next := &signing.Manifest{StoreDir: m.StoreDir}
		changed := false
		for _, l := range m.Lines {
			if a, ok := taken[l.Path]; ok {
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
		entry := r.entries[i].Entry
		entry.Closure = next.Digest()
		if r.entries[i], err = newLeaf(entry); err != nil {
			return false, err
		}
		r.manifests[entry.Closure] = next
	}
	for path := range taken {
		fmt.Fprintf(p.err, "taking the cache's bytes of %s\n", path)
	}
	return len(taken) > 0, nil
}

// explained is a refusal with what its fields say, for people.
func (p *Promoter) explained(e *api.Error, r *Release) error {
	const most = 5
	full := *e
	if e.Kind == api.BadSignature && len(p.Keys) > 0 && len(p.base.Keys) > 0 && !slices.ContainsFunc(p.Keys, func(k signing.Signer) bool { return slices.Contains(p.base.Keys, k.Public().String()) }) {
		full.Message += "\n" + p.bringIn(p.base.Keys)
	}
	if len(e.Missing) > 0 && !r.rollback { // of what was collected the server has the words
		full.Message = "not everything is in the cache yet:"
		var roots []string
		for i, m := range e.Missing {
			if i < most {
				full.Message += fmt.Sprintf("\n  target %s lacks %s:\n    %s", m.Target, clip.Count(m.Count, "path"), listed(m.Paths, most, "\n    "))
			}
			if at := slices.IndexFunc(r.entries, func(l leaf) bool { return l.Target == m.Target }); at >= 0 {
				roots = append(roots, r.entries[at].StorePath)
			}
		}
		if more := len(e.Missing) - most; more > 0 {
			full.Message += fmt.Sprintf("\n  and %d more targets", more)
		}
		slices.Sort(roots)
		full.Message += fmt.Sprintf("\nUpload it, then promote again (--netrc-file FILE after copy, where that needs a token):\n    nix copy --refresh --to '%s' %s", p.Client.Server(), listed(slices.Compact(roots), 20, " "))
	}
	for _, d := range e.Differs[:min(most, len(e.Differs))] {
		full.Message += fmt.Sprintf("\n  %s (target %s)\n    yours %s\n    ours  %s", d.StorePath, d.Target, d.Yours, d.Ours)
	}
	if len(e.Differs) > most {
		full.Message += "\n  …"
	}
	return &full
}

// listed is the first of some names, with dots for the others.
func listed[S ~string](names []S, most int, between string) string {
	var text strings.Builder
	for i, n := range names {
		if i > 0 {
			text.WriteString(between)
		}
		if i == most {
			text.WriteString("…")
			break
		}
		text.WriteString(string(n))
	}
	return text.String()
}

// report prints what a promote did.
func (p *Promoter) report(a *api.Promoted) {
	verb := "promoted"
	switch {
	case a.DryRun:
		verb = "would promote"
	case a.Already:
		verb = "already promoted"
	}
	fmt.Fprintf(p.out, "%s %s to seq %d: %d changed, %d unchanged, %d removed\n", verb, a.Channel, a.Seq, len(a.Changed), a.Unchanged, len(a.Removed))
	for _, t := range a.Changed {
		fmt.Fprintf(p.out, "  %-20s %s\n  %20s %d of %d paths to fetch, %s\n", t.Target, t.To, "", t.FetchPaths, t.Paths, retention.Bytes(t.Fetch))
	}
}
