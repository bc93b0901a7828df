package channel

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"narwharf/cache/state"
	"narwharf/cache/state/mirror"
	"narwharf/cache/state/namelock"
	"narwharf/hooks/api"
	"narwharf/hooks/closure"
	"narwharf/signing"
)

// Files keeps immutable files beside those of the cache; see closure.Files.
type Files interface {
	closure.Files
	// List calls fn with the name of each file directly in dir.
	List(dir string, fn func(name string) error) error
	// Folders returns the names of the folders directly in dir.
	Folders(dir string) ([]string, error)
}

// State is what is known of a channel but its releases.
type State struct {
	Seq       int64           `json:"seq"`     // of the last release
	Current   int64           `json:"current"` // seq of the release that is served; 0 if none
	Deleted   bool            `json:"deleted,omitempty"`
	Origin    string          `json:"origin"`
	Kind      api.ChannelKind `json:"kind"`
	Keys      []string        `json:"keys"`
	Threshold int             `json:"threshold"`
	Order     *int64          `json:"order,omitempty"` // of the last release that had one
	Well      int64           `json:"well,omitempty"`  // seq of the last release that went well; 0: none is known

	KeysVersion int64    `json:"keys_version,omitempty"` // of the statement (signing/keyring) that Keys are of
	Revoked     []string `json:"revoked,omitempty"`      // keys that count no more, also where Keys has them
	Bad         int64    `json:"bad,omitempty"`          // seq of the release that a revocation made bad
}

// Trust is the rules by which a channel's releases are verified, without keys that were
// revoked.
func (s *State) Trust() (keys []signing.PublicKey, threshold int, err error) {
	for _, k := range s.Keys {
		key, err := signing.ParsePromoterKey(k)
		if err != nil {
			return nil, 0, err
		}
		if !s.revoked(key) {
			keys = append(keys, key)
		}
	}
	return keys, s.Threshold, nil
}

func (s *State) revoked(key signing.PublicKey) bool {
	return slices.ContainsFunc(s.Revoked, func(text string) bool {
		k, err := signing.ParsePromoterKey(text)
		return err == nil && k.Same(key)
	})
}

// Channels is all channels.
type Channels struct {
	*closure.Closures
	files Files
	log   *slog.Logger
	set   *mirror.Set

	states *mirror.Table[State]

	// Needed are further releases of a channel whose systems have to stay; nil: none.
	Needed func(tx state.Reader, channel string) ([]int64, error)

	heads *lru.Cache[string, *signing.Envelope] // a step ahead, by metaKey; any will do

	// One promote of a channel at a time does the long work. It decides nothing.
	promoting namelock.Set
	loading   namelock.Set  // of a snapshot
	checking  chan struct{} // holds one while a release is read that is not current

	mu        sync.RWMutex
	snapshots map[string]*Snapshot
	written   map[string]*Release // releases that are about to be committed
}

// New makes channels in the state of a set, and reads them all.
func New(set *mirror.Set, closures *closure.Closures, files Files, log *slog.Logger) (c *Channels, err error) {
	c = &Channels{Closures: closures, files: files, log: log, set: set, checking: make(chan struct{}, 1), snapshots: make(map[string]*Snapshot), written: make(map[string]*Release)}
	if c.heads, err = lru.New[string, *signing.Envelope](256); err != nil {
		return nil, err
	}
	if c.states, err = mirror.Open[State](set, "hooks/channel", "channel", nil); err != nil {
		return nil, fmt.Errorf("open channels: %w", err)
	}
	for name := range c.states.All() {
		if _, err := c.load(name); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func locks(channel string) []string { return []string{Lock(channel)} }

// Lock is the lock of the state that whoever changes a channel holds.
func Lock(channel string) string { return "channel:" + channel }

// List is all channels without their releases, by name.
func (c *Channels) List() []*api.Channel {
	list := []*api.Channel{}
	for name := range c.states.All() {
		d := c.Get(name).Describe()
		d.Release = nil
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b *api.Channel) int { return cmp.Compare(a.Channel, b.Channel) })
	return list
}

// ETag is what a promote may send as If-Match for a channel at a seq. The ETag that a GET
// answers with has a hash of the body behind it, as in "42-0123456789abcdef": it says more
// than a promote has to know, and is taken as well.
func ETag(seq int64) string { return `"` + strconv.FormatInt(seq, 10) + `"` }

// In is what is known of a channel in a transaction, for those who decide on it.
func (c *Channels) In(tx *mirror.Tx, name string) *State {
	return orElse(c.states.In(tx, name), State{})
}
