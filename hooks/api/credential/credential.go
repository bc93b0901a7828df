// Package credential is what a client shows a server: a token, and the file that it came from.
package credential

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
)

// Credential is a token, which may become another one.
type Credential struct {
	file  string // "" if it cannot be read again
	renew Renewal
	text  atomic.Pointer[string]
}

// Renewal returns the token of now, another than refused, which a server did not take ("":
// none was). It keeps what it has got, and answers at once as long as that is good.
type Renewal func(ctx context.Context, refused string) (token string, err error)

// Renewed is a Credential that a Renewal keeps.
func Renewed(renew Renewal) *Credential {
	c := &Credential{renew: renew}
	c.text.Store(new(string))
	return c
}

// Now is the token of now; one that is old where there is no other.
func (c *Credential) Now(ctx context.Context) string {
	if c.renew != nil {
		if token, err := c.renew(ctx, ""); err == nil {
			c.text.Store(&token)
		}
	}
	return c.Text()
}

// New reads the token of a file, if there is no token; both may be "".
func New(token, file string) (*Credential, error) {
	c := new(Credential)
	token = strings.TrimSpace(token)
	if file != "" {
		if token != "" {
			return nil, errors.New("both a token and a token file are given")
		}
		text, err := readToken(file)
		if err != nil {
			return nil, err
		}
		token = text
		if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() {
			c.file = file
		}
	}
	c.text.Store(&token)
	return c, nil
}

func readToken(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("token: %s should hold one token and nothing else", file)
	}
	return token, nil
}

// Text is the token, "" if there is none.
func (c *Credential) Text() string { return *c.text.Load() }

// Again tells whether there is another token than the one that was refused: in the file, by now, or by
// the Renewal, whose error says why not.
func (c *Credential) Again(ctx context.Context, refused string) (bool, error) {
	var token string
	var err error
	switch {
	case c.renew != nil:
		if token, err = c.renew(ctx, refused); err != nil {
			return false, err
		}
	case c.file == "":
		return false, nil
	default:
		if token, err = readToken(c.file); err != nil {
			return false, nil //nolint:nilerr // the answer to the token says more
		}
	}
	if token == refused {
		return false, nil
	}
	c.text.Store(&token)
	return true, nil
}
