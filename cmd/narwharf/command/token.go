package command

import (
	"io"
	"os"
	"strings"

	"narwharf/hooks/configfile"
)

// ReadToken reads a token from a file, or from stdin if that is "-".
func ReadToken(file string, stdin io.Reader) (string, error) {
	var text []byte
	var err error
	if file == "-" {
		text, err = io.ReadAll(io.LimitReader(stdin, 4096))
	} else {
		cfg, lerr := configfile.LoadClient("")
		if lerr != nil {
			return "", lerr
		}
		if err = cfg.CheckSecret(file); err != nil {
			return "", err
		}
		text, err = os.ReadFile(file)
	}
	return strings.TrimSpace(string(text)), err
}
