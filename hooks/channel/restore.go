package channel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/audit"
)

// Restore makes the tables of channels anew from their files, for a database
// that was lost. What is in the tables already stays; channels that they know
// less of than the files are brought up to them. It returns how many channels
// and releases it added.
//
// Not in files, and so not restored: who promoted, and when (the time at which
// the release was made stands in for it).
func (c *Channels) Restore(ctx context.Context, report func(format string, args ...any)) (channels, releases int, err error) {
	names, err := c.files.Folders("channels")
	if err != nil {
		return 0, 0, err
	}
	for _, name := range names {
		n, err := c.restore(ctx, name, report)
		if err != nil {
			return channels, releases, err
		}
		if n > 0 {
			channels++
			releases += n
		}
	}
	return channels, releases, nil
}

// restore brings one channel up to its files, and returns how many releases the
// state did not know.
func (c *Channels) restore(ctx context.Context, name string, report func(format string, args ...any)) (added int, err error) {
	defer c.promoting.Lock(name)()
	now := c.Get(name)
	seqs, tomb, err := c.filesOf(name)
	if err != nil {
		return 0, fmt.Errorf("restore channel %s: %w", name, err)
	}
	known, _, err := c.releases(name, 0, 0)
	if err != nil {
		return 0, err
	}
	have := make(map[int64]bool)
	for _, seq := range known {
		have[seq] = true
	}
	var fresh []int64
	next := now.State
	next.Deleted = false
	for _, seq := range seqs {
		f, err := readRelease(c.files, name, seq)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			report("left out: %v", err)
			continue
		}
		if !have[seq] {
			fresh = append(fresh, seq)
		}
		if seq > next.Seq || now.Release == nil && seq == next.Seq {
			next.take(f)
		}
	}
	if tomb != nil && tomb.Seq >= next.Seq {
		next = *tomb
	}
	if len(fresh) == 0 && next.Seq == now.State.Seq {
		return 0, nil
	}
	return len(fresh), c.change(ctx, now, nil, func(tx *mirror.Tx) {
		audit.Note(tx, api.Event{Kind: "channel.restored", Channel: name, Seq: next.Seq, Alarm: true, Text: fmt.Sprintf("restored %s from its files: %d releases, seq %d", name, len(fresh), next.Seq)})
		for _, seq := range fresh {
			tx.Keep(state.PutJSON(tx, metaBucket, metaKey(name, seq), Meta{}))
			tx.Keep(tx.Delete(summaryBucket, metaKey(name, seq)))
		}
		c.states.Put(tx, name, &next)
	})
}

// take makes a release the current one.
func (s *State) take(f *releaseFile) {
	s.Seq, s.Current = f.head.Seq, f.head.Seq
	s.Kind, s.Keys, s.Threshold, s.Origin, s.KeysVersion = f.Kind, f.Keys, f.Threshold, f.head.Origin, f.KeysVersion
	if f.head.Order != nil {
		s.Order = f.head.Order
	}
}

// filesOf are the seqs of the releases of which there are files, and what is said
// of a channel that was deleted.
func (c *Channels) filesOf(name string) (seqs []int64, tomb *State, err error) {
	err = c.files.List("channels/"+name, func(file string) error {
		base := file[strings.LastIndexByte(file, '/')+1:]
		if base == "deleted" {
			text, err := c.files.Read(file, 1<<20)
			if err != nil {
				return err
			}
			tomb = new(State)
			return json.Unmarshal(text, tomb)
		}
		if seq, err := strconv.ParseInt(base, 10, 64); err == nil {
			seqs = append(seqs, seq)
		}
		return nil
	})
	return seqs, tomb, err
}
