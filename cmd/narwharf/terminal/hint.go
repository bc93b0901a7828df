package terminal

import (
	"errors"
	"fmt"
	"strings"

	"narwharf/hooks/api"
)

// MissingArgument names the argument that is missing behind n others, by a command's
// use line: "show HOST".
func MissingArgument(use string, n int) string {
	use, _, _ = strings.Cut(use, " | ")
	for _, word := range strings.Fields(use)[1:] {
		optional := strings.HasPrefix(word, "[") && strings.Index(word+"]", "]") >= len(word)-1 // and not one that has only a part which is
		if strings.HasPrefix(word, "-") || optional || strings.HasSuffix(word, "]") {
			continue
		}
		if n == 0 {
			return word
		}
		n--
	}
	return "an argument"
}

// Suggest says what may have been meant, or where the names stand.
func Suggest(names []string, command string) string {
	if len(names) == 0 {
		return fmt.Sprintf(": %s --help lists those that there are", command)
	}
	return fmt.Sprintf(": did you mean %s %s?", command, strings.Join(names, ", or "))
}

// Hint is a line with what to do about an error, "" if its text says that.
func Hint(err error) string {
	var e *api.Error
	if !errors.As(err, &e) {
		return ""
	}
	switch e.Kind {
	case api.Unauthorized:
		return "\nnarwharf login gets a token, and another when that has ended. --token-file FILE, $NARWHARF_TOKEN_FILE and token_file in client.toml name one; agents have token_file in agent.toml."
	case api.Internal:
		return "\nThe log of the server has the reason (journalctl -u narwharf, or where narwharf serve runs)."
	}
	return ""
}
