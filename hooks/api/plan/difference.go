package plan

import "time"

// What a Difference holds at most, beside MaxPackages of a Change.
const (
	MaxChanges = 50
	MaxTargets = 50 // that a Change names
)

// Difference is in what a release of a channel differs from another: GET
// /api/v1/channels/{c}/releases/{seq}/difference. Of closures it goes by what was promoted, so it is known
// also of what the cache has not any more.
type Difference struct {
	Channel  string            `json:"channel"`
	Seq      int64             `json:"seq"`
	From     int64             `json:"from_seq"`            // 0: there is none before
	LastGood bool              `json:"last_good,omitempty"` // From is the last that completed well
	Created  time.Time         `json:"created"`
	Rollback bool              `json:"rollback,omitempty"`
	Meta     map[string]string `json:"meta,omitempty"`

	Unchanged int      `json:"unchanged"` // targets
	Changes   []Change `json:"changes"`   // those of the most targets first
	More      int      `json:"more_changes,omitempty"`
}

// Change is from one system to another, for some targets.
type Change struct {
	Targets []string `json:"targets"` // the first of them
	Count   int      `json:"count"`
	Before  string   `json:"before,omitempty"` // store path; "": the targets are new
	After   string   `json:"after,omitempty"`  // "": they are not in the release any more
	Action  string   `json:"action,omitempty"`
	// Of the closures, unpacked; paths and bytes of After that Before has not are what a host fetches.
	Was        int64 `json:"was_bytes"`
	Is         int64 `json:"is_bytes"`
	FetchPaths int   `json:"fetch_paths"`
	Fetch      int64 `json:"fetch_bytes"`
	// Unknown: what a closure has is not here any more, so no packages are told.
	Unknown  bool      `json:"unknown,omitempty"`
	Packages []Package `json:"packages"`
	More     int       `json:"more_packages,omitempty"`
}
