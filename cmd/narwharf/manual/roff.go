package manual

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// pageName is that of a command's page: narwharf-channel-list.
func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// page is a manual page in man(7).
func page(c *cobra.Command) []byte {
	var p bytes.Buffer
	fmt.Fprintf(&p, ".TH %q 1 \"\" %q \"Narwharf\"\n", strings.ToUpper(pageName(c)), "narwharf "+c.Root().Version)
	fmt.Fprintf(&p, ".SH NAME\n%s \\- %s\n", escape(pageName(c)), escape(c.Short))
	fmt.Fprintf(&p, ".SH SYNOPSIS\n.B %s\n", escape(synopsis(c)))
	if c.Long != "" {
		p.WriteString(".SH DESCRIPTION\n")
		prose(&p, c.Long)
	}
	if subs := available(c); len(subs) > 0 {
		p.WriteString(".SH COMMANDS\n")
		for _, sub := range subs {
			fmt.Fprintf(&p, ".TP\n.BR %s (1)\n%s\n", escape(pageName(sub)), escape(sub.Short))
		}
	}
	if flags := c.NonInheritedFlags(); flags.HasAvailableFlags() {
		p.WriteString(".SH OPTIONS\n")
		flags.VisitAll(func(f *pflag.Flag) { option(&p, f) })
	}
	if c.HasParent() {
		fmt.Fprintf(&p, ".SH SEE ALSO\n.BR %s (1)\n", escape(pageName(c.Parent())))
	}
	return p.Bytes()
}

func synopsis(c *cobra.Command) string {
	line := c.UseLine()
	if !c.Runnable() && c.HasAvailableSubCommands() {
		line = c.CommandPath() + " COMMAND"
	}
	return line
}

func available(c *cobra.Command) (subs []*cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" {
			subs = append(subs, sub)
		}
	}
	return subs
}

func option(p *bytes.Buffer, f *pflag.Flag) {
	if f.Hidden || f.Name == "help" {
		return
	}
	kind, usage := pflag.UnquoteUsage(f)
	name := "--" + f.Name
	if f.Shorthand != "" {
		name = "-" + f.Shorthand + ", " + name
	}
	if kind != "" {
		name += " " + kind
	}
	if d := f.DefValue; d != "" && d != "false" && d != "[]" && d != "0" && d != "0s" {
		usage += " (default " + d + ")"
	}
	fmt.Fprintf(p, ".TP\n.B %s\n%s\n", escape(name), escape(usage))
}

// prose is text as our help has it: paragraphs, and what is indented stands as it is.
func prose(p *bytes.Buffer, text string) {
	for part := range strings.SplitSeq(strings.Trim(text, "\n"), "\n\n") {
		if strings.HasPrefix(part, "    ") {
			fmt.Fprintf(p, ".PP\n.RS 4\n.nf\n%s\n.fi\n.RE\n", escape(unindent(part)))
			continue
		}
		fmt.Fprintf(p, ".PP\n%s\n", escape(part))
	}
}

func unindent(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, "    ")
	}
	return strings.Join(lines, "\n")
}

// escape keeps a text from being read as requests of roff.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, `-`, `\-`, "`", `\(ga`, `^`, `\(ha`, `~`, `\(ti`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
