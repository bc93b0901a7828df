package remote

import (
	"bufio"
	"os"
	"strings"
)

// Netrc finds user and password for a host in a netrc file, as Nix has one in its
// netrc-file; both are "" if there are none.
func Netrc(file, host string) (user, password string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	words := bufio.NewScanner(f)
	words.Split(bufio.ScanWords)
	here, found := false, false
	for words.Scan() {
		word := words.Text()
		switch {
		case word == "machine" && words.Scan():
			if found {
				return user, password, nil
			}
			here = strings.EqualFold(words.Text(), host)
			found = here
		case word == "default":
			if found {
				return user, password, nil
			}
			here, found = true, true
		case word == "login" && words.Scan():
			if here {
				user = words.Text()
			}
		case word == "password" && words.Scan():
			if here {
				password = words.Text()
			}
		}
	}
	return user, password, words.Err()
}
