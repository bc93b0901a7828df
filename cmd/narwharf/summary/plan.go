// Package summary puts what a roll-out would do, and what came of it, into words: text for a
// terminal, Markdown for the page of a CI's job.
package summary

import (
	"fmt"
	"io"
	"strings"

	"narwharf/cmd/narwharf/terminal"
	"narwharf/hooks/api/plan"
	"narwharf/hooks/api/retention"
	"narwharf/narinfo/clip"
)

// maxWords bounds what a server says of one thing.
const maxWords = 500

// About is what a plan is about.
func about(p *plan.Plan) string {
	switch {
	case p.To != "":
		return fmt.Sprintf("%s on %s (now release %d)", p.To, p.Channel, p.From)
	case p.Seq == p.From:
		return fmt.Sprintf("release %d of %s, which is there", p.Seq, p.Channel)
	}
	return fmt.Sprintf("release %d of %s (now %d)", p.Seq, p.Channel, p.From)
}

// facts are the numbers of a plan, a name and a value each.
func facts(p *plan.Plan) (list [][2]string) {
	add := func(name, format string, args ...any) {
		list = append(list, [2]string{name, clip.Line(fmt.Sprintf(format, args...), maxWords)})
	}
	if p.Refused != nil {
		add("refused now", "%s: %s", p.Refused.Kind, p.Refused.Message)
	}
	if p.Frozen != "" {
		add("frozen", "no host begins with anything: %s", p.Frozen)
	}
	hosts := fmt.Sprintf("%d of %d change", p.Changing, p.Hosts)
	for _, other := range []struct {
		n     int
		words string
	}{{p.Unchanged, "run it"}, {p.NotInRelease, "not in it"}, {p.Silent, "never reported"}} {
		if other.n > 0 {
			hosts += fmt.Sprintf(", %d %s", other.n, other.words)
		}
	}
	add("hosts", "%s", hosts)
	if p.Changing == 0 {
		return list
	}
	add("to fetch", "%s unpacked, by all together", retention.Bytes(p.Fetch))
	switch {
	case p.Reboots > 0 && p.ByHand:
		add("reboots", "%d need one, and with auto wait for a person: the policy has no reboot_slots", p.Reboots)
	case p.Reboots > 0:
		add("reboots", "%d", p.Reboots)
	}
	if p.Offline > 0 {
		add("offline", "%d", p.Offline)
	}
	if p.Held > 0 {
		add("held", "%d", p.Held)
	}
	if p.Quarantined > 0 {
		add("quarantined", "%d would be given what is given to nobody: narwharf quarantine list", p.Quarantined)
	}
	if !p.Waved {
		add("waves", "none: the policy has no rollout, and all begin at once")
	}
	for i, w := range p.Waves {
		name := ""
		if i == 0 {
			name = "waves"
		}
		add(name, "%s", wave(&w))
	}
	return list
}

func wave(w *plan.Wave) string {
	text := fmt.Sprintf("%s: %d hosts", w.Name, w.Hosts)
	if w.Offline > 0 {
		text += fmt.Sprintf(", %d of them offline", w.Offline)
	}
	for _, part := range []struct{ name, value string }{{"of", w.Select}, {"bakes", w.Bake}, {"checks", strings.Join(w.Checks, " ")}} {
		if part.value != "" {
			text += fmt.Sprintf("; %s %s", part.name, part.value)
		}
	}
	if w.Approve {
		text += "; then somebody says advance"
	}
	return text
}

// step is what hosts of a step do, in a line.
func step(s *plan.Step) string {
	text := fmt.Sprintf("%d hosts (%s", s.Hosts, strings.Join(s.Targets, ", "))
	if s.Hosts > len(s.Targets) {
		text += ", …"
	}
	text += fmt.Sprintf("): %d paths, %s", s.FetchPaths, retention.Bytes(s.Fetch))
	switch {
	case s.Missing > 0:
		return text + fmt.Sprintf("; %d paths of it are not in the cache", s.Missing)
	case s.Unknown:
		text += "; what they run is not in the cache, so nothing is known of packages"
	}
	if s.Reboot {
		text += "; by a reboot"
		if s.For != nil {
			text += " (" + strings.Join(s.For, ", ") + ")"
		}
	} else if s.For != nil {
		text += "; until a reboot without its " + strings.Join(s.For, ", ")
	}
	if s.Quarantined != "" {
		text += "; in quarantine: " + s.Quarantined
	}
	return clip.Line(text, maxWords)
}

func versions(list []string) string {
	if list == nil {
		return "∅"
	}
	text := make([]string, len(list))
	for i, v := range list {
		if text[i] = v; v == "" {
			text[i] = "ε"
		}
	}
	return strings.Join(text, ", ")
}

func change(p *plan.Package) string {
	switch {
	case p.Before == nil:
		return "added " + versions(p.After)
	case p.After == nil:
		return "removed " + versions(p.Before)
	case versions(p.Before) == versions(p.After):
		return versions(p.After)
	}
	text := versions(p.Before) + " → " + versions(p.After)
	if p.Older {
		text += " (older)"
	}
	return text
}

func delta(n int64) string {
	if n < 0 {
		return "-" + retention.Bytes(-n)
	}
	return "+" + retention.Bytes(n)
}

// Plan prints a plan; of packages at most so many a step, and of hosts.
func Plan(out io.Writer, p *plan.Plan, most int) error {
	fmt.Fprintf(out, "%s\n", clip.Line(about(p), maxWords))
	for _, f := range facts(p) {
		fmt.Fprintf(out, "%-12s %s\n", f[0], f[1])
	}
	for i := range p.Steps {
		s := &p.Steps[i]
		fmt.Fprintf(out, "\n%s\n  from %s\n  to   %s\n", step(s), orUnknown(s.From), clip.Line(s.To, maxWords))
		if err := packages(out, s, most); err != nil {
			return err
		}
	}
	if p.MoreSteps > 0 {
		fmt.Fprintf(out, "\n… %d more steps from one system to another, whose bytes are not counted\n", p.MoreSteps)
	}
	return nil
}

func packages(out io.Writer, s *plan.Step, most int) error {
	if len(s.Packages) == 0 {
		return nil
	}
	shown := s.Packages[:min(len(s.Packages), most)]
	err := terminal.Table(out, "  PACKAGE\tVERSION\tSIZE", func(row func(...any)) {
		for i := range shown {
			row("  "+shown[i].Name, change(&shown[i]), delta(shown[i].Bytes))
		}
	})
	if more := len(s.Packages) - len(shown) + s.More; more > 0 {
		fmt.Fprintf(out, "  … %d more packages\n", more)
	}
	return err
}

func orUnknown(path string) string {
	if path == "" {
		return "unknown"
	}
	return clip.Line(path, maxWords)
}
