package nixos

import (
	"context"
	"time"

	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/nixos/effect"
	"narwharf/nixos/journal"
	"narwharf/signing"
)

// A Host is the world as the agent meets it, in parts. Package linux has those of a real
// one; package sim has one that lies in memory and fails where a test wants it to.
type Host struct {
	System
	Boot
	Runs
	Health
	Network
	Store
	Server
}

// System is the machine that the agent runs on.
type System interface {
	// Facts reads them all anew.
	Facts(ctx context.Context) (effect.Facts, error)
	Sleep(ctx context.Context, d time.Duration) error
	// Specialisations are those of a system in the store, by name.
	Specialisations(path string) map[string]string
}

// Boot is what the machine boots, and how.
type Boot interface {
	// SetProfile makes path the newest generation; nothing if it is that.
	// It is durable when it returns.
	SetProfile(ctx context.Context, path string) error
	// ResetProfile makes a generation link of the profile the current one, and
	// removes generations after it that are of the path bad.
	ResetProfile(ctx context.Context, link, bad string) error
	// Reasons compares path with what runs and what is booted.
	Reasons(ctx context.Context, path string) (Reasons, error)
	// WithoutAgent is what path lacks of the agent that the running system brings, "" if
	// nothing.
	WithoutAgent(ctx context.Context, path string) string
	// BootRoom is an error if a boot partition has no room left: boot loaders
	// have been known to fill it and to say that all is well (nixpkgs, issue
	// 189966).
	BootRoom(ctx context.Context) error
	// Sync makes store and boot partition durable.
	Sync(ctx context.Context) error
	// Reboot returns when the host is still up after a while, or ctx ended.
	Reboot(ctx context.Context) error
}

// Reasons are why a system cannot be switched to live.
type Reasons struct {
	Reboot    []string // what of it only a boot brings
	Inhibited []string // what forbids a switch
	CanCheck  bool     // its switch-to-configuration has the action check
}

// RunState is what is known of a Run.
type RunState struct {
	Begun  bool // it was started, ever
	Active bool // it is running
	Ended  bool // and this is how:
	Exit   int
	Text   string // the service's result, if it was no exit status: "timeout"
}

// Runs are of switch-to-configuration, beside the agent: they go on where the agent
// ends.
type Runs interface {
	// Busy says who else switches the system, "" if nobody.
	Busy(ctx context.Context) (string, error)
	// StartRun returns when the run has been started. If it says an error the
	// run may have been started all the same: RunState knows.
	StartRun(ctx context.Context, r journal.Run) error
	RunState(ctx context.Context, r journal.Run) (RunState, error)
	// LastLines are the last lines that a run wrote, "" if they are not known.
	LastLines(ctx context.Context, r journal.Run) string
	// RunLog is what a run wrote, the last limit bytes of it.
	RunLog(ctx context.Context, r journal.Run, limit int) (string, error)
}

// Health is how well the host is, and what the operator wants done around a switch.
type Health interface {
	// Units are those that are not well, by name. Changed says what of them differs
	// between two systems.
	Units(ctx context.Context, from, to string) ([]effect.Unit, error)
	// Checks runs all health checks that are not off, path's own included.
	Checks(ctx context.Context, path string) ([]api.Check, error)
	// Hook runs a command of the configuration, within its time-out.
	Hook(ctx context.Context, name effect.HookName, env []string) error
}

// Network is what can be reached from the host.
type Network interface {
	// Probe lets path's own agent send the report over a connection of its own.
	Probe(ctx context.Context, path string, s *api.Status) effect.Probed
	// Witness tries to reach anything but the server.
	Witness(ctx context.Context) (alive bool, text string)
}

// A StorePath is what the local store knows of a path.
type StorePath struct {
	*narinfo.Info
	Ultimate bool // built here
}

// Store is the local Nix store.
type Store interface {
	// Path is nil if the path is not valid.
	Path(ctx context.Context, p narinfo.Path) (*StorePath, error)
	// Realise substitutes a path and its closure from the cache, nothing but these lines
	// of the manifest, builds nothing, and protects it by the named root when it is there.
	// What a failed try left behind is deleted.
	Realise(ctx context.Context, p narinfo.Path, root string, closure []signing.Line) error
	// Root protects a store path that is valid.
	Root(ctx context.Context, root, path string) error
	Unroot(ctx context.Context, root string) error
	// Delete removes paths which nothing else refers to.
	Delete(ctx context.Context, paths []narinfo.Path) error
	// Verify reads a valid path and tells whether its bytes are those that
	// Nix has on record.
	Verify(ctx context.Context, p narinfo.Path) (good bool, err error)
	// Free is the room on the store's disk in bytes.
	Free(ctx context.Context) (int64, error)
}

// The roots.
const (
	RootTarget    = "target"
	RootPrevious  = "previous"
	RootConfirmed = "confirmed"
	RootBefore    = "confirmed-before"
)

// Server is Narwharf's API, and its cache.
type Server interface {
	// Desired is api.ErrNotModified if nothing is new. seq is the highest that the host
	// has accepted.
	Desired(ctx context.Context, etag string, have api.Have, wait time.Duration) (*api.Desired, string, error)
	// Report hands a status over. It is delivered when that is possible,
	// unless a newer one is handed over before.
	Report(ctx context.Context, s *api.Status)
	// Delivered is the Counter of the newest report that the server took, of
	// this start of the agent.
	Delivered() int64
	// ReportNow returns when the server took it.
	ReportNow(ctx context.Context, s *api.Status) error
	// Confirm lets probe send the report as another agent, and knows then whether the
	// server took it.
	Confirm(ctx context.Context, s *api.Status, probe func(context.Context, *api.Status) effect.Probed) effect.Probed
	// PostLog sends what the runs of an attempt have written.
	PostLog(ctx context.Context, attempt string, text []byte) error

	Manifest(ctx context.Context, d signing.Digest) ([]byte, error)
	// Narinfos has what the cache says of each path; one that it does not
	// have is an error.
	Narinfos(ctx context.Context, paths []narinfo.Path) ([]*narinfo.Info, error)
}
