package access

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"narwharf/signing/access/scope"
)

const (
	secretPrefix = "nwt_"
	idLen        = 10 // 50 bits, public
	bodyLen      = 52 // 260 bits, secret
	sumLen       = 7  // 32 bits
	secretLen    = len(secretPrefix) + idLen + 1 + bodyLen + sumLen

	// What begins the ids of join tokens and of short-lived ones, and of no others, since 2026-11.
	joinMark  = "j01n"
	shortMark = "sh0rt"

	// symbols are the digits of everything in a token, five bits each.
	symbols = "0123456789abcdefghjkmnpqrstvwxyz"

	maxName = 64
	maxBy   = 128
)

// Token is what is kept of a token: everything but the secret.
type Token struct {
	ID      string    `json:"-"`                // the ten symbols after nwt_, public
	Name    string    `json:"name"`             // who carries it, "ci"; see New
	Hash    Hash      `json:"hash"`             // of the whole secret, from "nwt_" to the checksum
	Scopes  scope.Set `json:"scopes"`           // sorted, at least one
	Created time.Time `json:"created"`          // times are in UTC and whole seconds
	Expires time.Time `json:"expires,omitzero"` // the first moment at which it is not valid; zero: never
	Revoked time.Time `json:"revoked,omitzero"` // zero: not revoked
	By      string    `json:"by,omitempty"`     // who made it, for people: a line of at most 128 bytes; may be ""

	// Host, if it is not "", is the one host that the token may act as.
	Host string `json:"host,omitempty"`
	// Uses is how many hosts a join token lets join; 0: it is no join token.
	Uses int   `json:"uses,omitempty"`
	Used []Use `json:"used,omitempty"` // of a join token, the oldest first
	// Joined is the id of the join token that this one was made by, else "".
	Joined string `json:"joined,omitempty"`
}

// Hash is a SHA-256, in text 64 hex digits.
type Hash [sha256.Size]byte

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(h) {
		return errors.New("its hash is not 64 hex digits")
	}
	*h = Hash(b)
	return nil
}

// record is the JSON of a token in the state. V is its format. A change that an older
// narwharf would misread gets the next number: 2 are tokens that are of one host, or make
// such, which that one would take for tokens of any; 3 and 4 have a scope that it does not know.
type record struct {
	V int `json:"v"`
	Token
}

const lastRecord = 4

func encodeToken(t Token) ([]byte, error) {
	r := record{1, t}
	if t.Host != "" || t.Uses > 0 {
		r.V = 2
	}
	if slices.ContainsFunc(t.Scopes, newer) {
		r.V = 3
	}
	if slices.ContainsFunc(t.Scopes, func(s scope.Scope) bool { return s.Kind == scope.Reboot }) {
		r.V = 4
	}
	value, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode token %s: %w", t.ID, err)
	}
	return value, nil
}

// newer tells whether a scope is one that was not in version 2.
func newer(s scope.Scope) bool {
	return s.Kind == scope.Read || s.Target != "" || s.Kind == scope.Operate && s.Glob != ""
}

func decodeToken(id string, value []byte) (Token, error) {
	// The version first: the rest may look different in another.
	var head struct {
		V int `json:"v"`
	}
	var r record
	err := json.Unmarshal(value, &head)
	if err == nil && (head.V < 1 || head.V > lastRecord) {
		err = fmt.Errorf("its format has version %d, and this narwharf knows versions up to %d only: run the one that wrote it, or a newer one", head.V, lastRecord)
	}
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(value))
		dec.DisallowUnknownFields()
		err = dec.Decode(&r)
	}
	r.ID = id
	t := r.normal()
	if err == nil {
		err = t.check()
	}
	if err != nil {
		return Token{}, fmt.Errorf("decode token %s: %w", scope.Quote(id), err)
	}
	return t, nil
}

// New makes a token of the given name and scopes and returns its secret, which is
// nowhere else and cannot be had again. By is for the caller to fill in. A name has 1 to
// 64 letters, digits and . _ @ + -, the first a letter or digit (a colon is kept for
// principals that are no tokens). If host is not "", it may act as no other. A zero
// expires means never.
func New(name, host string, scopes scope.Set, now, expires time.Time) (secret string, t Token, err error) {
	return create(Token{Name: name, Host: host, Scopes: scopes, Created: now, Expires: expires})
}

// create draws the secret of a token.
func create(t Token) (string, Token, error) {
	mark := ""
	if t.Uses > 0 {
		mark = joinMark
	}
	secret, id, hash := draw(mark)
	t.ID, t.Hash = id, hash
	t = t.normal()
	if err := t.check(); err != nil {
		return "", Token{}, fmt.Errorf("make token %s: %w", scope.Quote(t.Name), err)
	}
	return secret, t, nil
}

// DrawShort draws the secret of a short-lived token. It has the form of all tokens, and
// IsShort is true of its id.
func DrawShort() (secret, id string, hash Hash) { return draw(shortMark) }

// draw draws a secret whose id begins with mark, or with none of the marks.
func draw(mark string) (secret, id string, hash Hash) {
	random := make([]byte, idLen+bodyLen)
	_, _ = rand.Read(random) // which ends the program where it would fail
	for i, b := range random {
		random[i] = symbols[b&31]
	}
	for _, other := range []string{joinMark, shortMark} {
		if bytes.HasPrefix(random, []byte(other)) {
			random[0] = 'k'
		}
	}
	copy(random, mark)
	id = string(random[:idLen])
	secret = secretPrefix + id + "_" + string(random[idLen:])
	secret += checksum(secret)
	return secret, id, sha256.Sum256([]byte(secret))
}

// Active reports whether the token is valid at the time now: neither revoked (at
// whatever time) nor expired.
func (t Token) Active(now time.Time) bool { return t.Revoked.IsZero() && !t.Expired(now) }

// Expired reports whether now is at or after Expires.
func (t Token) Expired(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }

// normal returns t as every store returns it, sharing nothing with t.
func (t Token) normal() Token {
	t.Scopes = t.Scopes.Union(nil)
	t.Used = slices.Clone(t.Used)
	for i := range t.Used {
		t.Used[i].At = wholeSecond(t.Used[i].At)
	}
	for _, at := range []*time.Time{&t.Created, &t.Expires, &t.Revoked} {
		*at = wholeSecond(*at)
	}
	return t
}

func wholeSecond(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// check holds for every token in a store.
func (t Token) check() error {
	switch {
	case !validID(t.ID):
		return fmt.Errorf("id %s is not %d symbols of %s", scope.Quote(t.ID), idLen, symbols)
	case !nameGrammar.MatchString(t.Name):
		return fmt.Errorf("name %s is not 1 to %d letters, digits and . _ @ + -, the first a letter or digit", scope.Quote(t.Name), maxName)
	case strings.HasPrefix(t.Name, secretPrefix):
		return fmt.Errorf("name %s begins like a secret", scope.Quote(t.Name))
	case len(t.By) > maxBy || !utf8.ValidString(t.By) || strings.ContainsFunc(t.By, unicode.IsControl):
		return fmt.Errorf("by is not one line of at most %d bytes of text", maxBy)
	case t.Hash == Hash{}:
		return errors.New("the hash of the secret is missing")
	case len(t.Scopes) == 0:
		return fmt.Errorf("no scopes: give at least one of %s", scope.Valid)
	case t.Created.IsZero():
		return errors.New("the time of creation is missing")
	case !t.Expires.IsZero() && !t.Expires.After(t.Created):
		return fmt.Errorf("it would expire on %s, which is not after its creation on %s", stamp(t.Expires), stamp(t.Created))
	}
	return cmp.Or(t.checkJoin(), t.Scopes.Check())
}

// IsJoin tells whether a secret is that of a join token, as far as it shows.
func IsJoin(secret string) bool { return strings.HasPrefix(secret, secretPrefix+joinMark) }

// IsShort tells whether an id is that of a short-lived token.
func IsShort(id string) bool { return strings.HasPrefix(id, shortMark) }

// ParseSecret checks the form of a token's secret, its checksum included, and
// returns the id in it. The error says in words what is wrong and contains nothing of s.
func ParseSecret(s string) (id string, err error) {
	rest, ok := strings.CutPrefix(s, secretPrefix)
	if !ok {
		return "", errors.New("is not a narwharf token: those begin with " + secretPrefix)
	}
	if len(s) < secretLen {
		return "", fmt.Errorf("is cut short (%d of %d characters): copy the whole token", len(s), secretLen)
	}
	if len(s) > secretLen {
		return "", fmt.Errorf("is too long (%d characters, not %d): copy the token alone", len(s), secretLen)
	}
	split := secretLen - sumLen
	if rest[idLen] != '_' || !onlySymbols(rest[:idLen]) || !onlySymbols(rest[idLen+1:]) || checksum(s[:split]) != s[split:] {
		return "", errors.New("is mistyped (its checksum is wrong): copy it again")
	}
	return rest[:idLen], nil
}

// checksum returns the CRC-32 (IEEE) of s in sumLen symbols, high bits first.
func checksum(s string) string {
	sum := crc32.ChecksumIEEE([]byte(s))
	var out [sumLen]byte
	for i := range out {
		out[sumLen-1-i] = symbols[sum&31]
		sum >>= 5
	}
	return string(out[:])
}

func onlySymbols(s string) bool { return strings.Trim(s, symbols) == "" }

func validID(s string) bool { return len(s) == idLen && onlySymbols(s) }

var nameGrammar = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._@+-]{0,63}$`)

// stamp writes a time for people.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
