package oidc

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Bounds on what is decoded before anything is known of it, in bytes.
const (
	maxToken  = 16 << 10
	maxHeader = 4 << 10
)

// skew is how far clocks may be apart.
const skew = time.Minute

// Refused is why a JWT is not good. Its text is for the bearer: ASCII, of at most 200 bytes, with nothing
// of the JWT in it.
type Refused struct {
	Reason string // one of a few words, for metrics
	text   string
}

func (r *Refused) Error() string { return r.text }

func refuse(reason, format string, args ...any) *Refused {
	return &Refused{reason, fmt.Sprintf(format, args...)}
}

// token is a JWT that is decoded, and believed in nothing.
type token struct {
	alg, kid string
	payload  string // of which claims are made
	claims   map[string]any
	issuer   string
	audience []string
	ends     time.Time
}

// parse decodes a JWT.
func parse(jwt string) (*token, *Refused) {
	if len(jwt) > maxToken {
		return nil, refuse("malformed", "the JWT is longer than %d bytes", maxToken)
	}
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 || len(parts[0]) > maxHeader || parts[2] == "" || strings.ContainsAny(jwt, "\r\n") {
		return nil, refuse("malformed", "the JWT is not three parts of base64url with dots between them: copy it again, whole")
	}
	var header struct {
		Alg  string          `json:"alg"`
		Kid  string          `json:"kid"`
		Crit json.RawMessage `json:"crit"`
	}
	if _, err := decode(parts[0], &header); err != nil {
		return nil, refuse("malformed", "the JWT's header cannot be read: copy it again, whole")
	}
	switch {
	case !slices.Contains(algorithms, header.Alg):
		return nil, refuse("algorithm", "the JWT is not signed by RS256, ES256, ES384 or EdDSA: nothing else is taken here")
	case header.Crit != nil:
		return nil, refuse("crit", "the JWT's header has crit: nothing that could stand there is known here")
	}
	t := &token{alg: header.Alg, kid: header.Kid}
	var err error
	if t.payload, err = decode(parts[1], &t.claims); err != nil || t.claims == nil {
		return nil, refuse("malformed", "the JWT's claims cannot be read: copy it again, whole")
	}
	t.issuer, _ = t.claims["iss"].(string)
	t.audience = texts(t.claims["aud"])
	t.ends = instant(t.claims["exp"])
	return t, nil
}

func decode(part string, v any) (text string, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return "", err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		return "", err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return "", errors.New("there is more behind it")
	}
	return string(b), nil
}

// texts is a claim that is a text or a list of them.
func texts(claim any) (list []string) {
	switch v := claim.(type) {
	case string:
		return []string{v}
	case []any:
		for _, x := range v {
			if text, ok := x.(string); ok {
				list = append(list, text)
			}
		}
	}
	return list
}

// instant is a claim that is a time, in seconds; zero if it is none.
func instant(claim any) time.Time {
	n, ok := claim.(json.Number)
	if !ok {
		return time.Time{}
	}
	f, err := n.Float64()
	if err != nil || f < 1 || f > 1<<40 {
		return time.Time{}
	}
	return time.Unix(int64(f), 0)
}

// checkTime says what is wrong with the times of a JWT.
func (t *token) checkTime(now time.Time) *Refused {
	switch {
	case t.ends.IsZero():
		return refuse("time", "the JWT has no end (exp)")
	case !now.Before(t.ends.Add(skew)):
		return refuse("expired", "the JWT expired on %s: ask the issuer for another, and exchange it (narwharf login) where the work takes longer", stamp(t.ends))
	}
	for _, name := range []string{"nbf", "iat"} {
		if at := instant(t.claims[name]); now.Add(skew).Before(at) {
			return refuse("time", "the JWT is good from %s on, and here it is %s: one of the two clocks is wrong", stamp(at), stamp(now))
		}
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// checkAudience says whether a JWT is for us. Of a person's, for the client, azp is the client.
func (t *token) checkAudience(audience, client string) *Refused {
	if slices.Contains(t.audience, audience) {
		return nil
	}
	if client == "" || !slices.Contains(t.audience, client) {
		return refuse("audience", "the JWT is not for this server: ask for one with the audience %.100s", audience)
	}
	return t.checkClient(client)
}

// checkClient judges azp: OpenID Connect Core 3.1.3.7, items 4 and 5.
func (t *token) checkClient(client string) *Refused {
	azp, there := t.claims["azp"]
	if there && azp != client || !there && len(t.audience) > 1 {
		return refuse("azp", "the JWT was given to another client than ours (azp)")
	}
	return nil
}
