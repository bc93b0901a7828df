package access

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// recordVersion is the "v" of a value. A change that an older narwharf would
// misread gets the next number: 2 are tokens that are of one host, or make such,
// which that one would take for tokens of any.
const (
	recordVersion     = 1
	hostRecordVersion = 2
)

// record is the JSON of a value.
type record struct {
	V       int       `json:"v"`
	Name    string    `json:"name"`
	Hash    string    `json:"hash"`
	Scopes  Scopes    `json:"scopes"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"`
	Revoked time.Time `json:"revoked,omitzero"`
	By      string    `json:"by,omitempty"`
	Host    string    `json:"host,omitempty"`
	Uses    int       `json:"uses,omitempty"`
	Used    []Use     `json:"used,omitempty"`
	Joined  string    `json:"joined,omitempty"`
}

func encodeToken(t Token) ([]byte, error) {
	version := recordVersion
	if t.Host != "" || t.Uses > 0 {
		version = hostRecordVersion
	}
	value, err := json.Marshal(record{
		V: version, Name: t.Name, Hash: hex.EncodeToString(t.Hash[:]), Scopes: t.Scopes,
		Created: t.Created, Expires: t.Expires, Revoked: t.Revoked, By: t.By,
		Host: t.Host, Uses: t.Uses, Used: t.Used, Joined: t.Joined,
	})
	if err != nil {
		return nil, fmt.Errorf("encode token %s: %w", t.ID, err)
	}
	return value, nil
}

func decodeToken(id string, value []byte) (Token, error) {
	// The version first: the rest may look different in another.
	var head struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(value, &head); err != nil {
		return Token{}, fmt.Errorf("decode token %s: %w", quote(id), err)
	}
	if head.V != recordVersion && head.V != hostRecordVersion {
		return Token{}, fmt.Errorf("decode token %s: its format has version %d, and this narwharf knows versions up to %d only: run the one that wrote it, or a newer one",
			quote(id), head.V, hostRecordVersion)
	}
	var r record
	dec := json.NewDecoder(bytes.NewReader(value))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return Token{}, fmt.Errorf("decode token %s: %w", quote(id), err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Token{}, fmt.Errorf("decode token %s: something follows its JSON", quote(id))
	}
	t := Token{ID: id, Name: r.Name, Scopes: r.Scopes, Created: r.Created, Expires: r.Expires, Revoked: r.Revoked, By: r.By,
		Host: r.Host, Uses: r.Uses, Used: r.Used, Joined: r.Joined}
	hash, err := hex.DecodeString(r.Hash)
	if err != nil || copy(t.Hash[:], hash) != len(t.Hash) || len(hash) != len(t.Hash) {
		return Token{}, fmt.Errorf("decode token %s: its hash is not 64 hex digits", quote(id))
	}
	t = t.normal()
	if err := t.check(); err != nil {
		return Token{}, fmt.Errorf("decode token %s: %w", quote(id), err)
	}
	return t, nil
}
