// Package external signs with keys that lie elsewhere: in a device, in a key service, or with
// an agent. Nothing of such a key is here but its public half.
//
// A command makes each signature. It is given the bytes to sign on its standard input and
// the key's name in $NARWHARF_SIGN_KEY. It writes the signature to its standard output: the
// 64 bytes as they are or in base64, "name:base64", or what OpenSSL and key services make
// with P-256 (DER, as it is or in base64). Of Ed25519 the bytes themselves are signed, of
// P-256 their SHA-256. What it writes is verified before anybody gets it, so a command that
// signs with another key, or something else, is an error here.
//
// A command has a time to end in and is then killed with all that it started; what it
// writes is bounded.
package external

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"narwharf/narinfo/clip"
	"narwharf/signing"
	"narwharf/signing/curve"
)

// Timeout is what a command has where a person may have to touch a device.
const Timeout = 2 * time.Minute

const (
	maxOutput = 4 << 10
	maxWords  = 1 << 10 // of what it says of a failure
)

// A Command is a signing.Signer whose key lies elsewhere. It is safe for concurrent use if
// the program is.
type Command struct {
	Key     signing.PublicKey
	Argv    []string      // the program and its arguments
	Timeout time.Duration // Timeout if 0
	// Stderr gets what the command says meanwhile, as "touch the key"; nil: nobody does.
	Stderr io.Writer
}

// Shell is the command line of a person, for /bin/sh.
func Shell(line string) []string { return []string{"/bin/sh", "-c", line} }

// Public implements signing.Signer.
func (c *Command) Public() signing.PublicKey { return c.Key }

// Signature implements signing.Signer.
func (c *Command) Signature(msg []byte) (string, error) {
	out, err := c.run(msg)
	if err != nil {
		return "", fmt.Errorf("sign with %s: %w", c.Key.Name(), err)
	}
	sigs := signaturesIn(out, c.Key)
	for _, sig := range sigs {
		if c.Key.Verify(msg, sig) {
			return sig, nil
		}
	}
	if len(sigs) == 0 {
		return "", fmt.Errorf("sign with %s: the command wrote %d bytes that are no signature; it should write the 64 bytes of one, or their base64", c.Key.Name(), len(out))
	}
	return "", fmt.Errorf("sign with %s: what the command wrote is no signature by that key of what it was given: does it sign with another key?", c.Key.Name())
}

// run is what the command writes to its standard output.
func (c *Command) run(msg []byte) ([]byte, error) {
	limit := c.Timeout
	if limit == 0 {
		limit = Timeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Argv[0], c.Argv[1:]...)
	cmd.Env = append(os.Environ(), "NARWHARF_SIGN_KEY="+c.Key.Name())
	cmd.Stdin = bytes.NewReader(msg)
	out, words := &bounded{most: maxOutput}, &bounded{most: maxWords}
	cmd.Stdout, cmd.Stderr = out, words
	if c.Stderr != nil {
		cmd.Stderr = io.MultiWriter(words, c.Stderr)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // for what it leaves behind with our pipes
	err := cmd.Run()
	switch said := strings.TrimSpace(words.String()); {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("the command had no answer in %s, and was ended", limit)
	case out.over:
		return nil, fmt.Errorf("the command wrote more than %d bytes where a signature has 64", maxOutput)
	case err != nil && said != "":
		return nil, fmt.Errorf("the command failed (%v): %s", err, clip.Block(said, maxWords)) //nolint:errorlint // see below
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		// Not wrapped: that its program is not there is not that what is signed is not there.
		return nil, fmt.Errorf("the command failed: %v", err) //nolint:errorlint // see above
	}
	return out.Bytes(), nil
}

// signaturesIn are what the output of a command may be, as texts.
func signaturesIn(out []byte, key signing.PublicKey) (sigs []string) {
	text := strings.TrimSpace(string(out))
	if _, digits, ok := strings.Cut(text, ":"); ok {
		text = digits
	}
	forms := [][]byte{out}
	if decoded, err := base64.StdEncoding.DecodeString(text); err == nil {
		forms = append(forms, decoded)
	}
	for _, form := range forms {
		if !key.NixKnows() {
			if sig, err := curve.FromDER(form); err == nil {
				form = sig
			} else if len(form) == curve.SignatureSize {
				form = curve.Lower(form)
			}
		}
		if len(form) == curve.SignatureSize {
			sigs = append(sigs, key.Name()+":"+base64.StdEncoding.EncodeToString(form))
		}
	}
	return sigs
}

// bounded keeps the first bytes of what is written to it.
type bounded struct {
	bytes.Buffer
	most int
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	room := b.most - b.Len()
	if b.over = b.over || len(p) > room; b.over {
		_, _ = b.Buffer.Write(p[:min(max(room, 0), len(p))])
		return len(p), nil
	}
	return b.Buffer.Write(p)
}
