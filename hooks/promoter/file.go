package promoter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"narwharf/cache/state/durable"
	"narwharf/hooks/api"
	"narwharf/signing"
)

// Save writes a release to a new file instead of sending it, and says what is next.
func (p *Promoter) Save(r *Release, file string) error {
	body, head, err := p.seal(r)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err == nil {
		_, err = f.Write(append(text, '\n'))
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	over := "" // which release it follows, if it is not the one before
	if p.base.Seq != head.Seq-1 {
		over = fmt.Sprintf(" --if-seq %d", p.base.Seq)
	}
	fmt.Fprintf(p.err, "wrote seq %d of %s to %s with %d signatures; next: narwharf sign --key FILE %s, then narwharf promote %s --envelope %s%s\n",
		head.Seq, p.Channel, file, len(body.Head.Signatures), file, p.Channel, file, over)
	return nil
}

// SendFile sends the release in a file, signed with Keys too. It follows the one
// before its seq, unless IfSeq says another.
func (p *Promoter) SendFile(ctx context.Context, file string) (*api.Promoted, error) {
	body, head, _, err := ReadFile(file)
	if err != nil {
		return nil, err
	}
	if head.Channel != p.Channel {
		return nil, fmt.Errorf("%s is a release of %s, not of %s", file, head.Channel, p.Channel)
	}
	for _, k := range p.Keys {
		body.Head.Sign(signing.HeadKind, k)
	}
	after := head.Seq - 1
	if p.IfSeq != nil {
		after = *p.IfSeq
	}
	answer, err := p.Client.Promote(ctx, p.Channel, after, body, p.DryRun)
	var e *api.Error
	if errors.As(err, &e) {
		return nil, explained(e)
	}
	if err != nil {
		return nil, err
	}
	p.report(answer)
	return answer, nil
}

// ReadFile reads a release that Save wrote. Its signatures are not verified.
func ReadFile(file string) (*api.Promotion, *signing.Head, []signing.Entry, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, nil, err
	}
	body := new(api.Promotion)
	if err := json.Unmarshal(text, body); err != nil {
		return nil, nil, nil, fmt.Errorf("%s is not a release: %w", file, err)
	}
	head, entries, err := body.Check()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	return body, head, entries, nil
}

// AddSignatures signs a release, as ReadFile has it, and replaces the file.
func AddSignatures(file string, body *api.Promotion, keys []signing.SecretKey) error {
	for _, k := range keys {
		body.Head.Sign(signing.HeadKind, k)
	}
	text, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(file, append(text, '\n'), 0o644)
}
