package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"narwharf/hooks/api"
)

// Restore makes the tables of channels anew from their files, for a database
// that was lost. What is in the tables already stays; channels that they know
// less of than the files are brought up to them. It returns how many channels
// and releases it added.
//
// Not in files, and so not restored: who promoted, and when (the time at which
// the release was made stands in for it), hosts (they report again by themselves),
// holds, labels, reboot slots, and the audit log.
func (s *Server) Restore(report func(format string, args ...any)) (channels, releases int, err error) {
	names, err := s.files.Folders("channels")
	if err != nil {
		return 0, 0, err
	}
	for _, name := range names {
		n, err := s.restoreChannel(name, report)
		if err == nil {
			err = s.restorePolicy(name)
		}
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

func (s *Server) restoreChannel(name string, report func(format string, args ...any)) (added int, err error) {
	defer s.promoting.Lock(name)()
	now := s.channel(name)
	next := now.state
	next.Deleted = false
	var tomb *channelState
	seqs := []int64{}
	err = s.files.List("channels/"+name, func(file string) error {
		base := file[strings.LastIndexByte(file, '/')+1:]
		if base == "deleted" {
			text, err := s.files.Read(file, 1<<20)
			if err != nil {
				return err
			}
			tomb = new(channelState)
			return json.Unmarshal(text, tomb)
		}
		if seq, err := strconv.ParseInt(base, 10, 64); err == nil {
			seqs = append(seqs, seq)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("restore channel %s: %w", name, err)
	}
	known, _, err := s.store.releases(name, 1<<30)
	if err != nil {
		return 0, err
	}
	have := make(map[int64]bool)
	for _, seq := range known {
		have[seq] = true
	}
	var fresh []int64
	best := &live{name: name, state: next}
	for _, seq := range seqs {
		f, head, entries, err := loadRelease(s.files, name, seq)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			report("left out: %v", err)
			continue
		}
		if !have[seq] {
			fresh = append(fresh, seq)
		}
		if seq > next.Seq || now.release == nil && seq == next.Seq {
			next.Seq, next.Current = seq, seq
			next.Kind, next.Keys, next.Threshold, next.Origin = f.Kind, f.Keys, f.Threshold, head.Origin
			if head.Order != nil {
				next.Order = head.Order
			}
			best = &live{name: name, release: f.Release, head: head, entries: entries, meta: releaseMeta{}.of(head)}
		}
	}
	if tomb != nil && tomb.Seq >= next.Seq {
		next = *tomb
		best = &live{name: name}
	}
	if len(fresh) == 0 && next.Seq == now.state.Seq {
		return 0, nil
	}
	best.state = next
	_, err = s.store.update(s.clock(), func(ch *change) error {
		ch.note(api.Event{Kind: "channel.restored", Channel: name, Seq: next.Seq, Alarm: true, Text: fmt.Sprintf("restored %s from its files: %d releases, seq %d", name, len(fresh), next.Seq)})
		for _, seq := range fresh {
			if err := ch.putRelease(name, seq, releaseMeta{}); err != nil {
				return err
			}
		}
		return ch.putChannel(name, &next)
	})
	if err != nil {
		return 0, err
	}
	if best.release == nil && next.Current > 0 {
		best = now // only older releases were added
	}
	s.setChannel(best)
	s.noted(name, channelTopic(name))
	return len(fresh), nil
}
