package api

import (
	"fmt"
	"time"
)

// ErrorKind is what went wrong, from a closed list that docs/openapi.json has.
type ErrorKind string

// The kinds.
const (
	BadRequest        ErrorKind = "bad_request"         // 400
	Unauthorized      ErrorKind = "unauthorized"        // 401
	Forbidden         ErrorKind = "forbidden"           // 403
	NotFound          ErrorKind = "not_found"           // 404
	MethodNotAllowed  ErrorKind = "method_not_allowed"  // 405
	OrderBackwards    ErrorKind = "order"               // 409
	SeqConflict       ErrorKind = "seq"                 // 409
	StaleStatus       ErrorKind = "stale"               // 409
	IdentityConflict  ErrorKind = "identity"            // 409: another machine has the host name
	RaceLost          ErrorKind = "race_lost"           // 412
	TooLarge          ErrorKind = "too_large"           // 413
	BadSignature      ErrorKind = "bad_signature"       // 422
	ClosureIncomplete ErrorKind = "closure_incomplete"  // 422
	ClosureDiffers    ErrorKind = "closure_differs"     // 422
	ManifestMissing   ErrorKind = "manifest_missing"    // 422
	NotASystem        ErrorKind = "not_a_system"        // 422
	Invalid           ErrorKind = "invalid"             // 422
	NoPrecondition    ErrorKind = "precondition_needed" // 428
	Internal          ErrorKind = "internal"            // 500
	Unavailable       ErrorKind = "unavailable"         // 503, with Retry-After
)

// Error is the body of every answer from 400 on.
type Error struct {
	Kind    ErrorKind `json:"kind"`
	Message string    `json:"message"` // what is wrong and what to do, for people

	Channel  *Channel     `json:"channel,omitempty"` // with race_lost, seq: what is there now
	Missing  []Missing    `json:"missing,omitempty"`
	Differs  []Difference `json:"differs,omitempty"`
	Closures []string     `json:"closures,omitempty"` // with manifest_missing: their digests
	StartID  int64        `json:"start_id,omitempty"` // with stale: what is stored
	Counter  int64        `json:"counter,omitempty"`

	Status     int           `json:"-"`
	RetryAfter time.Duration `json:"-"`
}

func (e *Error) Error() string { return e.Message }

// Errorf makes an Error.
func Errorf(status int, kind ErrorKind, format string, args ...any) *Error {
	return &Error{Status: status, Kind: kind, Message: fmt.Sprintf(format, args...)}
}
