package promoter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/signing"
)

// Send signs a release and puts it to the channel. Where the server asks for
// manifests it sends them, and with Adopt it takes the cache's bytes.
func (p *Promoter) Send(ctx context.Context, r *Release) (*api.Promoted, error) {
	for attempt := 0; ; attempt++ {
		body, _, err := p.seal(r)
		if err != nil {
			return nil, err
		}
		answer, err := p.Client.Promote(ctx, p.Channel, p.base.Seq, body, p.DryRun)
		if err == nil {
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
			return nil, explained(e)
		}
	}
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
	sealed, err := signing.SealRelease(h, raw, p.Keys...)
	if err != nil {
		return nil, nil, err
	}
	return p.promotion(sealed), &h, nil
}

// head is the next release's, without its targets.
func (p *Promoter) head() (signing.Head, error) {
	h := signing.Head{Channel: p.Channel, Seq: p.base.Seq + 1, Created: time.Now().UTC().Truncate(time.Second), Origin: p.Origin, Order: p.Order, Meta: p.Meta}
	if p.baseHead != nil {
		h.Seq, h.Origin = p.baseHead.Seq+1, p.baseHead.Origin
	}
	if h.Origin == "" {
		h.Origin = p.Client.Hostname() + "/" + p.Channel
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
		return p.adopt(ctx, e, r)
	}
	return false, nil
}

// adopt replaces lines of our manifests by the cache's, each of which one of the
// content keys must have signed.
func (p *Promoter) adopt(ctx context.Context, e *api.Error, r *Release) (bool, error) {
	adopted := make(map[narinfo.Path]signing.Line)
	for _, d := range e.Differs {
		path, err := narinfo.ParseBase(d.StorePath[strings.LastIndexByte(d.StorePath, '/')+1:])
		if err != nil {
			return false, err
		}
		info, err := p.signedInfo(ctx, path)
		if err != nil {
			return false, fmt.Errorf("--adopt: %w", err)
		}
		adopted[path] = signing.LineOf(info)
	}
	for i := range r.entries {
		m := r.manifests[r.entries[i].Closure]
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
		entry := r.entries[i].Entry
		entry.Closure = next.Digest()
		if r.entries[i], err = newLeaf(entry); err != nil {
			return false, err
		}
		r.manifests[entry.Closure] = next
	}
	for path := range adopted {
		fmt.Fprintf(p.err, "taking the cache's bytes of %s\n", path)
	}
	return len(adopted) > 0, nil
}

// explained is a refusal with what its fields say, for people.
func explained(e *api.Error) error {
	const most = 5
	full := *e
	for _, m := range e.Missing {
		full.Message += fmt.Sprintf("\n  %s lacks %d paths:", m.Target, m.Count)
		for _, path := range m.Paths[:min(most, len(m.Paths))] {
			full.Message += "\n    " + string(path)
		}
		if len(m.Paths) > most {
			full.Message += "\n    …"
		}
	}
	for _, d := range e.Differs[:min(most, len(e.Differs))] {
		full.Message += fmt.Sprintf("\n  %s (target %s)\n    yours %s\n    ours  %s", d.StorePath, d.Target, d.Yours, d.Ours)
	}
	if len(e.Differs) > most {
		full.Message += "\n  …"
	}
	return &full
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
		fmt.Fprintf(p.out, "  %-20s %s\n  %20s %d of %d paths to fetch, %s\n", t.Target, t.To, "", t.FetchPaths, t.Paths, bytesText(t.Fetch))
	}
}

func bytesText(n int64) string {
	for _, unit := range []string{"bytes", "KiB", "MiB"} {
		if n < 10<<10 {
			return fmt.Sprintf("%d %s", n, unit)
		}
		n >>= 10
	}
	return fmt.Sprintf("%d GiB", n)
}
