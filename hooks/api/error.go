package api

import (
	"fmt"
	"time"
)

// Kind is what went wrong, from a closed list.
type Kind string

// The kinds. What each means stands in the table Kinds.
const (
	BadRequest        Kind = "bad_request"
	Unauthorized      Kind = "unauthorized"
	Forbidden         Kind = "forbidden"
	NotFound          Kind = "not_found"
	MethodNotAllowed  Kind = "method_not_allowed"
	Misdirected       Kind = "misdirected"
	OrderBackwards    Kind = "order"
	SeqConflict       Kind = "seq"
	StaleStatus       Kind = "stale"
	IdentityConflict  Kind = "identity"
	RaceLost          Kind = "race_lost"
	TooLarge          Kind = "too_large"
	BadSignature      Kind = "bad_signature"
	ClosureIncomplete Kind = "closure_incomplete"
	ClosureDiffers    Kind = "closure_differs"
	ManifestMissing   Kind = "manifest_missing"
	NotASystem        Kind = "not_a_system"
	Invalid           Kind = "invalid"
	NoPrecondition    Kind = "precondition_needed"
	InUse             Kind = "in_use"
	NotProven         Kind = "not_proven"
	Quarantined       Kind = "quarantined"
	InProgress        Kind = "in_progress"
	Conflict          Kind = "conflict"
	SlotTaken         Kind = "slot_taken"
	NotNow            Kind = "not_now"
	Internal          Kind = "internal"
	Unavailable       Kind = "unavailable"
)

// A KindRow says of a kind which status answers it, what it means and what to
// do about it, in Markdown.
type KindRow struct {
	Kind   Kind
	Status int
	Means  string
	Do     string
}

// Kinds has each kind once. docs/channels.md and docs/openapi.json are checked
// against it.
var Kinds = []KindRow{
	{RaceLost, 412, "the channel, or its policy, moved since it was read; `channel` has what is there", "look at it (`narwharf channel show`), and promote again if you still want to"},
	{NoPrecondition, 428, "no `If-Match` (curl alone)", "send the channel's ETag, its seq in quotes; `\"0\"` for a new one"},
	{OrderBackwards, 409, "`--order` is below that of the last release: an older job ran late", "nothing, mostly. To go back on purpose: `rollback`"},
	{SeqConflict, 409, "the seq was used, or is more than 1000 ahead; or what is said of a host (`retry`, `release`) is about another than it is now", "promote again. After a backup was restored: see below"},
	{BadSignature, 422, "not enough of the channel's keys signed; the message says who did", "the right `--key`; `--out` and `sign` for more than one; a new key is brought in by an admin with `--channel-key`"},
	{ClosureIncomplete, 422, "paths of the closure are not in the cache; `missing` lists them", "`nix copy --refresh --to …`, promote again. Without `--refresh` Nix believes for 30 days what it remembers of the cache"},
	{ClosureDiffers, 422, "paths are there with other bytes than yours; `differs` has both lines, who uploaded and when", "see below"},
	{ManifestMissing, 422, "the closures differ and the server cannot say where before it has your manifest", "nothing: `narwharf promote` sends it and asks again. With curl: `PUT /api/v1/closures/<sha256>`"},
	{NotASystem, 422, "the path is not a NixOS system, or one for another machine than the entry says", "promote `config.system.build.toplevel`; or `--kind path` with the first promote"},
	{Invalid, 422, "the release contradicts itself, the channel's origin, or the store directory", "what the message says"},
	{Unauthorized, 401, "no good token", "`narwharf token new --scope promote:web`"},
	{Forbidden, 403, "a token without the scope; also if keys, threshold or kind would change", "`narwharf token new --scope promote:web`"},
	{BadRequest, 400, "a name outside the grammar, a body that is not what belongs there; `{}` always", "what the message says"},
	{NotFound, 404, "no such channel, release, manifest or host", "look at the name"},
	{StaleStatus, 409, "a report of a host that is older than the one stored", "agents put it right by themselves"},
	{IdentityConflict, 409, "another machine has the host's name", "[hosts.md](hosts.md#which-machine-it-is)"},
	{InUse, 409, "something keeps the path that was to be deleted", "`narwharf why PATH` shows what"},
	{NotProven, 409, "the channel's policy `requires` a release to have completed on another channel first; the message says what is missing", "promote it there and wait; `--now` goes past it"},
	{Quarantined, 409, "hosts went back from the system by themselves, so it is given to nobody", "find out why (`narwharf quarantine list`), then `narwharf quarantine clear PATH`, or promote with `--force`"},
	{InProgress, 409, "a roll-out is on its way, and the policy's `on_supersede` is `reject`", "wait for its end, or abort it"},
	{Conflict, 409, "what is said of a roll-out does not fit what it is now", "look at it (`narwharf rollout show`), and say it again if you still mean it"},
	{SlotTaken, 423, "FleetLock: as many machines of the group may reboot now as may at a time", "clients ask again; `narwharf reboots list` shows who holds a slot"},
	{NotNow, 423, "FleetLock: the windows of the group's channel are closed, or there is a freeze", "clients ask again"},
	{TooLarge, 413, "more than 128 MiB of release, 64 MiB of manifest, 64 MiB of status, 1 MiB of log", "send less"},
	{Misdirected, 421, "a request without a good token, for a host that is not this server's, would change something or read more than `pull`: a web page may have sent it", "send a token, or ask by the server's address or `public_url`; other names: `hosts` in `[access]`"},
	{MethodNotAllowed, 405, "the URL has no such method", "docs/openapi.json has those that it has"},
	{Internal, 500, "the server's log says more", "try again"},
	{Unavailable, 503, "the server is stopping, cannot read its tokens now, or has all that it can hold ([limits](config.md#limits)); or a body came too slowly. `Retry-After` says when to ask again", "try again; agents and `--wait` do"},
}

// Status is the HTTP status that answers a kind, 500 for one that is not in the
// table.
func (k Kind) Status() int {
	for i := range Kinds {
		if Kinds[i].Kind == k {
			return Kinds[i].Status
		}
	}
	return 500
}

// Error is the body of every answer from 400 on.
type Error struct {
	Kind    Kind   `json:"kind"`
	Message string `json:"message"` // what is wrong and what to do, for people

	Channel  *Channel     `json:"channel,omitempty"` // with race_lost, seq: what is there now
	Missing  []Missing    `json:"missing,omitempty"`
	Differs  []Difference `json:"differs,omitempty"`
	Closures []string     `json:"closures,omitempty"` // with manifest_missing: their digests
	StartID  int64        `json:"start_id,omitempty"` // with stale: what is stored
	Counter  int64        `json:"counter,omitempty"`

	Request string `json:"request,omitempty"` // id of the request; the server's log has it, too

	Status     int           `json:"-"`
	RetryAfter time.Duration `json:"-"`

	foreign bool
}

// Foreign tells that no API of a Narwharf has made it: what answered knows nothing of what was asked for.
func (e *Error) Foreign() bool { return e.foreign }

func (e *Error) Error() string { return e.Message }

// Errorf makes an Error with the status of its kind.
func Errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Status: kind.Status(), Kind: kind, Message: fmt.Sprintf(format, args...)}
}
