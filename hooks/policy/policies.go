package policy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
)

// Files is where policies are kept beside the state; see channel.Files.
type Files interface {
	Write(name string, data []byte) error
	Read(name string, limit int64) ([]byte, error)
	Folders(dir string) ([]string, error)
}

// MaxSize bounds the text of a policy.
const MaxSize = 64 << 10

// Policies is all policies.
type Policies struct {
	set   *mirror.Set
	table *mirror.Table[Policy]
	files Files
}

// New opens the policies in the state of a set.
func New(set *mirror.Set, files Files) (t *Policies, err error) {
	t = &Policies{set: set, files: files}
	if t.table, err = mirror.Open[Policy](set, "hooks/policy", "policy of channel", nil); err != nil {
		return nil, fmt.Errorf("open policies: %w", err)
	}
	return t, nil
}

// Lock is the lock of the state that whoever changes a policy holds.
func Lock(channel string) string { return "policy:" + channel }

// Of is that of a channel, an empty one if none was set.
func (t *Policies) Of(channel string) *Policy { return cmp.Or(t.table.Get(channel), none) }

// In is Of in a transaction.
func (t *Policies) In(tx *mirror.Tx, channel string) *Policy {
	return cmp.Or(t.table.In(tx, channel), none)
}

// All are all that were set.
func (t *Policies) All() map[string]*Policy { return t.table.All() }

// Is tells whether a topic is of a policy alone.
func (t *Policies) Is(topic string) bool { return strings.HasPrefix(topic, t.table.Topic("")) }

// Set replaces a policy, and lets the hosts look anew. matches is nil for the ETag
// of one that the caller wants to replace.
func (t *Policies) Set(ctx context.Context, channel string, p *Policy, matches func(etag string) error, by string) error {
	return t.set.Update(ctx, []string{Lock(channel)}, func(tx *mirror.Tx) error { return t.SetIn(tx, channel, p, matches, by) })
}

// SetIn is Set in a transaction that holds the Lock.
func (t *Policies) SetIn(tx *mirror.Tx, channel string, p *Policy, matches func(etag string) error, by string) error {
	_, text := p.Encode()
	etag, _ := t.In(tx, channel).Encode()
	if err := matches(etag); err != nil {
		return err
	}
	tx.Keep(t.files.Write(fileName(channel), text))
	t.put(tx, channel, p, api.Event{By: by, Text: "the policy of " + channel + " is now " + p.String(), Data: map[string]string{"policy": strings.TrimSpace(string(text))}})
	return nil
}

func (t *Policies) put(tx *mirror.Tx, channel string, p *Policy, e api.Event) {
	e.Kind, e.Channel = "channel.policy", channel
	tx.Notify(audit.Channel(channel))
	audit.Note(tx, e)
	t.table.Put(tx, channel, p)
}

func fileName(channel string) string { return "channels/" + channel + "/policy" }

// Restore takes policies from their files, where the state has none.
func (t *Policies) Restore(ctx context.Context) error {
	names, err := t.files.Folders("channels")
	for _, channel := range names {
		if err == nil && t.table.Get(channel) == nil {
			err = t.restore(ctx, channel)
		}
	}
	return err
}

func (t *Policies) restore(ctx context.Context, channel string) error {
	text, err := t.files.Read(fileName(channel), MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	p := new(Policy)
	if err == nil {
		err = json.Unmarshal(text, p)
	}
	if err == nil {
		err = p.Check()
	}
	if err != nil {
		return fmt.Errorf("restore the policy of channel %s: %w", channel, err)
	}
	return t.set.Update(ctx, []string{Lock(channel)}, func(tx *mirror.Tx) error {
		if t.table.In(tx, channel) == nil {
			t.put(tx, channel, p, api.Event{Text: "the policy of " + channel + " was restored from its file: " + p.String()})
		}
		return nil
	})
}
