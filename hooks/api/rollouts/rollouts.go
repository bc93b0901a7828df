// Package rollouts is what people say to roll-outs over the wire, and the calls for it. What a
// roll-out is like is a rollout.Summary.
package rollouts

import (
	"narwharf/hooks/rollout"
)

// Verb is the body of POST /api/v1/rollouts/{channel}/{verb}.
type Verb struct {
	Seq    int64  `json:"seq"`              // of the roll-out that is meant: another is a conflict
	Reason string `json:"reason,omitempty"` // abort, advance and skip need one
	Host   string `json:"host,omitempty"`   // of retry: this one alone
}

// Budget bounds how many of some hosts may be unavailable at a time, on all channels.
type Budget struct {
	Name string `json:"name"`
	rollout.Budget
	Hosts       int `json:"hosts"`       // that it counts
	Unavailable int `json:"unavailable"` // of them, now
}

// Hold keeps some hosts where they are.
type Hold struct {
	Name string `json:"name"`
	rollout.Hold
}

// Freeze is whether hosts of any channel may begin with anything.
type Freeze struct {
	Frozen bool          `json:"frozen"`
	Freeze *rollout.Hold `json:"freeze,omitempty"`
}
