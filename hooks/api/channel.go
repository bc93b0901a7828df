package api

import (
	"time"

	"narwharf/hooks/api/plan"
	"narwharf/narinfo"
	"narwharf/signing"
)

// ChannelKind says what a channel's store paths are.
type ChannelKind string

// The kinds. A NixOS channel refuses what is not a NixOS system.
const (
	KindNixOS ChannelKind = "nixos"
	KindPath  ChannelKind = "path"
)

// Promotion is the body of PUT /api/v1/channels/{c}: a release, and for the
// first one (or by an admin) the rules of the channel.
type Promotion struct {
	signing.Release
	// Kind, Keys and Threshold are recorded with the first promote; later
	// they may be left out, and changing them needs the scope admin.
	Kind      ChannelKind `json:"kind,omitempty"`
	Keys      []string    `json:"keys,omitempty"` // public keys, Nix's format
	Threshold int         `json:"threshold,omitempty"`
}

// Promoted is the answer to a promote, and to ?dry_run=1 what it would be.
type Promoted struct {
	Channel   string       `json:"channel"`
	Seq       int64        `json:"seq"`
	DryRun    bool         `json:"dry_run,omitempty"`
	Already   bool         `json:"already,omitempty"` // it was promoted before
	Changed   []TargetPlan `json:"changed"`           // targets whose entry is new
	Unchanged int          `json:"unchanged"`
	Removed   []string     `json:"removed"` // targets that have no entry any more
	// Plan is of a dry run: what it would do to hosts, for who may look at them.
	Plan *plan.Plan `json:"plan,omitempty"`
}

// TargetPlan says what a promote changes for one target.
type TargetPlan struct {
	Target string `json:"target"`
	From   string `json:"from,omitempty"` // store path, "" for a new target
	To     string `json:"to"`
	Action string `json:"action"`
	Paths  int    `json:"paths"` // in the closure
	// Fetch is what a host with From has to download, in bytes unpacked.
	FetchPaths int   `json:"fetch_paths"`
	Fetch      int64 `json:"fetch_bytes"`
}

// Channel is the answer to GET /api/v1/channels/{c}.
type Channel struct {
	Channel   string      `json:"channel"`
	Seq       int64       `json:"seq"` // 0: never promoted
	Deleted   bool        `json:"deleted,omitempty"`
	Origin    string      `json:"origin,omitempty"` // what hosts know it as; of older servers ""
	Kind      ChannelKind `json:"kind,omitempty"`
	Keys      []string    `json:"keys,omitempty"`
	Threshold int         `json:"threshold,omitempty"`
	// KeysVersion is of the statement (narwharf channel keys) that Keys are of; 0: of none.
	KeysVersion int64            `json:"keys_version,omitempty"`
	Release     *signing.Release `json:"release,omitempty"`
	Promoted    time.Time        `json:"promoted,omitzero"`
	By          string           `json:"by,omitempty"`
}

// Keys is the answer to GET /api/v1/channels/{c}/keys: which keys may sign its releases, and
// what led there. Nothing of it is believed: signing/keyring walks it.
type Keys struct {
	Channel        string              `json:"channel"`
	Origin         string              `json:"origin"`
	Version        int64               `json:"version"` // of the last statement; 0: there is none
	Keys           []string            `json:"keys"`
	Threshold      int                 `json:"threshold"`
	First          []string            `json:"first,omitempty"` // the keys before the first statement
	FirstThreshold int                 `json:"first_threshold,omitempty"`
	Revoked        []string            `json:"revoked,omitempty"`
	Recovery       []string            `json:"recovery,omitempty"`
	Statements     []*signing.Envelope `json:"statements,omitempty"`
	Revocations    []*signing.Envelope `json:"revocations,omitempty"`
}

// KeysChange is the body of PUT /api/v1/channels/{c}/keys: exactly one of its fields.
type KeysChange struct {
	Statement  *signing.Envelope `json:"statement,omitempty"`
	Revocation *signing.Envelope `json:"revocation,omitempty"`
	// Recovery are the keys that may sign revocations; it takes the scope admin.
	Recovery []string `json:"recovery,omitempty"`
}

// HistoryItem is one line of GET /api/v1/channels/{c}/history, newest first.
type HistoryItem struct {
	Seq      int64             `json:"seq"`
	Promoted time.Time         `json:"promoted"`
	By       string            `json:"by"`
	Created  time.Time         `json:"created"`
	Rollback bool              `json:"rollback"`
	Order    *int64            `json:"order,omitempty"`
	Meta     map[string]string `json:"meta,omitempty"`
	Targets  []HistoryTarget   `json:"targets"`
	// Collected: the cache has not all of its paths any more, so nobody can go back to it.
	Collected bool `json:"collected,omitempty"`
}

// HistoryTarget is what a release names for one target.
type HistoryTarget struct {
	Target    string `json:"target"`
	StorePath string `json:"store_path"`
	Action    string `json:"action"`
}

// Difference is one path of which promoter and cache hold other bytes.
type Difference struct {
	Target     string    `json:"target"`
	StorePath  string    `json:"store_path"`
	Yours      string    `json:"yours"` // lines of closure manifests
	Ours       string    `json:"ours"`
	OurSigs    []string  `json:"our_sigs"` // signatures over ours
	Uploaded   time.Time `json:"uploaded"`
	UploadedBy string    `json:"uploaded_by,omitempty"`
}

// Missing is what a closure lacks in the cache.
type Missing struct {
	Target string         `json:"target"`
	Count  int            `json:"count"`
	Paths  []narinfo.Path `json:"paths"` // the first hundred
}
