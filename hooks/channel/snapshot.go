package channel

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"narwharf/cache/state"
	"narwharf/hooks/api"
	"narwharf/signing"
)

// Snapshot is a channel at one moment. It is not to be changed.
type Snapshot struct {
	Name     string
	State    State
	Meta     Meta
	*Release // nil if there is none now

	from *State // as memory has it

	once sync.Once
	text []byte
	etag string
	err  error
}

// Text is Describe as JSON and a newline: many ask for a release, which is large. The ETag
// is the seq and a hash of it: signatures are merged without a new seq.
func (s *Snapshot) Text() (text []byte, etag string, err error) {
	s.once.Do(func() {
		s.text, s.err = json.Marshal(s.Describe())
		s.text = append(s.text, '\n')
		sum := sha256.Sum256(s.text)
		s.etag = fmt.Sprintf(`"%d-%x"`, s.State.Seq, sum[:8])
	})
	return s.text, s.etag, s.err
}

// Release is one release, checked.
type Release struct {
	*signing.Release
	Head    *signing.Head
	Entries []signing.Entry
	digest  string // of the head with its signatures

	mu       sync.Mutex
	pointers map[string]*signing.Pointer // by target; made when asked for
}

// Pointer returns what a host with this target is sent, nil if nothing.
func (s *Snapshot) Pointer(target string) (*signing.Pointer, error) {
	r := s.Release
	if r == nil {
		return nil, nil
	}
	i, ok := signing.Find(r.Entries, target)
	if !ok {
		return nil, nil
	}
	key := r.Entries[i].Target
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.pointers[key]; p != nil {
		return p, nil
	}
	p, err := r.Release.Pointer(i)
	if err != nil {
		return nil, err
	}
	if r.pointers == nil {
		r.pointers = make(map[string]*signing.Pointer)
	}
	r.pointers[key] = p
	return p, nil
}

// Entry returns the entry for a target, nil if there is none.
func (s *Snapshot) Entry(target string) *signing.Entry {
	if s.Release == nil {
		return nil
	}
	i, ok := signing.Find(s.Entries, target)
	if !ok {
		return nil
	}
	return &s.Entries[i]
}

// Describe is the channel for its readers.
func (s *Snapshot) Describe() *api.Channel {
	d := &api.Channel{
		Channel: s.Name, Seq: s.State.Seq, Deleted: s.State.Deleted, Origin: s.State.Origin, Kind: s.State.Kind,
		Keys: s.State.Keys, Threshold: s.State.Threshold, KeysVersion: s.State.KeysVersion, Promoted: s.Meta.Promoted, By: s.Meta.By,
	}
	if s.Release != nil {
		d.Release = s.Release.Release
	}
	return d
}

// AbsentText says why a channel has no release.
func (s *Snapshot) AbsentText() string {
	if s.State.Deleted {
		return fmt.Sprintf("the channel %s was deleted after seq %d", s.Name, s.State.Seq)
	}
	return fmt.Sprintf("there is no channel %s; the first promote makes it", s.Name)
}

// Absent is the answer about a channel without a release.
func (s *Snapshot) Absent() *api.Error { return api.Errorf(api.NotFound, "%s", s.AbsentText()) }

// Get returns a channel; one that never was has seq 0. If its release cannot be
// read it is as it was before.
func (c *Channels) Get(name string) *Snapshot {
	s, err := c.load(name)
	if err != nil {
		c.log.Error("a channel's release could not be read", "channel", name, "error", err)
	}
	return s
}

// Again is Get that reads the state: another server may have promoted. fresh is false while it cannot be read.
func (c *Channels) Again(name string) (s *Snapshot, fresh bool) {
	c.states.Forget(name)
	return c.Get(name), !c.states.Behind(name)
}

func (c *Channels) load(name string) (*Snapshot, error) {
	st := c.states.Get(name)
	if st == nil {
		return &Snapshot{Name: name}, nil
	}
	if s, _ := c.loaded(name); s != nil && s.from == st {
		return s, nil
	}
	defer c.loading.Lock(name)() // a release is read once, not by each poll that wakes
	st = c.states.Get(name)
	s, written := c.loaded(name)
	switch {
	case st == nil:
		return &Snapshot{Name: name}, nil
	case s != nil && s.from == st:
		return s, nil
	}
	next := &Snapshot{Name: name, State: *st, from: st}
	if st.Current > 0 && !st.Deleted {
		err := c.set.View(func(tx state.Reader) (err error) {
			next.Meta, err = readMeta(tx, name, st.Current)
			return err
		})
		if err == nil {
			err = c.fill(next, s, written)
		}
		if err != nil {
			return cmp.Or(s, &Snapshot{Name: name, State: *st}), err
		}
	}
	c.mu.Lock()
	c.snapshots[name] = next
	c.mu.Unlock()
	return next, nil
}

func (c *Channels) loaded(name string) (s *Snapshot, written *Release) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.snapshots[name], c.written[name]
}

// fill adds the release to a snapshot. One that was read or written before is
// taken if it is the same.
func (c *Channels) fill(s, before *Snapshot, written *Release) error {
	seq := s.State.Current
	switch {
	case written != nil && written.Head.Seq == seq && written.digest == s.Meta.Digest:
		s.Release = written
	case before != nil && before.Release != nil && before.Head.Seq == seq && before.Meta.Digest == s.Meta.Digest:
		s.Release = before.Release
	default:
		f, err := readRelease(c.files, s.Name, seq)
		if errors.Is(err, fs.ErrNotExist) {
			c.log.Error("a channel's release file is gone; hosts keep what they run", "channel", s.Name, "seq", seq)
			return nil
		}
		if err != nil {
			return err
		}
		s.Release = newRelease(f.Release, f.head, f.entries)
	}
	s.Meta = s.Meta.of(s.Head)
	return nil
}
