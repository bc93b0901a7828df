package main

import (
	"bytes"
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write what --help says now into README.md and docs")

// helpBlock is a block of a document that starts with a call of --help.
var helpBlock = regexp.MustCompile("(?s)```\n\\$ narwharf ((?:[a-z-]+ )*)--help\n(.*?)```\n")

func help(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	root := rootCommand()
	root.SetArgs(append(args, "--help"))
	root.SetOut(&out)
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// commandNames are the names of all commands, "token new", those to which
// others belong first.
func commandNames(c *cobra.Command) (names []string) {
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" {
			names = append(names, strings.TrimPrefix(sub.CommandPath(), "narwharf "))
			names = append(names, commandNames(sub)...)
		}
	}
	return names
}

// What the documents show of --help is what the program prints, and
// docs/commands.md has every command.
func TestHelpInDocuments(t *testing.T) {
	for _, name := range []string{"../../README.md", "../../docs/commands.md"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var shown []string
		fresh := helpBlock.ReplaceAllStringFunc(string(text), func(block string) string {
			m := helpBlock.FindStringSubmatch(block)
			shown = append(shown, strings.TrimSuffix(m[1], " "))
			return "```\n$ narwharf " + m[1] + "--help\n" + help(t, strings.Fields(m[1])...) + "```\n"
		})
		if strings.HasSuffix(name, "commands.md") {
			want := append([]string{""}, commandNames(rootCommand())...)
			if *update {
				fresh = commandsDocument(t, want)
			} else if !slices.Equal(shown, want) {
				t.Errorf("%s shows the commands\n%q\nand there are\n%q", name, shown, want)
			}
		}
		if len(shown) == 0 && !*update {
			t.Errorf("%s shows no --help", name)
		}
		if fresh == string(text) {
			continue
		}
		if !*update {
			t.Errorf("%s shows another --help than the program: run go test ./cmd/narwharf -run %s -update", name, t.Name())
			continue
		}
		if err := os.WriteFile(name, []byte(fresh), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func commandsDocument(t *testing.T, names []string) string {
	var text strings.Builder
	text.WriteString("# Commands\n\nWhat `--help` says, checked by the tests.\n")
	for _, name := range names {
		title := strings.TrimSpace("narwharf " + name)
		text.WriteString("\n## " + title + "\n\n```\n$ " + title + " --help\n" + help(t, strings.Fields(name)...) + "```\n")
	}
	return text.String()
}
