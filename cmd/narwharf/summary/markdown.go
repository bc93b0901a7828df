package summary

import (
	"fmt"
	"io"
	"strings"

	"narwharf/hooks/api/plan"
	"narwharf/narinfo/clip"
)

// What a page of a CI's job has room for.
const (
	maxSteps    = 10
	maxPackages = 30
)

// cell makes text fit for a cell of a table: what hosts and releases say is text, and no Markdown.
func cell(text string) string {
	return plain.Replace(clip.Line(text, maxWords))
}

// plain takes its meaning from what has one in GitHub's Markdown: a backslash that would free a | of its own, links by
// brackets and those that are made of any URL, mentions, formulas, headings, quotes.
var plain = strings.NewReplacer("\\", `\\`, "|", `\|`, "&", "&amp;", "<", "&lt;", ">", "&gt;", "`", "'", "[", `\[`, "*", `\*`, "_", `\_`, "#", `\#`, "~", `\~`, "$", `\$`,
	"://", ":&#47;&#47;", "www.", "www&#46;", "@", "@<!-- -->")

// code is text in a fixed font.
func code(text string) string {
	return "`" + strings.NewReplacer("`", "'", "|", "/", "\\", "/").Replace(clip.Line(text, maxWords)) + "`"
}

// PlanMarkdown writes a plan as Markdown.
func PlanMarkdown(out io.Writer, p *plan.Plan) {
	fmt.Fprintf(out, "## Plan: %s\n\n| | |\n|---|---|\n", cell(about(p)))
	for _, f := range facts(p) {
		fmt.Fprintf(out, "| %s | %s |\n", f[0], cell(f[1]))
	}
	for i := range p.Steps[:min(len(p.Steps), maxSteps)] {
		s := &p.Steps[i]
		fmt.Fprintf(out, "\n%s\n\n%s → %s\n", cell(step(s)), code(orUnknown(s.From)), code(s.To))
		if len(s.Packages) == 0 {
			continue
		}
		fmt.Fprintf(out, "\n<details><summary>%d packages</summary>\n\n| package | version | size |\n|---|---|---|\n", len(s.Packages)+s.More)
		for j := range s.Packages[:min(len(s.Packages), maxPackages)] {
			pk := &s.Packages[j]
			fmt.Fprintf(out, "| %s | %s | %s |\n", cell(pk.Name), cell(change(pk)), delta(pk.Bytes))
		}
		if more := max(len(s.Packages)-maxPackages, 0) + s.More; more > 0 {
			fmt.Fprintf(out, "| … %d more | | |\n", more)
		}
		fmt.Fprintln(out, "\n</details>")
	}
	if more := max(len(p.Steps)-maxSteps, 0) + p.MoreSteps; more > 0 {
		fmt.Fprintf(out, "\n… %d more steps from one system to another.\n", more)
	}
	fmt.Fprintln(out)
}

// Outcome is how a wait ended.
type Outcome struct {
	Channel string
	Seq     int64
	Words   string // completed, halted, …
	Seconds float64
	Line    string // what is done, what waits, who is offline
	Hosts   []string
	Bad     bool
}

// OutcomeMarkdown writes it as Markdown.
func OutcomeMarkdown(out io.Writer, o *Outcome) {
	mark := "✅"
	if o.Bad {
		mark = "❌"
	}
	fmt.Fprintf(out, "## %s %s: release %d of %s after %.0f s\n\n%s\n", mark, cell(o.Words), o.Seq, cell(o.Channel), o.Seconds, cell(o.Line))
	if len(o.Hosts) > 0 {
		fmt.Fprintln(out)
	}
	for _, h := range o.Hosts {
		fmt.Fprintf(out, "- %s\n", cell(h))
	}
	fmt.Fprintln(out)
}
