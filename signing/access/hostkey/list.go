package hostkey

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // the hashed names of known_hosts(5) are HMAC-SHA1; nothing is trusted by them
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Standing is what a list says of a host with a key.
type Standing uint8

// The standings of a key.
const (
	Unlisted Standing = iota // the key is not in the list
	Listed                   // it is the host's
	Another                  // it is another host's
	Revoked                  // it is nobody's any more
)

// List says which key is whose, by fingerprints. A nil List knows none.
type List struct {
	keys    map[string]name
	revoked map[string]bool
}

// name is a host's in a list: as it is, or hashed.
type name struct {
	plain      string
	salt, hash []byte
	line       int
}

func (n name) is(host string) bool {
	if n.hash == nil {
		return n.plain == host
	}
	mac := hmac.New(sha1.New, n.salt)
	mac.Write([]byte(host))
	return hmac.Equal(mac.Sum(nil), n.hash)
}

// hostGrammar is that of hosts, not of what ssh would connect to.
var hostGrammar = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,126}$`)

// maxList bounds a list, in bytes: some 100,000 hosts.
const maxList = 32 << 20

// ParseList reads a known_hosts file (sshd(8)). A line is one name and one key; the name is
// that of the host as the server knows it, and may be hashed (ssh-keygen -H). A host may have
// several keys. A key behind @revoked is nobody's, whatever else is said of it, and only there
// names may be patterns.
//
// Refused, with the line, is what would let a machine be more than one host: wildcards,
// @cert-authority, several names on a line, and a key that stands for two names.
func ParseList(text []byte) (*List, error) {
	if len(text) > maxList {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(text), maxList)
	}
	l := &List{keys: make(map[string]name), revoked: make(map[string]bool)}
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if err := l.add(line, number); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
	}
	return l, nil
}

func (l *List) add(line []byte, number int) error {
	marker, hosts, public, _, _, err := ssh.ParseKnownHosts(line)
	if err != nil {
		return errors.New("it is no line of known_hosts: write it as NAME KEYTYPE KEY, as ssh-keyscan prints it")
	}
	switch marker {
	case "":
	case "revoked":
		l.revoked[ssh.FingerprintSHA256(public)] = true
		return nil
	case "cert-authority":
		return errors.New("@cert-authority is refused: whoever has that key could be every host; list the hosts' own keys")
	default:
		return fmt.Errorf("the marker @%.32s is not known", marker)
	}
	key, err := accept(public)
	if err != nil {
		return err
	}
	if len(hosts) > 1 {
		return fmt.Errorf("one key has the names %.100s: one machine would be several hosts; leave the one that the agent has as host", strings.Join(hosts, " and "))
	}
	is, err := parseName(hosts[0])
	if err != nil {
		return err
	}
	is.line = number
	fingerprint := key.Fingerprint()
	was, known := l.keys[fingerprint]
	if known && !same(was, is) {
		return fmt.Errorf("the key %s stands in line %d for another name, or for one that is hashed: one machine would be two hosts; give each host a key of its own", fingerprint, was.line)
	}
	if !known || was.hash != nil {
		l.keys[fingerprint] = is
	}
	return nil
}

func parseName(host string) (name, error) {
	if rest, ok := strings.CutPrefix(host, "|1|"); ok {
		salt, hash, _ := strings.Cut(rest, "|")
		s, err := base64.StdEncoding.DecodeString(salt)
		h, err2 := base64.StdEncoding.DecodeString(hash)
		if errors.Join(err, err2) != nil || len(h) != sha1.Size || len(s) == 0 {
			return name{}, errors.New("the hashed name is damaged: it is |1|SALT|HASH")
		}
		return name{salt: s, hash: h}, nil
	}
	switch {
	case strings.ContainsAny(host, "*?"):
		return name{}, fmt.Errorf("the name %.64q is a pattern: one machine would be every host that fits; list each host with its own key", host)
	case strings.HasPrefix(host, "!"):
		return name{}, fmt.Errorf("the name %.64q excludes, and there is nothing to exclude from", host)
	case strings.HasPrefix(host, "["):
		return name{}, fmt.Errorf("the name %.64q has a port: write the name that the agent has as host, alone", host)
	case !hostGrammar.MatchString(host):
		return name{}, fmt.Errorf("%.64q is not the name of a host: write the one that the agent has as host", host)
	}
	return name{plain: host}, nil
}

// same tells whether two lines certainly name one host.
func same(a, b name) bool {
	switch {
	case a.hash == nil && b.hash == nil:
		return a.plain == b.plain
	case a.hash == nil:
		return b.is(a.plain)
	case b.hash == nil:
		return a.is(b.plain)
	}
	return bytes.Equal(a.salt, b.salt) && bytes.Equal(a.hash, b.hash)
}

// Look tells what the list says of the key with a fingerprint that signed as host.
func (l *List) Look(host, fingerprint string) Standing {
	if l == nil {
		return Unlisted
	}
	is, known := l.keys[fingerprint]
	switch {
	case l.revoked[fingerprint]:
		return Revoked
	case !known:
		return Unlisted
	case is.is(host):
		return Listed
	}
	return Another
}

// Len is how many keys are in the list.
func (l *List) Len() int {
	if l == nil {
		return 0
	}
	return len(l.keys)
}
