package channel

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"narwharf/cache/state"
	"narwharf/hooks/api"
	"narwharf/signing"
)

// MaxPromotion bounds the body of a promote.
const MaxPromotion = 128 << 20

// maxReleaseFile bounds a release's file: what a promote may send, and room
// for the channel's keys and further signatures.
const maxReleaseFile = MaxPromotion + 1<<20

// Meta is what a release file does not say.
type Meta struct {
	Promoted time.Time `json:"promoted"`
	By       string    `json:"by"`
	// Digest is of the head with its signatures, of which there may be more
	// later. It tells whether what is in memory is that.
	Digest string `json:"digest,omitempty"`
}

// of is m, or what a release itself says where m was lost with a database: its
// promoter's word of when he made it.
func (m Meta) of(head *signing.Head) Meta {
	if m.Promoted.IsZero() {
		m.Promoted = head.Created
	}
	return m
}

const metaBucket = "hooks/release"

func metaKey(channel string, seq int64) string {
	return channel + "\x00" + state.Uint64Key(uint64(seq))
}

// readMeta reads what is noted of a release; what is not known of one is empty.
func readMeta(tx state.Reader, channel string, seq int64) (Meta, error) {
	m, err := state.GetJSON[Meta](tx, metaBucket, metaKey(channel, seq))
	return *orElse(m, Meta{}), err
}

// orElse is p, or a pointer to v if that is nil.
func orElse[T any](p *T, v T) *T {
	if p == nil {
		return &v
	}
	return p
}

// releaseFile is the content of channels/<name>/<seq>: all that is needed to
// restore a channel without the state. Only signatures are ever added to it.
type releaseFile struct {
	*signing.Release
	Kind      api.ChannelKind `json:"kind"`
	Keys      []string        `json:"keys"`
	Threshold int             `json:"threshold"`
	// KeysVersion is of the statement that Keys were of when it was promoted.
	KeysVersion int64 `json:"keys_version,omitempty"`

	head    *signing.Head
	entries []signing.Entry
}

func releaseName(channel string, seq int64) string {
	return fmt.Sprintf("channels/%s/%d", channel, seq)
}

func deletedName(channel string) string { return "channels/" + channel + "/deleted" }

// readRelease reads and checks a release file.
func readRelease(files Files, channel string, seq int64) (*releaseFile, error) {
	name := releaseName(channel, seq)
	text, err := files.Read(name, maxReleaseFile)
	if err != nil {
		return nil, err
	}
	f := new(releaseFile)
	if err := json.Unmarshal(text, f); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if f.Release == nil {
		return nil, fmt.Errorf("%s: there is no release in it", name)
	}
	if f.head, f.entries, err = f.Check(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if f.head.Channel != channel || f.head.Seq != seq {
		return nil, fmt.Errorf("%s: is %s %d", name, f.head.Channel, f.head.Seq)
	}
	return f, nil
}

func (c *Channels) writeRelease(name string, r *Release, st *State) error {
	text, err := json.Marshal(releaseFile{Release: r.Release, Kind: st.Kind, Keys: st.Keys, Threshold: st.Threshold, KeysVersion: st.KeysVersion})
	if err != nil {
		return err
	}
	return c.files.Write(releaseName(name, r.Head.Seq), text)
}

func newRelease(r *signing.Release, head *signing.Head, entries []signing.Entry) *Release {
	text, err := json.Marshal(r.Head)
	if err != nil {
		panic(err) // bytes and strings always encode
	}
	sum := sha256.Sum256(text)
	return &Release{Release: r, Head: head, Entries: entries, digest: hex.EncodeToString(sum[:])}
}
