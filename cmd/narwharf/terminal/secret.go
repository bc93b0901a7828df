package terminal

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"narwharf/narinfo/clip"
)

// IsTerminal tells whether somebody types there.
func IsTerminal(in any) bool {
	f, ok := in.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// ReadSecret reads a line that nobody is to see, where somebody types; else all that there is.
func ReadSecret(in io.Reader, out io.Writer, prompt string) (string, error) {
	if f, ok := in.(*os.File); ok && IsTerminal(in) {
		if _, err := fmt.Fprint(clip.Raw(out), prompt); err != nil {
			return "", err
		}
		text, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(out)
		return strings.TrimSpace(string(text)), err
	}
	text, err := io.ReadAll(io.LimitReader(in, 64<<10))
	return strings.TrimSpace(string(text)), err
}
