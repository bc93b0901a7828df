// Package credential is what a client shows a server: a token, and the file that it came from.
package credential

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
)

// Credential is a token, which may become another one.
type Credential struct {
	file string // "" if it cannot be read again
	text atomic.Pointer[string]
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

// Again reads the file again and tells whether there is another token in it
// than the one that was refused.
func (c *Credential) Again(refused string) bool {
	if c.file == "" {
		return false
	}
	token, err := readToken(c.file)
	if err != nil || token == refused {
		return false
	}
	c.text.Store(&token)
	return true
}
