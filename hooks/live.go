package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"narwharf/hooks/api"
	"narwharf/signing"
)

// maxReleaseFile bounds a release's file: what a promote may send, and room
// for the channel's keys and further signatures.
const maxReleaseFile = maxPromotion + 1<<20

// releaseFile is the content of channels/<name>/<seq>: all that is needed to
// restore a channel without the database. It is written once; only signatures
// are ever added.
type releaseFile struct {
	*signing.Release
	Kind      api.ChannelKind `json:"kind"`
	Keys      []string        `json:"keys"`
	Threshold int             `json:"threshold"`
}

func releaseName(channel string, seq int64) string {
	return fmt.Sprintf("channels/%s/%d", channel, seq)
}

func closureName(d signing.Digest) string { return "closures/" + d.Hex() }

// live is a channel in memory. Its fields are set once; a change makes a new one.
type live struct {
	name    string
	state   channelState
	release *signing.Release // nil if there is none now
	head    *signing.Head
	entries []signing.Entry
	meta    releaseMeta

	mu       sync.Mutex
	pointers map[string]*signing.Pointer // by target; made when asked for
}

// pointer returns what a host with this target is sent, nil if nothing.
func (l *live) pointer(target string) (*signing.Pointer, error) {
	if l.release == nil {
		return nil, nil
	}
	i, ok := signing.Find(l.entries, target)
	if !ok {
		return nil, nil
	}
	key := l.entries[i].Target
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.pointers[key]; p != nil {
		return p, nil
	}
	p, err := l.release.Pointer(i)
	if err != nil {
		return nil, err
	}
	if l.pointers == nil {
		l.pointers = make(map[string]*signing.Pointer)
	}
	l.pointers[key] = p
	return p, nil
}

// entry returns the entry for a target, nil if there is none.
func (l *live) entry(target string) *signing.Entry {
	i, ok := signing.Find(l.entries, target)
	if !ok || l.release == nil {
		return nil
	}
	return &l.entries[i]
}

// trust is the rules by which the channel's releases are verified.
func (l *live) trust() (keys []signing.PublicKey, threshold int, err error) {
	for _, k := range l.state.Keys {
		key, err := signing.ParsePublicKey(k)
		if err != nil {
			return nil, 0, fmt.Errorf("channel %s: %w", l.name, err)
		}
		keys = append(keys, key)
	}
	return keys, l.state.Threshold, nil
}

// loadRelease reads and checks a release file.
func loadRelease(files Files, channel string, seq int64) (*releaseFile, *signing.Head, []signing.Entry, error) {
	text, err := files.Read(releaseName(channel, seq), maxReleaseFile)
	if err != nil {
		return nil, nil, nil, err
	}
	f := new(releaseFile)
	if err := json.Unmarshal(text, f); err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", releaseName(channel, seq), err)
	}
	if f.Release == nil {
		return nil, nil, nil, fmt.Errorf("%s: there is no release in it", releaseName(channel, seq))
	}
	head, entries, err := f.Check()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", releaseName(channel, seq), err)
	}
	if head.Channel != channel || head.Seq != seq {
		return nil, nil, nil, fmt.Errorf("%s: is %s %d", releaseName(channel, seq), head.Channel, head.Seq)
	}
	return f, head, entries, nil
}

// load reads all channels into memory.
func (s *Server) load() error {
	states, err := s.store.channels()
	if err != nil {
		return err
	}
	for name, st := range states {
		l := &live{name: name, state: *st}
		if st.Current > 0 && !st.Deleted {
			f, head, entries, err := loadRelease(s.files, name, st.Current)
			if errors.Is(err, fs.ErrNotExist) {
				s.log.Error("a channel's release file is gone; hosts keep what they run", "channel", name, "seq", st.Current)
			} else if err != nil {
				return err
			} else {
				l.release, l.head, l.entries = f.Release, head, entries
				meta, err := s.store.releaseMeta(name, st.Current)
				if err != nil {
					return err
				}
				l.meta = meta.of(head)
			}
		}
		s.channels[name] = l
	}
	return nil
}

// channel returns a channel; one that never was has seq 0.
func (s *Server) channel(name string) *live {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if l := s.channels[name]; l != nil {
		return l
	}
	return &live{name: name}
}

func (s *Server) setChannel(l *live) {
	s.mu.Lock()
	s.channels[l.name] = l
	s.mu.Unlock()
}
