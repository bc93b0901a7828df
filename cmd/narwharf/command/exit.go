package command

import "fmt"

// Exit is the exit status of a command that has said all there is to say.
type Exit int

func (e Exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }
