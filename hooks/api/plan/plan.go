// Package plan is what a release would do to the hosts of a channel, as the server tells it
// beforehand: GET /api/v1/channels/{c}/plan, and PUT /api/v1/channels/{c}?dry_run=1.
//
// It is bounded: hosts that go from one system to the same other share a step, of which there
// are at most MaxSteps with their packages, and MaxHosts hosts are listed. The numbers are of all.
package plan

// What an answer holds at most.
const (
	MaxSteps    = 200
	MaxHosts    = 500
	MaxPackages = 100 // of a step
)

// Plan is what would happen.
type Plan struct {
	Channel string `json:"channel"`
	From    int64  `json:"from_seq"`        // the channel's release now
	Seq     int64  `json:"seq,omitempty"`   // the release that it is about; 0: of none that was made
	To      string `json:"to,omitempty"`    // the store path that was asked about
	Waved   bool   `json:"waved,omitempty"` // the channel's policy has roll-outs
	// Refused is why a promote of it would not be taken now: the kind of the error and its words.
	Refused *Refusal `json:"refused,omitempty"`
	Frozen  string   `json:"frozen,omitempty"` // why no host begins with anything now

	// Hosts of the channel. Those that change may be offline, held, or both as well.
	Hosts        int   `json:"hosts"`
	Changing     int   `json:"changing"`
	Unchanged    int   `json:"unchanged"` // they run it
	NotInRelease int   `json:"not_in_release"`
	Silent       int   `json:"silent"` // never reported: what they run is not known
	Reboots      int   `json:"reboots"`
	ByHand       bool  `json:"by_hand,omitempty"` // the policy has no reboot_slots: auto leaves reboots to people
	Offline      int   `json:"offline"`           // of those that change
	Held         int   `json:"held"`              // of those that change
	Quarantined  int   `json:"quarantined"`
	Fetch        int64 `json:"fetch_bytes"` // by all together, unpacked

	Waves     []Wave `json:"waves,omitempty"`
	Steps     []Step `json:"steps"`
	MoreSteps int    `json:"more_steps,omitempty"` // that were not looked at: their bytes are not in Fetch
	List      []Host `json:"list"`                 // of hosts that change, by wave and name
	MoreHosts int    `json:"more_hosts,omitempty"` // that are not in List
}

// Refusal is an error that would be answered.
type Refusal struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
}

// Wave is how many hosts would be in a wave, as things stand now.
type Wave struct {
	Name    string `json:"name"`
	Select  string `json:"select,omitempty"`
	Hosts   int    `json:"hosts"`
	Offline int    `json:"offline,omitempty"`
	Bake    string `json:"bake,omitempty"`    // as "10m"
	Approve bool   `json:"approve,omitempty"` // somebody has to say advance
	// Checks are asked while it bakes.
	Checks []string `json:"checks,omitempty"`
}

// Step is from one system to another.
type Step struct {
	From    string   `json:"from,omitempty"` // what runs; "": not known
	To      string   `json:"to"`
	Action  string   `json:"action"`
	Hosts   int      `json:"hosts"`
	Targets []string `json:"targets"` // the first three
	// Fetch is what each host has to download: paths, and their bytes unpacked. Of what is not
	// in the cache any more nothing is known: then Unknown says so, and all paths of To count.
	FetchPaths int   `json:"fetch_paths"`
	Fetch      int64 `json:"fetch_bytes"`
	Unknown    bool  `json:"unknown,omitempty"`
	Missing    int   `json:"missing,omitempty"` // paths of To that the cache has not
	// Reboot is whether hosts come to run it by a reboot, and For what of it needs one.
	Reboot bool     `json:"reboot,omitempty"`
	For    []string `json:"reboot_for,omitempty"`
	// Packages that are others, as nix store diff-closures tells them, those of the largest
	// difference in size first.
	Packages []Package `json:"packages"`
	More     int       `json:"more_packages,omitempty"`

	Quarantined string `json:"quarantined,omitempty"` // why To is given to nobody
}

// Package is one name of which a closure has other versions, or another size.
type Package struct {
	Name   string   `json:"name"`
	Before []string `json:"before,omitempty"` // versions, "" for none; absent: it is added
	After  []string `json:"after,omitempty"`  // absent: it is removed
	Bytes  int64    `json:"bytes"`            // more than before, unpacked
	Older  bool     `json:"older,omitempty"`  // the newest version is older than before
}

// Host is one that changes.
type Host struct {
	Host    string `json:"host"`
	Step    int    `json:"step"`           // in Steps; -1: of those that were not looked at
	Wave    int    `json:"wave,omitempty"` // from 1
	Offline bool   `json:"offline,omitempty"`
	Held    string `json:"held,omitempty"` // why
}
