package shortlived

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

// Token is what is kept of a token: everything but the secret.
type Token struct {
	ID      string // public
	Hash    access.Hash
	Grant   access.Grant // its Ends is that of the token
	Created time.Time    // times are in UTC and whole seconds
	Note    string       // for people: where it was asked from; one line of at most 256 bytes

	closed bool // a newer narwharf wrote it, and this one does not know what it means
}

// row is the JSON of a token.
type row struct {
	V       int         `json:"v"`
	Hash    access.Hash `json:"hash"`
	Kind    string      `json:"kind"`
	Issuer  string      `json:"issuer,omitempty"`
	Rule    string      `json:"rule"`
	Subject string      `json:"subject,omitempty"`
	Scopes  []string    `json:"scopes"`
	Host    string      `json:"host,omitempty"`
	Owner   string      `json:"owner,omitempty"`
	TTL     int64       `json:"ttl,omitempty"`
	Forget  int64       `json:"forget,omitempty"`
	Created time.Time   `json:"created"`
	Ends    time.Time   `json:"ends"`
	Note    string      `json:"note,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (t *Token) MarshalJSON() ([]byte, error) {
	g := t.Grant
	r := row{
		V: 1, Hash: t.Hash, Kind: g.Kind, Issuer: g.Issuer, Rule: g.Rule, Subject: g.Subject, Host: g.Host, Owner: g.Owner,
		TTL: int64(g.TTL / time.Second), Forget: int64(g.Forget / time.Second), Created: t.Created, Ends: g.Ends, Note: t.Note,
	}
	for _, s := range g.Scopes {
		r.Scopes = append(r.Scopes, s.String())
	}
	return json.Marshal(r)
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *Token) UnmarshalJSON(text []byte) error {
	var r row
	if err := json.Unmarshal(text, &r); err != nil {
		return err
	}
	scopes, err := scope.ParseSet(r.Scopes)
	*t = Token{
		Hash: r.Hash, Created: r.Created, Note: r.Note, closed: r.V != 1 || err != nil,
		Grant: access.Grant{
			Kind: r.Kind, Issuer: r.Issuer, Rule: r.Rule, Subject: r.Subject, Scopes: scopes, Host: r.Host, Owner: r.Owner,
			TTL: time.Duration(r.TTL) * time.Second, Forget: time.Duration(r.Forget) * time.Second, Ends: r.Ends,
		},
	}
	return nil
}

// maxLife bounds how long any of them lasts.
const maxLife = 31 * 24 * time.Hour

// check holds for every token that is stored.
func (t *Token) check() error {
	g := t.Grant
	for _, f := range []struct {
		name, text string
		min, max   int
	}{
		{"kind", g.Kind, 1, 16}, {"issuer", g.Issuer, 0, 64}, {"rule", g.Rule, 1, 64}, {"subject", g.Subject, 0, 128},
		{"host", g.Host, 0, 127}, {"owner", g.Owner, 0, 512}, {"note", t.Note, 0, 256},
	} {
		if len(f.text) < f.min || len(f.text) > f.max || !utf8.ValidString(f.text) || strings.ContainsFunc(f.text, unicode.IsControl) {
			return fmt.Errorf("its %s is not one line of %d to %d bytes", f.name, f.min, f.max)
		}
	}
	switch {
	case len(g.Scopes) == 0:
		return errors.New("it has no scopes")
	case !g.Ends.After(t.Created):
		return fmt.Errorf("it would end at %s, which is not after now, %s", g.Ends.UTC().Format(time.RFC3339), t.Created.Format(time.RFC3339))
	case g.Ends.Sub(t.Created) > maxLife:
		return fmt.Errorf("it would last longer than %s", maxLife)
	case g.TTL < 0 || g.Forget < 0:
		return errors.New("it has a duration below 0")
	}
	return g.Scopes.Check()
}
