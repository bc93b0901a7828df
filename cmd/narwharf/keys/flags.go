package keys

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"narwharf/hooks/configfile"
	"narwharf/signing"
	"narwharf/signing/external"
)

// Flags are --key and --sign-cmd: what signs.
type Flags struct {
	Files   []string
	Command string
}

// AddFlags adds them to a command.
func AddFlags(c *cobra.Command) *Flags {
	f := new(Flags)
	c.Flags().StringSliceVar(&f.Files, "key", nil, "secret key `FILE` to sign with, or with --sign-cmd the public key; may be repeated (else client.toml)")
	c.Flags().StringVar(&f.Command, "sign-cmd", "", "shell `COMMAND` that signs for the public keys in --key: it reads what is signed on stdin and writes the signature ($NARWHARF_SIGN_KEY is the key's name; else client.toml)")
	return f
}

// Signers are those of the flags, or of client.toml. What a command says while it signs goes
// to words.
func (f *Flags) Signers(cfg *configfile.Client, words io.Writer) (list []signing.Signer, err error) {
	line := f.Command
	if line == "" {
		line = cfg.SignCommand
	}
	used := false
	for _, name := range FirstOf(f.Files, cfg.Keys) {
		text, isFile, err := read(name)
		if err != nil {
			return nil, fmt.Errorf("--key: %w", err)
		}
		public, err := signing.ParsePromoterKey(text)
		if err == nil && line != "" {
			list, used = append(list, &external.Command{Key: public, Argv: external.Shell(line), Stderr: words}), true
			continue
		}
		if err == nil {
			return nil, fmt.Errorf("--key: %s is a public key: give the secret key, the other file that the key was made with, or say with --sign-cmd what signs for it", public.Name())
		}
		if isFile {
			if err := cfg.CheckSecret(name); err != nil {
				return nil, fmt.Errorf("--key: %w", err)
			}
		}
		secret, err := signing.ParsePromoterSecretKey(text)
		if err != nil && isFile {
			return nil, fmt.Errorf("--key %s: %w", name, err)
		}
		if err != nil {
			return nil, fmt.Errorf("--key: %w", err)
		}
		list = append(list, secret)
	}
	if f.Command != "" && !used {
		return nil, errors.New("--sign-cmd signs for public keys: name one, as --key alice.pub")
	}
	return list, nil
}

// read is the text of a key that was given as itself or as a file.
func read(value string) (text string, isFile bool, err error) {
	if strings.Contains(value, ":") && !strings.HasPrefix(value, "/") && !strings.HasPrefix(value, ".") {
		if _, err := os.Stat(value); err != nil {
			return value, false, nil
		}
	}
	b, err := os.ReadFile(value)
	return string(b), true, err
}

// ParsePublic reads public keys, each given as itself or as a file.
func ParsePublic(what string, values []string, parse func(string) (signing.PublicKey, error)) (list []signing.PublicKey, err error) {
	for _, v := range values {
		text, _, err := read(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		k, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		list = append(list, k)
	}
	return list, nil
}

// FirstOf is what flags say, else what the file says.
func FirstOf(flags, file []string) []string {
	if len(flags) > 0 {
		return flags
	}
	return file
}
