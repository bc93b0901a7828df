package identity

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"narwharf/narinfo/clip"
)

// maxJWT bounds a JWT, in bytes: a server takes no longer one.
const maxJWT = 16 << 10

// commandTimeout bounds how long a command may take to print one.
const commandTimeout = 30 * time.Second

// jwt gets the JWT of this machine.
func (s *Source) jwt(ctx context.Context, url string) (string, error) {
	audience := cmp.Or(s.Audience, url)
	switch s.From {
	case FromGCP:
		return s.metadata.gcp(ctx, audience)
	case FromAzure:
		return s.metadata.azure(ctx, audience)
	case FromFile:
		return readJWT(s.File)
	}
	return s.run(ctx, audience)
}

func readJWT(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxJWT+1))
	if err == nil && len(text) > maxJWT {
		err = fmt.Errorf("%s has more than %d bytes", name, maxJWT)
	}
	return strings.TrimSpace(string(text)), err
}

// run runs the command, which finds the audience in NARWHARF_AUDIENCE.
func (s *Source) run(ctx context.Context, audience string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	c := exec.CommandContext(ctx, s.Command[0], s.Command[1:]...) //nolint:gosec // of the host's own configuration
	c.Env = append(os.Environ(), "NARWHARF_AUDIENCE="+audience)
	c.WaitDelay = time.Second
	out, words := &limited{left: maxJWT + 1}, &limited{left: 1 << 10}
	c.Stdout, c.Stderr = out, words
	err := c.Run()
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s: it printed nothing within %s", s.Command[0], commandTimeout)
	case err != nil:
		return "", fmt.Errorf("%s: %w: %s", s.Command[0], err, clip.Line(strings.TrimSpace(words.String()), 200))
	case out.Len() > maxJWT:
		return "", errors.New(s.Command[0] + ": it printed more than a JWT")
	}
	return strings.TrimSpace(out.String()), nil
}

// limited keeps the beginning of what is written, and takes the rest.
type limited struct {
	bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	l.Buffer.Write(p[:n])
	return len(p), nil
}
