package promoter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"narwharf/cache/state/durable"
	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
	"narwharf/signing"
)

// Save writes a release to a new file instead of sending it, and says what is next.
func (p *Promoter) Save(r *Release, file string) error {
	body, head, err := p.seal(r)
	if err != nil {
		return err
	}
	text, err := textOf(body)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err == nil {
		_, err = f.Write(text)
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

// SendFile sends a release that Save wrote, signed with Keys too. It follows the one
// before its seq, unless IfSeq says another.
func (p *Promoter) SendFile(ctx context.Context, f *File) (*api.Promoted, error) {
	if f.Head.Channel != p.Channel {
		return nil, fmt.Errorf("%s is a release of %s, not of %s", f.name, f.Head.Channel, p.Channel)
	}
	if err := signBy(f.body.Head, p.Keys); err != nil {
		return nil, err
	}
	after := f.Head.Seq - 1
	if p.IfSeq != nil {
		after = *p.IfSeq
	}
	answer, err := p.Client.PromoteAs(ctx, p.Channel, after, f.body, p.as())
	var e *api.Error
	if errors.As(err, &e) {
		return nil, p.explained(e, new(Release))
	}
	if err != nil {
		return nil, err
	}
	p.report(answer)
	return answer, nil
}

// A File is a release that Save wrote. Its signatures are not verified.
type File struct {
	Head    *signing.Head
	Entries []signing.Entry

	name string
	body *api.Promotion
}

// ReadFile reads one.
func ReadFile(name string) (*File, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	f := &File{name: name, body: new(api.Promotion)}
	if err := json.Unmarshal(text, f.body); err != nil {
		return nil, fmt.Errorf("%s is not a release: %w", name, err)
	}
	if f.Head, f.Entries, err = f.body.Check(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// Sign adds signatures and replaces the file. It returns how many there are.
func (f *File) Sign(keys []signing.Signer) (signatures int, err error) {
	if err := signBy(f.body.Head, keys); err != nil {
		return 0, err
	}
	if len(keys) == 0 {
		return len(f.body.Head.Signatures), nil
	}
	text, err := textOf(f.body)
	if err == nil {
		err = durable.WriteFile(f.name, text, 0o644)
	}
	return len(f.body.Head.Signatures), err
}

// textOf is the content of a file.
func textOf(body *api.Promotion) ([]byte, error) {
	text, err := json.MarshalIndent(body, "", "  ")
	return append(text, '\n'), err
}

// Show prints what a signer vouches for, but not its entries. What is free text in a
// release comes quoted: it may have been written to deceive a terminal.
func (f *File) Show(out io.Writer) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(out, "%-10s %s\n", name, clip.Line(fmt.Sprintf(format, args...), 4<<10))
	}
	h := f.Head
	rollback := ""
	if h.Rollback {
		rollback = ", a rollback"
	}
	line("channel", "%s", h.Channel)
	line("seq", "%d%s", h.Seq, rollback)
	line("origin", "%s", h.Origin)
	line("made", "%s", api.TimeText(h.Created))
	if h.Expires != nil {
		line("expires", "%s", api.TimeText(*h.Expires))
	}
	if h.Order != nil {
		line("order", "%d", *h.Order)
	}
	for _, k := range slices.Sorted(maps.Keys(h.Meta)) {
		line("meta", "%q = %q", k, h.Meta[k])
	}
	if len(f.body.Keys) > 0 {
		line("rules", "%d of %s must sign from now on", max(f.body.Threshold, 1), strings.Join(f.body.Keys, ", "))
	}
	var signers []string
	for _, s := range f.body.Head.Signatures {
		signers = append(signers, strconv.Quote(s.Key))
	}
	if len(signers) == 0 {
		line("signatures", "none")
		return
	}
	line("signatures", "%s (not verified here)", strings.Join(signers, ", "))
}
