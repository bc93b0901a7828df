package plan

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"narwharf/hooks/api/plan"
	"narwharf/hooks/reboot/cause"
	"narwharf/narinfo"
	"narwharf/signing"
)

// step is a plan.Step that is being made.
type step struct {
	plan.Step
	booted string
	looked bool // it is among the steps of the answer
	at     int
}

// stepsOf puts hosts into steps, those of the most hosts first.
func stepsOf(hosts []*changing) (steps []*step) {
	type key struct{ from, booted, to, action string }
	by := make(map[key]*step)
	for _, c := range hosts {
		st := c.Status
		k := key{st.Current, cmp.Or(st.Booted, st.Current), c.entry.StorePath, string(c.entry.Action)}
		s := by[k]
		if s == nil {
			s = &step{Step: plan.Step{From: k.from, To: k.to, Action: k.action, Packages: []plan.Package{}}, booted: k.booted}
			by[k], steps = s, append(steps, s)
		}
		if s.Hosts++; len(s.Targets) < 3 && !slices.Contains(s.Targets, st.Target) {
			s.Targets = append(s.Targets, st.Target)
		}
		c.step = s
	}
	slices.SortStableFunc(steps, func(a, b *step) int {
		return cmp.Or(cmp.Compare(b.Hosts, a.Hosts), strings.Compare(a.To, b.To), strings.Compare(a.From, b.From))
	})
	return steps
}

// look reads the closures of steps, as many as there is time for.
func look(ctx context.Context, closures Closures, steps []*step) error {
	l := looker{closures: closures, facts: make(map[string]cause.Facts)}
	first := slices.Clone(steps[:min(len(steps), plan.MaxSteps)])
	// Those with a closure in common one after the other: few are in memory at once.
	slices.SortStableFunc(first, func(a, b *step) int {
		return cmp.Or(strings.Compare(a.To, b.To), strings.Compare(a.From, b.From))
	})
	for _, s := range first {
		if ctx.Err() != nil {
			return nil // the rest is told as what was not looked at
		}
		if err := l.look(s); err != nil {
			return err
		}
		s.looked = true
	}
	return nil
}

type looker struct {
	closures Closures
	facts    map[string]cause.Facts
	before   manifest // of the step before
	after    manifest
}

type manifest struct {
	of   string
	m    *signing.Manifest // nil if it is not whole here
	lost []narinfo.Path
}

// read makes it that of a path.
func (m *manifest) read(c Closures, path string) (lost []narinfo.Path, err error) {
	if m.of == path {
		return m.lost, nil
	}
	*m = manifest{of: path}
	e := signing.Entry{StorePath: path}
	root, err := e.Path()
	if err != nil {
		return nil, nil // a host says what it likes
	}
	m.m, m.lost, err = c.Manifest(root)
	return m.lost, err
}

func (l *looker) look(s *step) error {
	lost, err := l.after.read(l.closures, s.To)
	if err != nil {
		return err
	}
	s.Missing = len(lost)
	if _, err := l.before.read(l.closures, s.From); err != nil {
		return err
	}
	before, after := l.before.m, l.after.m
	s.Unknown = before == nil || after == nil
	if after != nil {
		s.FetchPaths, s.Fetch = fetch(before, after)
	}
	if !s.Unknown {
		s.Packages = packages(before, after)
		if n := len(s.Packages); n > plan.MaxPackages {
			s.Packages, s.More = s.Packages[:plan.MaxPackages], n-plan.MaxPackages
		}
		if s.Packages == nil {
			s.Packages = []plan.Package{}
		}
	}
	l.reboots(s)
	return nil
}

// fetch counts what a host that has before, nil if that is not known, has to download.
func fetch(before, after *signing.Manifest) (paths int, bytes int64) {
	for _, line := range after.Lines {
		if before != nil {
			if was, ok := before.Find(line.Path); ok && was.NarHash == line.NarHash {
				continue
			}
		}
		paths++
		bytes += line.NarSize
	}
	return paths, bytes
}

// reboots says whether a step takes a reboot, as its agents would: they compare with the system
// that they have booted.
func (l *looker) reboots(s *step) {
	was, is := l.factsOf(s.booted), l.factsOf(s.To)
	if s.booted != s.To && was != nil && is != nil {
		s.For = cause.Between(was, is)
	}
	switch signing.Action(s.Action) {
	case signing.Auto:
		s.Reboot = len(s.For) > 0
	case signing.Boot, signing.Reboot:
		s.Reboot = true
	}
}

// maxFact bounds one file of a system.
const maxFact = 64 << 10

// factsOf is nil for a system that is not here, or cannot be read.
func (l *looker) factsOf(path string) cause.Facts {
	f, ok := l.facts[path]
	if ok {
		return f
	}
	e := signing.Entry{StorePath: path}
	if root, err := e.Path(); err == nil {
		if files, err := l.closures.Files(root, cause.Names, maxFact); err == nil {
			f = make(cause.Facts)
			for name, text := range files {
				f[name] = string(text)
			}
		}
	}
	l.facts[path] = f
	return f
}
