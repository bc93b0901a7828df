package channel

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/signing"
)

// History is the releases of a channel, newest first.
func (c *Channels) History(name string, limit int) ([]api.HistoryItem, error) {
	if now := c.Get(name); now.State.Seq == 0 {
		return nil, now.Absent()
	}
	seqs, metas, err := c.releases(name, limit)
	if err != nil {
		return nil, err
	}
	items := make([]api.HistoryItem, 0, len(seqs))
	for i, seq := range seqs {
		item := api.HistoryItem{Seq: seq, Promoted: metas[i].Promoted, By: metas[i].By, Targets: []api.HistoryTarget{}}
		f, err := readRelease(c.files, name, seq)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil {
			item.Promoted = metas[i].of(f.head).Promoted
			item.Created, item.Rollback, item.Order, item.Meta = f.head.Created, f.head.Rollback, f.head.Order, f.head.Meta
			for _, e := range f.entries {
				item.Targets = append(item.Targets, api.HistoryTarget{Target: e.Target, StorePath: e.StorePath, Action: string(e.Action)})
			}
		}
		items = append(items, item)
	}
	return items, nil
}

// releases returns the seqs of a channel with their metas, newest first.
func (c *Channels) releases(name string, limit int) (seqs []int64, metas []Meta, err error) {
	prefix := name + "\x00"
	r := state.Prefix(prefix)
	r.Reverse, r.Limit = true, limit
	err = c.set.Scan(metaBucket, r, func(page []state.Entry) error {
		for _, e := range page {
			var m Meta
			if err := json.Unmarshal(e.Value, &m); err != nil {
				return fmt.Errorf("release %q: %w", e.Key, err)
			}
			seqs = append(seqs, int64(binary.BigEndian.Uint64([]byte(e.Key[len(prefix):]))))
			metas = append(metas, m)
		}
		return nil
	})
	return seqs, metas, err
}

// Past is an earlier release, whole: what a rollback builds on.
func (c *Channels) Past(name string, seq int64) (*signing.Release, error) {
	f, err := readRelease(c.files, name, seq)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, api.Errorf(api.NotFound, "channel %s has no release %d: narwharf channel history %s lists what there is", name, seq, name)
	}
	if err != nil {
		return nil, err
	}
	return f.Release, nil
}

// Delete takes a channel's release away and returns its seq, which continues
// if the channel is made again. match is the ETag that the caller saw.
func (c *Channels) Delete(ctx context.Context, name, match, by string) (seq int64, err error) {
	defer c.promoting.Lock(name)()
	now := c.Get(name)
	if now.Release == nil {
		return 0, now.Absent()
	}
	if err := precondition(match, now); err != nil {
		return 0, err
	}
	next := now.State
	next.Deleted, next.Current = true, 0
	tomb, err := json.Marshal(next)
	if err != nil {
		return 0, err
	}
	err = c.change(ctx, now, func(tx *mirror.Tx) {
		// Without this file Restore would bring the channel back.
		tx.Keep(c.files.Write(deletedName(name), tomb))
		audit.Note(tx, api.Event{Kind: "channel.deleted", By: by, Channel: name, Seq: next.Seq, Text: fmt.Sprintf("deleted %s after seq %d; its hosts keep what they run", name, next.Seq)})
		c.states.Put(tx, name, &next)
	})
	if errors.Is(err, errMoved) {
		return 0, raceLost(c.Get(name), match)
	}
	return next.Seq, err
}

// Manifest is the text of a closure manifest.
func (c *Channels) Manifest(d signing.Digest) ([]byte, error) {
	text, err := c.files.Read(closureName(d), signing.MaxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, api.Errorf(api.NotFound, "there is no closure manifest %s here", d)
	}
	return text, err
}

// PutManifest takes a manifest that a promoter wants to be compared.
func (c *Channels) PutManifest(d signing.Digest, text []byte) error {
	m, err := signing.ReadManifest(text)
	if err != nil {
		return api.Errorf(api.Invalid, "%v", err)
	}
	if m.Digest() != d {
		return api.Errorf(api.Invalid, "the manifest has the digest %s and was sent as %s", m.Digest(), d)
	}
	if _, err := c.files.Read(closureName(d), signing.MaxManifest); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return c.files.Write(closureName(d), text)
}
