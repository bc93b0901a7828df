package api

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
)

// A credential is a token, and the file that it came from.
type credential struct {
	file string // "" if it cannot be read again
	text atomic.Pointer[string]
}

func newCredential(token, file string) (*credential, error) {
	c := new(credential)
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

// again reads the file again and tells whether there is another token in it
// than the one that was refused.
func (c *credential) again(refused string) bool {
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
