package hooks

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"narwharf/hooks/api"
	"narwharf/signing"
)

// Layout of the database, below the bucket "hooks":
//
//	meta     version                    -> "1"
//	channel  <name>                     -> channelState
//	release  <name> NUL <seq>           -> releaseMeta
//	event    <id>                       -> api.Event
//	host     <name>                     -> hostRecord
//	owner    <host>                     -> owner, in identity.go
//	instance <instance>                 -> sightings, there, too
//	policy   <channel>                  -> api.ChannelPolicy
//	slot     <host>                     -> slot
//	log      <host> NUL <attempt>       -> text
//
// seq and id are 8 bytes, big endian, so that keys sort as they count.
var (
	rootBucket    = []byte("hooks")
	metaBucket    = []byte("meta")
	channelBucket = []byte("channel")
	releaseBucket = []byte("release")
	eventBucket   = []byte("event")
	hostBucket    = []byte("host")
	policyBucket  = []byte("policy")
	slotBucket    = []byte("slot")
	logBucket     = []byte("log")
	versionKey    = []byte("version")
	storeVersion  = []byte("1")
)

// channelState is what is known of a channel but its releases.
type channelState struct {
	Seq       int64           `json:"seq"`     // of the last release, or above what a host showed
	Current   int64           `json:"current"` // seq of the release that is served; 0 if none
	Deleted   bool            `json:"deleted,omitempty"`
	Origin    string          `json:"origin"`
	Kind      api.ChannelKind `json:"kind"`
	Keys      []string        `json:"keys"`
	Threshold int             `json:"threshold"`
	Order     *int64          `json:"order,omitempty"` // of the last release that had one
}

// releaseMeta is what a release file does not say.
type releaseMeta struct {
	Promoted time.Time `json:"promoted"`
	By       string    `json:"by"`
}

// of is m, or what a release itself says where m was lost with a database: its
// promoter's word of when he made it.
func (m releaseMeta) of(head *signing.Head) releaseMeta {
	if m.Promoted.IsZero() {
		m.Promoted = head.Created
	}
	return m
}

// hostRecord is what was said by and about a host.
type hostRecord struct {
	Status   *api.Status       `json:"status,omitempty"`
	Reported time.Time         `json:"reported,omitzero"`
	By       string            `json:"by,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Hold     *api.Hold         `json:"hold,omitempty"`
	// Directive is what an operator asked for last; it is of one seq.
	Directive *api.Directive `json:"directive,omitempty"`
	Unused    *unused        `json:"unused,omitempty"` // permissions to reboot
}

// held tells whether a hold is on, which may end by itself.
func (h *hostRecord) held(now time.Time) bool {
	return h.Hold != nil && (h.Hold.Until == nil || h.Hold.Until.After(now))
}

// store is the tables. Reads of hosts come from memory.
type store struct {
	db *bbolt.DB

	mu    sync.RWMutex
	hosts map[string]*hostRecord
}

func newStore(db *bbolt.DB) (*store, error) {
	s := &store{db: db, hosts: make(map[string]*hostRecord)}
	err := db.Update(func(tx *bbolt.Tx) error {
		root, err := tx.CreateBucketIfNotExists(rootBucket)
		if err != nil {
			return err
		}
		for _, name := range [][]byte{metaBucket, channelBucket, releaseBucket, eventBucket, hostBucket, policyBucket, slotBucket, logBucket} {
			if _, err := root.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		meta := root.Bucket(metaBucket)
		switch v := meta.Get(versionKey); {
		case v == nil:
			if err := meta.Put(versionKey, storeVersion); err != nil {
				return err
			}
		case !bytes.Equal(v, storeVersion):
			return fmt.Errorf("the channels in %s have version %s and this narwharf knows version %s: use the newer narwharf", db.Path(), v, storeVersion)
		}
		return root.Bucket(hostBucket).ForEach(func(k, v []byte) error {
			h := new(hostRecord)
			if err := json.Unmarshal(v, h); err != nil {
				return fmt.Errorf("record of host %s: %w", k, err)
			}
			s.hosts[string(k)] = h
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("open channels: %w", err)
	}
	return s, nil
}

// change is one transaction with its lines of the audit log.
type change struct {
	tx     *bbolt.Bucket
	s      *store
	events []api.Event
	hosts  map[string]*hostRecord // nil: removed
	done   []func()               // called after the commit
}

// update runs fn and commits it together with the events it noted.
func (s *store) update(now time.Time, fn func(c *change) error) ([]api.Event, error) {
	var c *change
	err := s.db.Batch(func(tx *bbolt.Tx) error { // may be called again by Batch
		c = &change{tx: tx.Bucket(rootBucket), s: s, hosts: make(map[string]*hostRecord)}
		if err := fn(c); err != nil {
			return err
		}
		events := c.tx.Bucket(eventBucket)
		// Ids come from the table, since another change may share the commit.
		id := int64(1)
		if k, _ := events.Cursor().Last(); k != nil {
			id = int64(binary.BigEndian.Uint64(k)) + 1
		}
		for i := range c.events {
			c.events[i].ID, c.events[i].Time = id, now.UTC()
			if err := putJSON(events, seqKey(id), c.events[i]); err != nil {
				return err
			}
			id++
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, h := range c.hosts {
		if h == nil {
			delete(s.hosts, name)
		} else {
			s.hosts[name] = h
		}
	}
	for _, do := range c.done {
		do()
	}
	return c.events, nil
}

func (c *change) note(e api.Event) { c.events = append(c.events, e) }

func (c *change) putChannel(name string, st *channelState) error {
	return putJSON(c.tx.Bucket(channelBucket), []byte(name), st)
}

func (c *change) putRelease(name string, seq int64, m releaseMeta) error {
	return putJSON(c.tx.Bucket(releaseBucket), releaseKey(name, seq), m)
}

func (c *change) putHost(name string, h *hostRecord) error {
	c.hosts[name] = h
	return putJSON(c.tx.Bucket(hostBucket), []byte(name), h)
}

func (c *change) removeHost(name string) error {
	c.hosts[name] = nil
	return c.tx.Bucket(hostBucket).Delete([]byte(name))
}

func putJSON(b *bbolt.Bucket, key []byte, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return b.Put(key, text)
}

func seqKey(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func releaseKey(channel string, seq int64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte(channel), 0), uint64(seq))
}

// channels reads the state of all channels.
func (s *store) channels() (map[string]*channelState, error) {
	all := make(map[string]*channelState)
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(rootBucket).Bucket(channelBucket).ForEach(func(k, v []byte) error {
			st := new(channelState)
			if err := json.Unmarshal(v, st); err != nil {
				return fmt.Errorf("channel %s: %w", k, err)
			}
			all[string(k)] = st
			return nil
		})
	})
	return all, err
}

// releases returns the seqs of a channel with their meta, newest first.
func (s *store) releases(channel string, limit int) (seqs []int64, metas []releaseMeta, err error) {
	prefix := append([]byte(channel), 0)
	err = s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(rootBucket).Bucket(releaseBucket).Cursor()
		var k, v []byte
		if after, _ := c.Seek(releaseKey(channel, 1<<62)); after == nil {
			k, v = c.Last()
		} else {
			k, v = c.Prev()
		}
		for ; k != nil && bytes.HasPrefix(k, prefix) && len(seqs) < limit; k, v = c.Prev() {
			var m releaseMeta
			if err := json.Unmarshal(v, &m); err != nil {
				return fmt.Errorf("release %q: %w", k, err)
			}
			seqs = append(seqs, int64(binary.BigEndian.Uint64(k[len(prefix):])))
			metas = append(metas, m)
		}
		return nil
	})
	return seqs, metas, err
}

// releaseMeta reads what is noted of one release.
func (s *store) releaseMeta(channel string, seq int64) (m releaseMeta, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(rootBucket).Bucket(releaseBucket).Get(releaseKey(channel, seq))
		if v == nil {
			return nil
		}
		return json.Unmarshal(v, &m)
	})
	return m, err
}

// events returns up to limit events from id since on that keep says yes to,
// and the id to go on from.
func (s *store) eventsSince(since int64, limit int, keep func(*api.Event) bool) (list []api.Event, next int64, err error) {
	next = since
	err = s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(rootBucket).Bucket(eventBucket).Cursor()
		for k, v := c.Seek(seqKey(since)); k != nil && len(list) < limit; k, v = c.Next() {
			var e api.Event
			if err := json.Unmarshal(v, &e); err != nil {
				return fmt.Errorf("event %x: %w", k, err)
			}
			next = e.ID + 1
			if keep(&e) {
				list = append(list, e)
			}
		}
		return nil
	})
	return list, next, err
}

// host returns a copy of what is known of a host, nil if nothing is.
func (s *store) host(name string) *hostRecord {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h := s.hosts[name]
	if h == nil {
		return nil
	}
	c := *h
	return &c
}

// allHosts returns all records; they are not to be changed.
func (s *store) allHosts() map[string]*hostRecord {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make(map[string]*hostRecord, len(s.hosts))
	for k, v := range s.hosts {
		all[k] = v
	}
	return all
}
