package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
	"narwharf/cmd/narwharf/terminal"
	"narwharf/signing"
)

// session is a call of a command that talks to a server, with what several of them do.
type session struct{ *command.Session }

// withServer makes a command one that talks to a server.
func withServer(c *cobra.Command, run func(s *session, args []string) error) *cobra.Command {
	return command.WithServer(c, func(s *command.Session, args []string) error { return run(&session{s}, args) })
}

// entryTable shows what targets are to run.
func entryTable(out io.Writer, entries []signing.Entry) error {
	return terminal.Table(out, "TARGET\tACTION\tSYSTEM\tSTORE PATH", func(row func(...any)) {
		for _, e := range entries {
			row(e.Target, e.Action, e.System, e.StorePath)
		}
	})
}

// pairs reads values of the form K=V. Of a flag the last one of a key counts, and
// arguments have each once.
func pairs(flag, form string, values []string) (map[string]string, error) {
	var m map[string]string
	for _, kv := range values {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, fmt.Errorf("%s is not of the form %s", strings.TrimSpace(fmt.Sprintf("%s %q", flag, kv)), form)
		}
		if _, twice := m[k]; twice && flag == "" {
			return nil, fmt.Errorf("target %s is there twice", k)
		}
		if m == nil {
			m = make(map[string]string)
		}
		m[k] = v
	}
	return m, nil
}
