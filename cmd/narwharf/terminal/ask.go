package terminal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// errNo is the answer of who was asked.
var errNo = errors.New("nothing was done")

// Ask asks for a yes; anything else is an error.
func Ask(in io.Reader, out io.Writer, question string) error {
	fmt.Fprintf(out, "%s [y/N] ", question)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && line == "" {
		fmt.Fprintln(out)
		return errNo
	}
	if answer := strings.ToLower(strings.TrimSpace(line)); answer == "y" || answer == "yes" {
		return nil
	}
	return errNo
}
