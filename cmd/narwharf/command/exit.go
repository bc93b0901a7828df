package command

import "fmt"

// Exit is the exit status of a command that has said all there is to say.
type Exit int

func (e Exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Failed is an error with an exit status of its own; others have 2.
type Failed struct {
	Code int
	Err  error
}

func (f Failed) Error() string { return f.Err.Error() }
func (f Failed) Unwrap() error { return f.Err }
