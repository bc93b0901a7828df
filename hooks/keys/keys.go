// Package keys is which keys may sign the releases of a channel, over time: what
// signing/keyring is to those who believe it, as the server keeps it and hands it on.
//
// The keys that count now stand with the rules of the channel (channel.State), since each
// promote is checked by them. Here stands what led to them. A change of either is one
// transaction under the channel's lock.
//
// A server checks all of it and is believed nothing of it: hosts walk the statements from
// their own configuration. So a statement needs no more of a credential than a promote does,
// and a revocation a signature by a recovery key, which an admin names.
//
// # Format
//
// In the state hooks/keys <channel> is a Row as JSON, and so is the file
// channels/<channel>/keyring, from which Restore makes it anew.
package keys

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/channel"
	"narwharf/signing"
	"narwharf/signing/keyring"
)

// MaxChange bounds the body of a change in bytes.
const MaxChange = 512 << 10

// Files is where rows are kept beside the state; see channel.Files.
type Files interface {
	Write(name string, data []byte) error
	Read(name string, limit int64) ([]byte, error)
	Folders(dir string) ([]string, error)
}

// A Row is what is kept of a channel.
type Row struct {
	// The keys before the first statement.
	First     []string `json:"first,omitempty"`
	Threshold int      `json:"threshold,omitempty"`

	Statements  []*signing.Envelope `json:"statements,omitempty"`
	Revocations []*signing.Envelope `json:"revocations,omitempty"`
	Recovery    []string            `json:"recovery,omitempty"`
}

// Keyrings are the rows of all channels.
type Keyrings struct {
	set      *mirror.Set
	table    *mirror.Table[Row]
	channels *channel.Channels
	files    Files
}

// New opens them in the state of a set.
func New(set *mirror.Set, channels *channel.Channels, files Files) (k *Keyrings, err error) {
	k = &Keyrings{set: set, channels: channels, files: files}
	if k.table, err = mirror.Open[Row](set, "hooks/keys", "keys of channel", nil); err != nil {
		return nil, fmt.Errorf("open the keys of channels: %w", err)
	}
	return k, nil
}

// After are the statements above a version, and the revocations, for a host; none for one
// whose version is below 0, which knows nothing of them.
func (k *Keyrings) After(name string, version int64) (statements, revocations []*signing.Envelope) {
	row := k.table.Get(name)
	if row == nil || version < 0 {
		return nil, nil
	}
	at := slices.IndexFunc(row.Statements, func(e *signing.Envelope) bool { return versionOf(e) > version })
	if at < 0 {
		at = len(row.Statements)
	}
	return row.Statements[at:], row.Revocations
}

func versionOf(e *signing.Envelope) int64 {
	if s, err := keyring.ParseKeys(e.Payload); err == nil {
		return s.Version
	}
	return 0
}

// Describe is all that is known of the keys of a channel.
func (k *Keyrings) Describe(name string) (*api.Keys, error) {
	now := k.channels.Get(name)
	if now.State.Seq == 0 {
		return nil, now.Absent()
	}
	row := k.table.Get(name)
	if row == nil {
		row = new(Row)
	}
	st := now.State
	return &api.Keys{
		Channel: name, Origin: st.Origin, Version: st.KeysVersion, Keys: st.Keys, Threshold: st.Threshold,
		First: row.First, FirstThreshold: row.Threshold, Revoked: st.Revoked, Recovery: row.Recovery, Statements: row.Statements, Revocations: row.Revocations,
	}, nil
}

// Change makes one change. ruling is why the caller may not name recovery keys, nil if he
// may.
func (k *Keyrings) Change(ctx context.Context, name string, c *api.KeysChange, by string, ruling error) error {
	given := 0
	for _, is := range []bool{c.Statement != nil, c.Revocation != nil, c.Recovery != nil} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		return api.Errorf(api.BadRequest, "send one of statement, revocation and recovery: narwharf channel keys does")
	case c.Recovery != nil && ruling != nil:
		return fmt.Errorf("the recovery keys of channel %s would change: %w", name, ruling)
	}
	for try := 0; ; try++ {
		now := k.channels.Get(name)
		if now.State.Seq == 0 {
			return now.Absent()
		}
		err := k.channels.Change(ctx, now, func(tx *mirror.Tx) {
			st, row := now.State, Row{}
			if is := k.table.In(tx, name); is != nil {
				row = *is
			}
			text, err := step(c, now, &st, &row)
			if err != nil || text == "" {
				tx.Keep(err)
				return
			}
			tx.Keep(k.write(name, &row))
			k.table.Put(tx, name, &row)
			k.channels.Put(tx, name, &st)
			audit.Note(tx, api.Event{Kind: "channel.keys", By: by, Channel: name, Text: text, Alarm: c.Revocation != nil})
		})
		if !errors.Is(err, channel.ErrMoved) || try == 5 {
			return err
		}
	}
}

// step makes a change, and says it in words; "" if there is nothing to change.
func step(c *api.KeysChange, now *channel.Snapshot, st *channel.State, row *Row) (text string, err error) {
	switch {
	case c.Statement != nil:
		return add(c.Statement, now, st, row)
	case c.Revocation != nil:
		return revoke(c.Revocation, now, st, row)
	}
	return nameRecovery(c.Recovery, row)
}

// base is where the statements of a channel begin on this server.
func base(now *channel.Snapshot, keys []string, threshold int, version int64, row *Row) (keyring.Base, error) {
	b := keyring.Base{Origin: now.State.Origin, Channel: now.Name, Version: version, Threshold: threshold}
	var err error
	if b.Keys, err = parse(keys); err == nil {
		b.Recovery, err = parse(row.Recovery)
	}
	return b, err
}

func parse(texts []string) (list []signing.PublicKey, err error) {
	for _, t := range texts {
		k, err := signing.ParsePromoterKey(t)
		if err != nil {
			return nil, err
		}
		list = append(list, k)
	}
	return list, nil
}

// add takes a statement that follows the last one.
func add(e *signing.Envelope, now *channel.Snapshot, st *channel.State, row *Row) (text string, err error) {
	s, err := keyring.ParseKeys(e.Payload)
	switch {
	case err != nil:
		return "", api.Errorf(api.Invalid, "%v", err)
	case s.Origin != st.Origin || s.Channel != now.Name:
		return "", api.Errorf(api.Invalid, "the statement is of %s (%s), not of %s (%s)", s.Channel, s.Origin, now.Name, st.Origin)
	case slices.ContainsFunc(row.Statements, func(o *signing.Envelope) bool { return bytes.Equal(o.Payload, e.Payload) }):
		return "", nil // it is here
	case s.Version != st.KeysVersion+1:
		return "", api.Errorf(api.SeqConflict, "the keys of channel %s are at version %d, and version %d does not follow it: make it anew", now.Name, st.KeysVersion, s.Version)
	case len(row.Statements) >= keyring.MaxStatements:
		return "", api.Errorf(api.Invalid, "the channel has %d statements, which is as many as hosts follow: give the hosts the keys by their configuration, with keys_version, and begin another channel", len(row.Statements))
	}
	if n := len(row.Statements); n > 0 && (s.Previous == nil || *s.Previous != keyring.DigestOf(row.Statements[n-1].Payload)) {
		return "", api.Errorf(api.SeqConflict, "the statement follows another version %d than the one here: make it anew", st.KeysVersion)
	}
	b, err := base(now, st.Keys, st.Threshold, st.KeysVersion, row)
	if err != nil {
		return "", err
	}
	r := keyring.Walk(b, []*signing.Envelope{e}, row.Revocations)
	if r.Version != s.Version {
		return "", api.Errorf(api.BadSignature, "%s", r.Why)
	}
	if now.Release != nil {
		if _, err := now.Release.Release.Head.Open(signing.HeadKind, r.Keys, r.Threshold); err != nil {
			return "", api.Errorf(api.BadSignature, "release %d of %s would be good no more (%v), and hosts would reject it: let keys that stay sign it first, with narwharf channel refresh %[2]s --key FILE", st.Current, now.Name, err)
		}
	}
	if len(row.Statements) == 0 {
		row.First, row.Threshold = st.Keys, st.Threshold
	}
	row.Statements = append(slices.Clone(row.Statements), e)
	st.Keys, st.Threshold, st.KeysVersion = s.Keys, s.Threshold, s.Version
	return fmt.Sprintf("the keys of %s are version %d: %d of %s", now.Name, s.Version, s.Threshold, keyring.Names(s.Public())), nil
}

// revoke takes a revocation.
func revoke(e *signing.Envelope, now *channel.Snapshot, st *channel.State, row *Row) (text string, err error) {
	first, threshold, from := row.First, row.Threshold, int64(0)
	if len(row.Statements) == 0 {
		first, threshold, from = st.Keys, st.Threshold, st.KeysVersion
	}
	b, err := base(now, first, threshold, from, row)
	switch {
	case err != nil:
		return "", err
	case len(row.Recovery) == 0:
		return "", api.Errorf(api.Invalid, "this server knows no recovery key of channel %s: narwharf channel keys %[1]s recovery KEY, with a token of the scope admin", now.Name)
	case slices.ContainsFunc(row.Revocations, func(o *signing.Envelope) bool { return bytes.Equal(o.Payload, e.Payload) }):
		return "", nil
	case len(row.Revocations) >= keyring.MaxRevocations:
		return "", api.Errorf(api.Invalid, "the channel has %d revocations, which is as many as hosts take", len(row.Revocations))
	}
	v, err := keyring.OpenRevocation(b, e)
	if err != nil {
		return "", api.Errorf(api.BadSignature, "the revocation: %v", err)
	}
	if v.Digest != nil && !slices.ContainsFunc(row.Statements, func(o *signing.Envelope) bool { return keyring.DigestOf(o.Payload) == *v.Digest }) {
		return "", api.Errorf(api.Invalid, "the revocation vouches for a version %d of the keys (%s) that this server does not have: send that first", v.Version, v.Digest)
	}
	row.Revocations = append(slices.Clone(row.Revocations), e)
	r := keyring.Walk(b, row.Statements, row.Revocations)
	st.Revoked = keyring.Texts(r.Revoked)
	if len(row.Statements) > 0 && r.Version != st.KeysVersion { // what a thief added is undone
		row.Statements = r.Statements
		st.KeysVersion, st.Keys, st.Threshold = r.Version, row.First, row.Threshold
		if n := len(r.Statements); n > 0 {
			last, err := keyring.ParseKeys(r.Statements[n-1].Payload)
			if err != nil {
				return "", err
			}
			st.Keys, st.Threshold = last.Keys, last.Threshold
		}
	}
	left, need, err := st.Trust()
	if err != nil {
		return "", err
	}
	if now.Release != nil {
		if _, err := now.Release.Release.Head.Open(signing.HeadKind, left, need); err != nil {
			st.Bad = st.Current
		}
	}
	return fmt.Sprintf("a recovery key revoked %s for %s (%s); now %d of %s sign", keyring.Names(v.Public()), now.Name, v.Reason, need, keyring.Names(left)), nil
}

// nameRecovery notes the recovery keys.
func nameRecovery(texts []string, row *Row) (text string, err error) {
	list, err := parse(texts)
	if err != nil {
		return "", api.Errorf(api.Invalid, "recovery: %v", err)
	}
	if len(list) > 8 {
		return "", api.Errorf(api.Invalid, "%d recovery keys, at most 8", len(list))
	}
	row.Recovery = keyring.Texts(list)
	return "the recovery keys are " + keyring.Names(list), nil
}

func fileName(channel string) string { return "channels/" + channel + "/keyring" }

func (k *Keyrings) write(name string, row *Row) error {
	text, err := json.Marshal(row)
	if err == nil {
		err = k.files.Write(fileName(name), append(text, '\n'))
	}
	return err
}

// Restore takes rows from their files, where the state has none.
func (k *Keyrings) Restore(ctx context.Context) error {
	names, err := k.files.Folders("channels")
	for _, name := range names {
		if err == nil && k.table.Get(name) == nil {
			if err = k.restore(ctx, name); err != nil {
				err = fmt.Errorf("restore the keys of channel %s: %w", name, err)
			}
		}
	}
	return err
}

func (k *Keyrings) restore(ctx context.Context, name string) error {
	text, err := k.files.Read(fileName(name), 16<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	row := new(Row)
	if err == nil {
		err = json.Unmarshal(text, row)
	}
	now := k.channels.Get(name)
	if err != nil || now.State.Seq == 0 {
		return err
	}
	b, err := base(now, row.First, row.Threshold, 0, row)
	if err != nil {
		return err
	}
	return k.channels.Change(ctx, now, func(tx *mirror.Tx) {
		st := now.State
		r := keyring.Walk(b, row.Statements, row.Revocations)
		st.Revoked = keyring.Texts(r.Revoked)
		if n := len(row.Statements); n > 0 && r.Version > st.KeysVersion { // the last release was made before
			if last, err := keyring.ParseKeys(row.Statements[n-1].Payload); err == nil {
				st.Keys, st.Threshold, st.KeysVersion = last.Keys, last.Threshold, last.Version
			}
		}
		k.table.Put(tx, name, row)
		k.channels.Put(tx, name, &st)
	})
}
