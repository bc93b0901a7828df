package main

import (
	"github.com/spf13/cobra"

	"narwharf/cmd/narwharf/command"
)

// session is a call of a command that talks to a server, with what several of them do.
type session struct{ *command.Session }

// withServer makes a command one that talks to a server.
func withServer(c *cobra.Command, run func(s *session, args []string) error) *cobra.Command {
	return command.WithServer(c, func(s *command.Session, args []string) error { return run(&session{s}, args) })
}
