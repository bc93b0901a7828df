package nixos

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"narwharf/hooks/api"
	"narwharf/narinfo/clip"
	"narwharf/nixos/desired"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/nixos/machine"
	"narwharf/signing"
)

// A Plan is what an agent would do now, were it not asked to leave it.
type Plan struct {
	State  api.State // that it would be in: ok is "nothing to do"
	Seq    int64
	Action signing.Action
	From   string // what runs
	Boots  string // what the system profile names
	To     string // "" if nothing

	Paths   int   // of the closure
	Fetch   int   // paths to download
	Bytes   int64 // of them, compressed where the cache says so
	Unpack  int64
	Differs []string // here with other bytes than the release has

	// Reboot and Inhibited are known only where the system is in the store.
	Known     bool
	Reboot    []string
	Inhibited []string

	Waiting *api.Waiting
	Error   string
}

// DryRun finds out what the next turns would come to. It writes nothing, roots
// nothing and reports nothing; the server sees a poll.
func (a *Agent) DryRun(ctx context.Context) (*Plan, error) {
	text, err := a.Journals.Load()
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j, err := journal.Parse(text)
	if err != nil {
		return nil, err
	}
	a.journal = j
	f, err := a.facts(ctx)
	if err != nil {
		return nil, fmt.Errorf("look at the host: %w", err)
	}
	p := &Plan{From: f.Current, Boots: f.Profile}
	if !machine.Resting(j.Attempt) {
		p.State, p.Seq, p.To, p.Action = j.State, j.Seq, j.Attempt.Path, j.Attempt.Action
		p.Error = "an attempt is under way: narwharf agent status"
		return p, nil
	}
	d, tag, err := a.Host.Desired(ctx, "", a.Machine.Have(j), 0)
	if err != nil {
		return nil, fmt.Errorf("ask the server: %w", err)
	}
	next := a.Machine.Step(j, f, effect.Polled{Desired: d, ETag: tag})
	p.State, p.Seq, p.Waiting, p.Error = next.State, next.Seq, next.WaitingFor, next.Error
	if next.Alarm != "" {
		p.Error = next.Alarm
	}
	t := next.Attempt
	if t == nil || t.Seq != next.Seq {
		return p, nil
	}
	p.To, p.Action = t.Path, t.Action
	if t.Phase == journal.Done {
		return p, nil
	}
	if err := a.Stager.plan(ctx, t.Closure, t.Path, p); err != nil {
		p.State, p.Error = api.StageFailed, err.Error()
		return p, nil
	}
	if p.Fetch == 0 {
		r, err := a.Host.Reasons(ctx, t.Path)
		if err != nil {
			return nil, err
		}
		p.Known, p.Reboot, p.Inhibited = true, r.Reboot, r.Inhibited
		if err := a.Stager.keepsAgent(ctx, t.Path, t.Last || t.Action == signing.DryActivate); err != nil {
			p.State, p.Error = api.Rejected, err.Error()
			return p, nil
		}
	}
	if t.Phase == journal.Prepare {
		if w := desired.Admit(&a.Machine.Rules.Rules, next, f); w != nil {
			p.Waiting = &w.Waiting
		}
	}
	return p, nil
}

// plan is what Prepare would find, and nothing that it would do.
func (s *Stager) plan(ctx context.Context, closure signing.Digest, root string, p *Plan) error {
	m, _, err := s.manifest(ctx, closure, root)
	if err != nil {
		return err
	}
	missing, _, differs, err := s.survey(ctx, m, nil)
	p.Paths, p.Fetch, p.Differs = len(m.Lines), len(missing), differs
	if err != nil {
		return err
	}
	found, err := s.ask(ctx, missing)
	p.Bytes, p.Unpack = found.packed, found.unpacked
	return err
}

// Nothing tells whether all is as it should be.
func (p *Plan) Nothing() bool { return p.Error == "" && p.State == api.OK }

// String is for people. The first line is the answer.
func (p *Plan) String() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-9s %s\n", name, clip.Line(fmt.Sprintf(format, args...), 4<<10))
	}
	switch {
	case p.Nothing():
		fmt.Fprintf(&b, "would change nothing: release %d is what runs and boots\n", p.Seq)
	case p.To == "" || p.State.Final():
		fmt.Fprintf(&b, "would do nothing: it is %s, release %d\n", p.State, p.Seq)
	case p.Error != "":
		fmt.Fprintf(&b, "would not get far: %s, release %d\n", p.State, p.Seq)
	default:
		fmt.Fprintf(&b, "would go to release %d (%s)\n", p.Seq, p.Action)
	}
	if p.Error != "" {
		line("error", "%s", p.Error)
	}
	line("runs", "%s", cmp.Or(p.From, "none"))
	if p.Boots != p.From {
		line("boots", "%s", cmp.Or(p.Boots, "none"))
	}
	if p.To != "" && p.To != p.From {
		line("to", "%s", p.To)
	}
	if p.Paths > 0 {
		line("fetches", "%d of %d paths, %d MiB (%d MiB unpacked)", p.Fetch, p.Paths, p.Bytes>>20, p.Unpack>>20)
	}
	for _, path := range p.Differs {
		line("differs", "%s", path)
	}
	switch {
	case p.Known && len(p.Reboot)+len(p.Inhibited) > 0:
		line("reboot", "a switch is not enough for: %s", clip.List(journal.Set(p.Reboot, p.Inhibited)))
	case p.Known:
		line("reboot", "not needed")
	}
	if p.Waiting != nil && !p.Nothing() {
		line("waits for", "%s: %s", p.Waiting.Kind, p.Waiting.Detail)
	}
	return b.String()
}
