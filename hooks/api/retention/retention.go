// Package retention is what goes over the wire about what a cache keeps: pins, collections,
// why a path is here, and what takes how much. Client makes the calls.
package retention

import (
	"fmt"
	"time"
)

// Pin keeps paths with all that they refer to, whatever else becomes of them.
type Pin struct {
	Name string `json:"name"`
	// A pin is made of a store path, or of a release of a channel, of its current one if
	// Seq is 0.
	Path    string     `json:"path,omitempty"`
	Channel string     `json:"channel,omitempty"`
	Seq     int64      `json:"seq,omitempty"`
	Reason  string     `json:"reason,omitempty"`
	Until   *time.Time `json:"until,omitempty"` // when it ends by itself; nil: it does not

	Paths   []string  `json:"paths"` // what it keeps
	By      string    `json:"by"`
	Created time.Time `json:"created"`
}

// Sum is a number of paths and the bytes of their NAR files.
type Sum struct {
	Paths int64 `json:"paths"`
	Bytes int64 `json:"bytes"`
}

// Plan is what a collection would do now.
type Plan struct {
	At time.Time `json:"at"`
	// Waits is until when nothing may go: the server does not know yet what was of use.
	Waits *time.Time `json:"waits,omitempty"`
	// Of all uploads a root reaches some (Kept), their grace keeps some more (Young), and
	// the others may go (Loose).
	Uploads Sum            `json:"uploads"`
	Kept    Sum            `json:"kept"`
	Young   Sum            `json:"young"`
	Loose   Sum            `json:"loose"`
	Going   map[string]Sum `json:"going"` // by reason: asked, age, size, disk
	// GraceYields: some of what goes is within its grace, since the disk is full.
	GraceYields bool `json:"grace_yields,omitempty"`
	// Over is how many bytes stay above max_size, or lack to min_free, since nothing
	// more may go.
	Over  int64   `json:"over,omitempty"`
	Paths []Going `json:"paths"` // the first of them
	More  int64   `json:"more,omitempty"`

	Size    int64 `json:"size"`
	MaxSize int64 `json:"max_size,omitempty"`
	Free    int64 `json:"free,omitempty"`
	MinFree int64 `json:"min_free,omitempty"`
}

// Going is a path that goes.
type Going struct {
	Path   string    `json:"path"`
	Bytes  int64     `json:"bytes"`
	Used   time.Time `json:"used"` // when it, or what refers to it, was last of use
	Reason string    `json:"reason"`
}

// Status is what becomes of collections.
type Status struct {
	Running *Running `json:"running"` // nil: none does
	Last    *Result  `json:"last"`    // nil: there was none yet
}

// Running is how far a collection is that somebody has asked for.
type Running struct {
	Began time.Time `json:"began"`
	By    string    `json:"by"`
	Step  string    `json:"step,omitempty"`
	Done  int64     `json:"done,omitempty"`
	Total int64     `json:"total,omitempty"` // 0: unknown
}

// Result is how a collection ended.
type Result struct {
	Began   time.Time  `json:"began"`
	Ended   time.Time  `json:"ended"`
	Success *time.Time `json:"success,omitempty"` // when one last ended without an error
	Error   string     `json:"error,omitempty"`   // why this one ended early
	Waits   *time.Time `json:"waits,omitempty"`   // as in Plan, like the next three
	Uploads Sum        `json:"uploads"`
	Kept    Sum        `json:"kept"`
	Young   Sum        `json:"young"`

	Gone   map[string]Sum `json:"gone"`   // by reason
	Bytes  int64          `json:"bytes"`  // of the files that went
	Stayed int64          `json:"stayed"` // paths that were of use again by then
	Packed int64          `json:"packed,omitempty"`
	// GraceYielded: paths went that their grace would have kept, had the disk had room.
	GraceYielded bool  `json:"grace_yielded,omitempty"`
	Over         int64 `json:"over,omitempty"` // as in Plan
	Size         int64 `json:"size"`           // of all NAR files afterwards
	MaxSize      int64 `json:"max_size,omitempty"`
	Free         int64 `json:"free,omitempty"`
	MinFree      int64 `json:"min_free,omitempty"`
}

// Paths is how many paths went.
func (r *Result) Paths() (n int64) {
	for _, sum := range r.Gone {
		n += sum.Paths
	}
	return n
}

// Where a path is.
const (
	Upload     = "upload"
	LocalStore = "local store"
	Upstream   = "upstream" // a cache behind this one, on which we lean for it
)

// Why is why a path is here, or is not.
type Why struct {
	Path  string `json:"path"`
	Here  string `json:"here"`            // Upload, LocalStore, Upstream, or "" if it is not
	Bytes int64  `json:"bytes,omitempty"` // of its NAR file
	// Uploaded is when, or when it became valid in the local store, and By by whom; of one at
	// an upstream that's URL.
	Uploaded *time.Time `json:"uploaded,omitempty"`
	By       string     `json:"by,omitempty"`
	// Used is when it, or what refers to it, was last of use; that keeps it to GraceUntil.
	Used       *time.Time `json:"used,omitempty"`
	GraceUntil *time.Time `json:"grace_until,omitempty"`
	Roots      []Chain    `json:"roots"`          // that reach it, with a shortest chain each
	More       int        `json:"more,omitempty"` // that are not listed
}

// Chain is how a root reaches a path.
type Chain struct {
	Owner string   `json:"owner"` // release:<channel>:<seq>, host:<name>, pin:<name>
	Paths []string `json:"paths"` // the root first; each refers to the next
}

// Usage is who takes how much.
type Usage struct {
	// Of has channels, and hosts and pins as one each, or the releases of one channel;
	// the largest first.
	Of      []Share `json:"of"`
	Loose   Sum     `json:"loose"` // what no root reaches
	Uploads Sum     `json:"uploads"`
	Leaning Sum     `json:"leaning"` // what roots reach that an upstream has, by the sizes of its NARs
	Size    int64   `json:"size"`    // of all NAR files of uploads
	// Packed are the packed copies of paths of the local store and of upstreams: they make way for uploads.
	Packed Sum `json:"packed,omitzero"`
}

// Share is what the roots of one reach.
type Share struct {
	Name   string `json:"name"`   // channel:<name>, release:<channel>:<seq>, hosts, pins
	Own    Sum    `json:"own"`    // would go with it
	Shared Sum    `json:"shared"` // others reach it, too
	Total  Sum    `json:"total"`
}

// Deleted is what a DELETE of a path did.
type Deleted struct {
	Path  string `json:"path"`
	Freed int64  `json:"freed"`
	// Local: the store of the server's machine has the path, and serves it still.
	Local bool `json:"local,omitempty"`
}

// Bytes is a number of bytes for people.
func Bytes(n int64) string {
	for _, unit := range []string{"bytes", "KiB", "MiB", "GiB"} {
		if n < 10<<10 {
			return fmt.Sprintf("%d %s", n, unit)
		}
		n >>= 10
	}
	return fmt.Sprintf("%d TiB", n)
}
